"""How many runs of a workflow are active at once, and which."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.concurrency import Active, Admission, Candidate, Policy, admit


def active(*ages: int, ending: bool = False) -> list[Active]:
    return [Active(datetime(2026, 1, 1, 0, 0, age, tzinfo=UTC), f"active-{age}", ending=ending) for age in ages]


def waiting(*ages: int, priority: int = 0) -> list[Candidate]:
    return [Candidate(f"waiting-{age}", f"2026-01-01T00:00:{age:02}Z", priority) for age in ages]


(RUN,) = waiting(30)
SAME_SECOND = [Candidate(f"{9 - arrival}", RUN.since, arrival=arrival) for arrival in (1, 2, 3)]


@pytest.mark.parametrize(
    ("policy", "running", "others", "expected"),
    [
        pytest.param("Queue", active(1), [], Admission("Start"), id="queue-there-is-room"),
        pytest.param("Queue", active(1, 2), [], Admission("Wait"), id="queue-it-is-full"),
        pytest.param("Queue", active(1), waiting(29), Admission("Wait"), id="queue-an-older-one-is-first"),
        pytest.param("Queue", active(1), waiting(31), Admission("Start"), id="queue-a-younger-one-is-behind"),
        pytest.param("Queue", active(1), waiting(31, priority=1), Admission("Wait"), id="queue-priority-is-first"),
        pytest.param("Queue", active(1), waiting(29, priority=-1), Admission("Start"), id="queue-low-priority"),
        pytest.param("Queue", active(1, 2, ending=True), [], Admission("Wait"), id="queue-ending-is-active"),
        pytest.param("Forbid", active(1), [], Admission("Start"), id="forbid-there-is-room"),
        pytest.param("Forbid", active(1, 2), [], Admission("Forbidden"), id="forbid-it-is-full"),
        pytest.param("Replace", active(1), [], Admission("Start"), id="replace-there-is-room"),
        pytest.param("Replace", active(2, 1), [], Admission("Wait", ("active-1",)), id="replace-the-oldest"),
        pytest.param("Replace", active(1, 2, ending=True), [], Admission("Wait"), id="replace-ends-already"),
        pytest.param(
            "Replace", active(1, 2), waiting(31), Admission("Wait", ("active-1", "active-2")), id="replace-for-two"
        ),
        pytest.param("Replace", active(1, 2), waiting(31, 32), Admission("Replaced"), id="replaced-by-newer"),
    ],
)
def test_admit_with_a_limit_of_two(
    policy: Policy, running: list[Active], others: list[Candidate], expected: Admission
) -> None:
    assert admit(RUN, limit=2, policy=policy, active=running, waiting=others) == expected


def test_admit_of_the_same_second_goes_by_arrival() -> None:
    first, second, third = SAME_SECOND
    assert admit(second, limit=1, policy="Queue", active=[], waiting=[first, third]).verdict == "Wait"
    assert admit(first, limit=1, policy="Queue", active=[], waiting=[second, third]).verdict == "Start"
    assert admit(second, limit=1, policy="Replace", active=[], waiting=[first, third]).verdict == "Replaced"
    assert admit(third, limit=1, policy="Replace", active=[], waiting=[first, second]).verdict == "Start"


@given(
    policy=st.sampled_from(["Queue", "Forbid", "Replace"]),
    limit=st.integers(1, 4),
    arrivals=st.lists(st.integers(-2, 2), max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_admit_never_lets_more_run_than_the_limit(
    policy: Policy,
    limit: int,
    arrivals: list[int],
    order: st.Random,  # type: ignore[name-defined]
) -> None:
    """Runs come, are looked at in any order, and end in any order; nobody waits for ever."""
    candidates = [Candidate(f"r{n:02}", f"{n:02}", priority) for n, priority in enumerate(arrivals)]
    running: dict[str, Active] = {}
    pending = {one.uid: one for one in candidates}
    for _ in range(10 * len(candidates) + 10):
        for uid in order.sample(sorted(pending), len(pending)):
            run = pending[uid]
            others = [one for one in pending.values() if one.uid != uid]
            decided = admit(run, limit=limit, policy=policy, active=list(running.values()), waiting=others)
            for replaced in decided.replace:
                running[replaced] = Active(running[replaced].since, replaced, ending=True)
            if decided.verdict == "Start":
                running[uid] = Active(datetime.fromtimestamp(int(run.since), UTC), uid)
            if decided.verdict != "Wait":
                del pending[uid]
            assert len(running) <= limit
        if running:
            running.pop(order.choice(sorted(running)))
    assert not pending
