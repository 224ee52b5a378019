from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import InvalidObject
from fairlead.services.effects import View, fold
from fairlead.services.nodespans import node_span
from fairlead.storage.base import CacheEntry, NodeRecord, RunState, Span
from fairlead.tracing.ids import node_span_id, span_id
from fairlead_agent.protocol import Entry, ErrorInfo, Kind, Progress, State, Wait, WaitFor

RUN = "run-1"
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EMPTY = View(RUN, "triage-1")
NOW = START + timedelta(days=1)


def at(seconds: int) -> datetime:
    return START + timedelta(seconds=seconds)


def entry(kind: Kind, seconds: int = 0, **values: Any) -> Entry:
    return Entry(kind=kind, at=at(seconds), **values)


JOURNAL = (
    entry(Kind.NODE_STARTED, 0, node="split"),
    entry(Kind.ITEM_STARTED, 1, node="split", item="0"),
    entry(Kind.ITEM_STARTED, 1, node="split", item="1"),
    entry(Kind.TRY_FAILED, 2, node="split", item="1", error=ErrorInfo(reason="RateLimited", message="slow")),
    entry(Kind.ITEM_FINISHED, 3, node="split", item="0", state=State.SUCCEEDED, output="a"),
    entry(Kind.ITEM_FINISHED, 5, node="split", item="1", state=State.SUCCEEDED, output="b", try_number=2),
    entry(Kind.NODE_FINISHED, 6, node="split", state=State.SUCCEEDED, output=["a", "b"]),
    entry(Kind.NODE_FINISHED, 6, node="never", state=State.SKIPPED, reason="WhenFalse"),
    entry(Kind.RUN_FINISHED, 7, state=State.SUCCEEDED, output=["a", "b"]),
)


def folded(*batches: tuple[Entry, ...]) -> tuple[dict[tuple[str, str], NodeRecord], dict[str, Span]]:
    """Return the records after the batches, later ones in the place of earlier ones, and the spans that they give."""
    nodes: dict[tuple[str, str], NodeRecord] = {}
    spans: dict[str, Span] = {}
    view = EMPTY
    for batch in batches:
        view, effects = fold(view, batch, attempt=1, at=NOW)
        nodes |= {(record.node, record.item): record for record in effects.nodes}
        found = (*effects.spans, *filter(None, map(node_span, effects.nodes)))
        spans |= {span.span_id: span for span in found}
    return nodes, spans


def test_fold_records_nodes_and_items() -> None:
    nodes, _ = folded(JOURNAL)
    shown = {key: (r.state, r.tries, r.started_at, r.finished_at, r.output) for key, r in nodes.items()}
    assert shown == {
        ("split", ""): ("Succeeded", 1, at(0), at(6), ["a", "b"]),
        ("split", "0"): ("Succeeded", 1, at(1), at(3), "a"),
        ("split", "1"): ("Succeeded", 2, at(1), at(5), "b"),
        ("never", ""): ("Skipped", 1, None, at(6), None),
    }
    assert nodes["never", ""].reason == "WhenFalse"


def test_fold_spans_form_a_tree() -> None:
    _, spans = folded(JOURNAL)
    root, node, item = span_id(RUN), node_span_id(RUN, "split", None, 1), node_span_id(RUN, "split", "1", 1)
    assert spans[item].parent_id == node
    assert spans[node].parent_id == root
    assert spans[root].parent_id == ""
    assert (spans[root].started_at, spans[root].finished_at, spans[root].status) == (at(0), at(7), "ok")
    assert spans[item].attributes["fairlead.tries"] == 2


@given(st.sets(st.integers(1, len(JOURNAL) - 1)))
def test_fold_batches_do_not_matter(cuts: set[int]) -> None:
    edges = [0, *sorted(cuts), len(JOURNAL)]
    batches = [JOURNAL[start:end] for start, end in pairwise(edges)]
    assert folded(*batches) == folded(JOURNAL)


def test_fold_retry_is_shown_while_it_waits() -> None:
    nodes, _ = folded(JOURNAL[:4])
    record = nodes["split", "1"]
    assert (record.state, record.reason, record.message) == ("Retrying", "RateLimited", "slow")


def test_fold_later_attempt_keeps_the_first_start() -> None:
    view, _ = fold(EMPTY, (entry(Kind.NODE_STARTED, 0, node="a"),), attempt=1, at=NOW)
    _, effects = fold(view, (entry(Kind.NODE_STARTED, 60, node="a"),), attempt=2, at=NOW)
    assert (effects.nodes[0].started_at, effects.nodes[0].attempt) == (at(0), 2)


@pytest.mark.parametrize(
    ("given_entry", "state", "reason", "message"),
    [
        (entry(Kind.RUN_FINISHED, state=State.SUCCEEDED), RunState.SUCCEEDED, "Succeeded", ""),
        (
            entry(Kind.RUN_FINISHED, state=State.FAILED, reason="NodeFailed", error=ErrorInfo(reason="X", message="m")),
            RunState.FAILED,
            "NodeFailed",
            "m",
        ),
        (
            entry(Kind.RUN_FINISHED, state=State.FAILED, error=ErrorInfo(reason="Timeout", message="m")),
            RunState.FAILED,
            "Timeout",
            "m",
        ),
        (entry(Kind.RUN_FINISHED, state=State.CANCELLED), RunState.CANCELLED, "Cancelled", ""),
    ],
)
def test_fold_end_of_the_run(given_entry: Entry, state: RunState, reason: str, message: str) -> None:
    _, effects = fold(EMPTY, (given_entry,), attempt=1, at=NOW)
    assert effects.end is not None
    assert (effects.end.state, effects.end.reason, effects.end.message) == (state, reason, message)


@pytest.mark.parametrize("state", [State.SKIPPED, None])
def test_fold_run_that_ends_as_nothing_is_refused(state: State | None) -> None:
    with pytest.raises(InvalidObject):
        fold(EMPTY, (entry(Kind.RUN_FINISHED, state=state),), attempt=1, at=NOW)


def test_fold_progress_is_passed_on() -> None:
    _, effects = fold(EMPTY, (), attempt=1, at=NOW, progress=Progress(done=1, total=3, current=("a",)))
    assert (effects.done, effects.total, effects.current) == (1, 3, ("a",))


def test_fold_secrets_in_errors_do_not_reach_spans() -> None:
    error = ErrorInfo(reason="ModelFailed", message="key sk-canary-0123456789 is wrong")
    failed = entry(Kind.NODE_FINISHED, node="a", state=State.FAILED, error=error)
    _, spans = folded((failed,))
    assert "0123456789" not in str(spans)


def test_fold_node_of_a_sub_workflow_lies_in_the_execution_that_runs_it() -> None:
    started = [
        entry(Kind.NODE_STARTED, node=path) for path in ("a", "a/b", "a[x%2Fy]/b", "a#2.1/b", "a/b/c", "@finally/d")
    ]
    _, spans = folded(tuple(started))
    parents = {span.name: span.parent_id for span in spans.values()}
    assert parents["a"] == span_id(RUN)
    assert parents["a/b"] == node_span_id(RUN, "a", None, 1)
    assert parents["a[x%2Fy]/b"] == node_span_id(RUN, "a", "x/y", 1)
    assert parents["a#2.1/b"] == node_span_id(RUN, "a", None, 2)
    assert parents["a/b/c"] == node_span_id(RUN, "a/b", None, 1)
    assert parents["@finally/d"] == node_span_id(RUN, "@finally", None, 1)


@pytest.mark.parametrize("kind", list(WaitFor))
def test_fold_waiting_node_says_what_for(kind: WaitFor) -> None:
    waiting = entry(Kind.WAITING, 1, node="a", wait=Wait(kind=kind, key="k"))
    nodes, _ = folded((entry(Kind.NODE_STARTED, node="a"), waiting))
    record = nodes["a", ""]
    assert (record.state, record.reason, record.started_at) == ("Waiting", kind.value, at(0))


def test_fold_iterations_are_records_of_their_own() -> None:
    journal = (
        entry(Kind.NODE_FINISHED, node="a", state=State.SUCCEEDED, output=1),
        entry(Kind.REPEATED, node="a", iteration=2),
        entry(Kind.NODE_STARTED, node="a", iteration=2),
    )
    _, effects = fold(EMPTY, journal, attempt=1, at=NOW)
    assert {(record.iteration, record.state) for record in effects.nodes} == {(1, "Succeeded"), (2, "Running")}


def test_fold_reused_nodes_are_counted_and_marked() -> None:
    values: dict[str, Any] = {"state": State.SUCCEEDED, "output": 1, "digest": "d", "reused": "run-0"}
    journal = (
        entry(Kind.NODE_FINISHED, node="a", reason="Reused", **values),
        entry(Kind.ITEM_FINISHED, node="b", item="0", reason="Reused", **values),
        entry(Kind.NODE_FINISHED, node="c", reason="Cached", cache_seconds=60, **values),
    )
    _, effects = fold(EMPTY, journal, attempt=1, at=NOW)
    assert effects.reused == 1
    assert {record.reused for record in effects.nodes} == {"run-0"}
    assert effects.cached == (), "what came from the cache is not kept once more"


def test_fold_good_result_is_kept_by_our_own_clock() -> None:
    values: dict[str, Any] = {"node": "a", "digest": "d", "cache_seconds": 60}
    good = entry(Kind.NODE_FINISHED, 10**6, state=State.SUCCEEDED, output=[1], **values)
    bad = entry(Kind.NODE_FINISHED, state=State.FAILED, **values | {"digest": "e"})
    _, effects = fold(EMPTY, (good, bad), attempt=1, at=NOW)
    assert effects.cached == (CacheEntry("d", [1], RUN, NOW, NOW + timedelta(seconds=60)),)


def test_fold_ending_run_is_not_ended_before_its_handlers() -> None:
    ending = entry(Kind.RUN_ENDING, 1, state=State.FAILED, reason="NodeFailed")
    handler = entry(Kind.NODE_FINISHED, 2, node="@finally", state=State.SUCCEEDED)
    view, effects = fold(EMPTY, (ending, handler), attempt=1, at=NOW)
    assert effects.end is None
    _, effects = fold(view, (entry(Kind.RUN_FINISHED, 3, state=State.FAILED, reason="NodeFailed"),), attempt=1, at=NOW)
    assert effects.end is not None
    assert effects.end.reason == "NodeFailed"


def test_fold_turn_cannot_end_a_run() -> None:
    with pytest.raises(InvalidObject):
        fold(EMPTY, (entry(Kind.TURN_FINISHED, state=State.SUCCEEDED),), attempt=1, at=NOW)


ASKS = (
    entry(Kind.NODE_STARTED, 0, node="ship"),
    entry(Kind.WAITING, 1, node="ship", item="", wait=Wait(kind=WaitFor.APPROVAL, key="k")),
)
FAILED = ErrorInfo(reason="Timeout", message="too late")


@pytest.mark.parametrize(
    ("end", "withdrawn"),
    [
        (entry(Kind.ITEM_FINISHED, 9, node="ship", item="", state=State.FAILED, error=FAILED), (("ship", '""'),)),
        (entry(Kind.ITEM_FINISHED, 9, node="ship", item="", state=State.CANCELLED), (("ship", '""'),)),
        (entry(Kind.TRY_FAILED, 9, node="ship", item="", error=FAILED), (("ship", '""'),)),
        (entry(Kind.ITEM_FINISHED, 9, node="ship", item="other", state=State.SUCCEEDED), ()),
        (entry(Kind.NODE_FINISHED, 9, node="ship", state=State.SUCCEEDED), ()),
        (entry(Kind.NODE_FINISHED, 9, node="ship", state=State.CANCELLED), (("ship", ""),)),
    ],
)
def test_fold_withdraws_the_questions_of_a_try_that_is_over(end: Entry, withdrawn: tuple[Any, ...]) -> None:
    view, before = fold(EMPTY, ASKS, attempt=1, at=NOW)
    _, after = fold(view, [end], attempt=1, at=NOW)
    assert (before.withdrawn, after.withdrawn) == ((), withdrawn)
