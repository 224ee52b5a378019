from datetime import UTC, datetime, timedelta

from fairlead.api.conditions import ConditionType, Reason
from fairlead.core import conditions

EARLY = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
LATE = EARLY + timedelta(minutes=5)


def test_merge_keeps_the_time_while_the_status_stays() -> None:
    first = conditions.merge([], conditions.ready(Reason.ACCEPTED, "Fine.", generation=1), now=EARLY)
    second = conditions.merge(first, conditions.ready(Reason.AVAILABLE, "Finer.", generation=2), now=LATE)
    assert second == [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Available",
            "message": "Finer.",
            "observedGeneration": 2,
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        }
    ]


def test_merge_moves_the_time_with_the_status() -> None:
    first = conditions.merge([], conditions.ready(Reason.ACCEPTED, "Fine.", generation=1), now=EARLY)
    failing = conditions.stalled(ConditionType.READY, Reason.INVALID_GRAPH, "Bad.", generation=2)
    second = conditions.merge(first, failing, now=LATE)
    assert [(c["type"], c["status"], c["lastTransitionTime"]) for c in second] == [
        ("Ready", "False", "2026-01-02T03:09:05Z"),
        ("Stalled", "True", "2026-01-02T03:09:05Z"),
    ]


def test_merge_drops_reconciling_and_stalled_when_they_end() -> None:
    waiting = conditions.progressing(ConditionType.READY, Reason.MODEL_NOT_FOUND, "Apply it.", generation=1)
    first = conditions.merge([], waiting, now=EARLY)
    assert [c["type"] for c in first] == ["Ready", "Reconciling"]
    second = conditions.merge(first, conditions.ready(Reason.ACCEPTED, "Fine.", generation=1), now=LATE)
    assert [c["type"] for c in second] == ["Ready"]


def test_merge_keeps_conditions_of_others() -> None:
    other = {"type": "Audited", "status": "True", "reason": "Done", "lastTransitionTime": "2020-01-01T00:00:00Z"}
    merged = conditions.merge([other], conditions.ready(Reason.ACCEPTED, "", generation=1), now=EARLY)
    assert merged[-1] == other


def test_merge_twice_changes_nothing() -> None:
    wanted = conditions.progressing(ConditionType.SUCCEEDED, Reason.RUNNING, "It runs.", generation=1)
    once = conditions.merge([], wanted, now=EARLY)
    assert conditions.merge(once, wanted, now=LATE) == once


def test_run_is_unknown_and_unfinished_while_it_is_active() -> None:
    wanted = conditions.progressing(ConditionType.SUCCEEDED, Reason.RUNNING, "It runs.", generation=1)
    merged = conditions.merge([], wanted, now=EARLY)
    assert {c["type"]: c["status"] for c in merged} == {
        "Succeeded": "Unknown",
        "Finished": "False",
        "Reconciling": "True",
    }


def test_run_that_failed_is_finished_and_stalled() -> None:
    wanted = conditions.stalled(ConditionType.SUCCEEDED, Reason.NODE_FAILED, "a failed.", generation=1)
    merged = conditions.merge([], wanted, now=EARLY)
    assert conditions.is_true(merged, "Finished")
    assert conditions.is_true(merged, "Stalled")
    assert not conditions.is_true(merged, "Succeeded")


def test_run_that_succeeded_is_finished_and_nothing_else() -> None:
    merged = conditions.merge([], conditions.succeeded("Done.", generation=1), now=EARLY)
    assert {c["type"]: c["status"] for c in merged} == {"Succeeded": "True", "Finished": "True"}


def test_long_messages_are_shortened() -> None:
    merged = conditions.merge([], conditions.ready(Reason.ACCEPTED, "x" * 9000, generation=1), now=EARLY)
    assert len(merged[0]["message"]) == conditions.MAX_MESSAGE
    assert merged[0]["message"].endswith(" …")
