"""Random graphs, failures and orders, held against a small model that knows nothing of time."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_agent.graph import Graph, Outcome, Schedule, Work, parse_graph, step
from fairlead_agent.protocol import Entry, ErrorInfo, Kind, State

AT = datetime(2026, 1, 1, tzinfo=UTC)
CONTEXT: Any = {"inputs": {}, "run": {}}


@st.composite
def workflows(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a workflow whose nodes need earlier ones, some conditional, looped, retried, forgiving."""
    nodes = []
    for i in range(draw(st.integers(1, 7))):
        needs = draw(st.lists(st.sampled_from([f"n{j}" for j in range(i)]), unique=True, max_size=3)) if i else []
        node: dict[str, Any] = {"name": f"n{i}", "needs": needs, "tool": {"name": "t"}}
        if draw(st.integers(0, 4)) == 0:
            node["when"] = draw(st.sampled_from(["false", "true", "1 == 2"]))
        if draw(st.integers(0, 3)) == 0:
            node["forEach"] = draw(st.sampled_from(["[]", "[1, 2, 3]", "{'b': 1, 'a': 2}"]))
            node["maxParallel"] = draw(st.integers(1, 3))
        if draw(st.booleans()):
            node["retry"] = {"limit": draw(st.integers(0, 2)), "backoffSeconds": 0}
        if draw(st.integers(0, 2)) == 0:
            node["onError"] = "Continue"
        nodes.append(node)
    return {"nodes": nodes}


def outcome_of(work: Work, failures: dict[str, int]) -> Outcome:
    """Return how a try ends: the first few of some nodes and items fail."""
    name = work.node if work.item is None else f"{work.node}/{work.item}"
    if work.try_number <= failures.get(name, 0):
        return Outcome(error=ErrorInfo(reason="ToolFailed", message=name))
    return Outcome(f"out {name}")


FAILURES = st.dictionaries(
    st.sampled_from([f"n{i}" for i in range(7)] + [f"n{i}/{k}" for i in range(7) for k in "012ab"]),
    st.integers(1, 4),
    max_size=3,
)


def play(graph: Graph, journal: list[Entry], failures: dict[str, int], *, seed: int) -> list[Entry]:
    """Run a workflow to its end from *journal*, tries ending in a random order."""
    order = random.Random(seed)  # noqa: S311 - a test's choice
    schedule = Schedule(graph, **CONTEXT)
    for entry in journal:
        schedule.apply(entry)
    journal = journal + schedule.advance(AT)
    while schedule.ended is None:
        assert schedule.open, "nothing runs, and the run has not ended"
        work = order.choice(list(schedule.open.values()))
        journal += schedule.outcome(work, outcome_of(work, failures), AT)
        journal += schedule.advance(AT)
    assert schedule.open == {}
    return journal


def ends(journal: list[Entry]) -> dict[str, tuple[Any, ...]]:
    return {e.node: (e.state, e.reason, e.output) for e in journal if e.kind is Kind.NODE_FINISHED}


def model(spec: dict[str, Any], failures: dict[str, int]) -> tuple[set[str], dict[str, Any]]:
    """Return which nodes would fail the run, and the outputs of those that would run if nothing stopped them."""
    failing: set[str] = set()
    outputs: dict[str, Any] = {}
    skipped: set[str] = set()
    for node in spec["nodes"]:
        name = node["name"]
        if any(need in failing or need not in outputs for need in node["needs"]):
            continue
        if (node["needs"] and skipped.issuperset(node["needs"])) or node.get("when") in ("false", "1 == 2"):
            skipped.add(name)
            outputs[name] = None
            continue
        units = {"[]": [], "[1, 2, 3]": ["0", "1", "2"], "{'b': 1, 'a': 2}": ["a", "b"]}.get(node.get("forEach", ""))
        allowed = node.get("retry", {}).get("limit", 0)
        results = {}
        for unit in [None] if units is None else units:
            key = name if unit is None else f"{name}/{unit}"
            bad = failures.get(key, 0) > allowed
            if bad and node.get("onError") != "Continue":
                failing.add(name)
            results[unit] = {"reason": "ToolFailed", "message": key} if bad else f"out {key}"
        if name not in failing:
            is_map = node.get("forEach", "").startswith("{")
            outputs[name] = results[None] if units is None else results if is_map else list(results.values())
    return failing, outputs


def assert_sound(graph: Graph, journal: list[Entry]) -> None:
    """Check what holds for every journal, in the order of its entries."""
    state: dict[str, State] = {}
    started: set[str] = set()
    assert [e.kind for e in journal].count(Kind.RUN_FINISHED) == 1
    assert journal[-1].kind is Kind.RUN_FINISHED
    for entry in journal[:-1]:
        assert entry.node not in state, "something of a finished node"
        if entry.kind is Kind.NODE_STARTED:
            assert entry.node not in started
            started.add(entry.node)
            assert all(need in state for need in graph.nodes[entry.node].needs)
        elif entry.kind is Kind.NODE_FINISHED:
            state[entry.node] = entry.state or State.SUCCEEDED
            if entry.state in (State.SUCCEEDED, State.CANCELLED):
                assert entry.node in started
        else:
            assert entry.node in started
    assert state.keys() == graph.nodes.keys()


@settings(deadline=None, max_examples=150)
@given(workflows(), FAILURES, st.integers(0, 10_000))
def test_schedule_agrees_with_the_model(spec: dict[str, Any], failures: dict[str, int], seed: int) -> None:
    graph = parse_graph(spec)
    journal = play(graph, [], failures, seed=seed)
    assert_sound(graph, journal)
    failing, outputs = model(spec, failures)
    if failing:
        assert journal[-1].state is State.FAILED
        bad = {n for n, (state, _, output) in ends(journal).items() if state is State.FAILED and output is None}
        assert bad
        assert bad <= failing
    else:
        assert journal[-1].state is State.SUCCEEDED
        assert {name: output for name, (_, _, output) in ends(journal).items()} == outputs


@settings(deadline=None, max_examples=60)
@given(workflows(), FAILURES, st.integers(0, 10_000))
def test_schedule_replays_every_prefix_to_the_same_end(
    spec: dict[str, Any], failures: dict[str, int], seed: int
) -> None:
    graph = parse_graph(spec)
    whole = play(graph, [], failures, seed=seed)
    failing, _ = model(spec, failures)
    for length in range(len(whole)):
        again = play(graph, whole[:length], failures, seed=seed + length)
        assert again[:length] == whole[:length]
        assert_sound(graph, again)
        assert again[-1].state is whole[-1].state
        if not failing:
            assert ends(again) == ends(whole)
            assert again[-1].output == whole[-1].output


@settings(deadline=None, max_examples=60)
@given(workflows(), FAILURES, st.integers(0, 10_000))
def test_step_says_the_same_from_a_journal_as_a_schedule_that_lived_through_it(
    spec: dict[str, Any], failures: dict[str, int], seed: int
) -> None:
    graph = parse_graph(spec)
    order = random.Random(seed)  # noqa: S311 - a test's choice
    schedule = Schedule(graph, **CONTEXT)
    journal = schedule.advance(AT)
    while schedule.ended is None:
        entries, work = step(graph, journal, **CONTEXT, at=AT)
        assert entries == []
        assert set(work) == set(schedule.open.values())
        chosen = order.choice(list(schedule.open.values()))
        ended = schedule.outcome(chosen, outcome_of(chosen, failures), AT)
        followed = schedule.advance(AT)
        assert step(graph, journal + ended, **CONTEXT, at=AT)[0] == followed
        journal += ended + followed


def test_schedule_ignores_an_outcome_that_nobody_waits_for() -> None:
    schedule = Schedule(parse_graph({"nodes": [{"name": "a", "tool": {"name": "t"}}]}), **CONTEXT)
    schedule.advance(AT)
    assert schedule.outcome(Work("a", None, 2), Outcome("late"), AT) == []
    assert schedule.outcome(Work("b"), Outcome("late"), AT) == []
    assert [entry.kind for entry in schedule.outcome(Work("a"), Outcome("out"), AT)] == [Kind.NODE_FINISHED]


def test_schedule_of_a_large_graph_does_no_work_that_grows_with_it() -> None:
    nodes = [{"name": f"n{i}", "needs": [f"n{i - 1}"] if i else [], "tool": {"name": "t"}} for i in range(256)]
    journal = play(parse_graph({"nodes": nodes}), [], {}, seed=1)
    assert len(journal) == 2 * 256 + 1
