from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.profile import (
    Activity,
    Execution,
    FinishedRun,
    RunFacts,
    RunProfile,
    Spent,
    Spread,
    causes_of,
    definition_path,
    profile_run,
    profile_workflow,
    spread,
)

START = datetime(2026, 11, 21, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def ran(node: str, start: float, end: float, *, item: str = "", iteration: int = 1, **more: object) -> Execution:
    return Execution(node, item, iteration, at(start), at(end), **more)  # type: ignore[arg-type]


def did(spent: Spent, start: float, end: float, node: str = "", *, item: str = "", iteration: int = 1) -> Activity:
    return Activity(spent, at(start), at(end), node, item, iteration if node else 0)


def path_of(profile: RunProfile) -> list[tuple[str, str, float]]:
    return [(one.node + one.item, one.spent.value, one.length.total_seconds()) for one in profile.path]


def test_profile_run_follows_the_branch_that_was_waited_for() -> None:
    profile = profile_run(
        RunFacts(
            at(0),
            at(10),
            [ran("a", 1, 2), ran("fast", 2, 3), ran("slow", 2, 8), ran("join", 8, 9.5)],
            [did(Spent.QUEUE, 0, 1), did(Spent.MODEL, 2.5, 7.5, "slow"), did(Spent.MODEL, 2, 3, "fast")],
            {"fast": ["a"], "slow": ["a"], "join": ["fast", "slow"]},
        )
    )
    assert path_of(profile) == [
        ("", "queue", 1),
        ("a", "overhead", 1),
        ("slow", "overhead", 0.5),
        ("slow", "model", 5),
        ("slow", "overhead", 0.5),
        ("join", "overhead", 1.5),
        ("", "overhead", 0.5),
    ]
    assert profile.slowest == "slow"
    assert {kind.value: part.total_seconds() for kind, part in profile.shares.items() if part} == {
        "queue": 1,
        "model": 5,
        "overhead": 4,
    }


def test_profile_run_does_not_take_another_branch_for_a_cause() -> None:
    profile = profile_run(
        RunFacts(
            at(0),
            at(9),
            [ran("a", 0, 1), ran("other", 0, 4), ran("b", 5, 9)],
            causes={"b": ["a"]},
        )
    )
    assert path_of(profile) == [("a", "overhead", 1), ("", "overhead", 4), ("b", "overhead", 4)]


def test_profile_run_goes_into_items_by_the_slot_that_became_free() -> None:
    items = [
        ran("each", 0, 3, item="0"),
        ran("each", 0, 1, item="1"),
        ran("each", 1, 2, item="2"),
        ran("each", 3, 7, item="3"),
    ]
    profile = profile_run(RunFacts(at(0), at(8), [ran("each", 0, 8), *items]))
    assert path_of(profile) == [("each0", "overhead", 3), ("each3", "overhead", 4), ("each", "overhead", 1)]
    (node,) = profile.nodes
    assert (node.executions, node.total, node.on_path) == (4, timedelta(seconds=8), timedelta(seconds=8))


def test_profile_run_goes_through_the_rounds_of_a_repeat() -> None:
    facts = RunFacts(
        at(0),
        at(8),
        [
            ran("draft", 0, 1),
            ran("review", 1, 3),
            ran("draft", 3, 4, iteration=2),
            ran("review", 4, 8, iteration=2),
        ],
        causes=causes_of(
            {
                "workflow": {
                    "spec": {
                        "nodes": [
                            {"name": "draft"},
                            {"name": "review", "needs": ["draft"], "repeat": {"from": "draft", "until": "true"}},
                        ]
                    }
                }
            }
        ),
    )
    assert [(one.node, one.iteration) for one in profile_run(facts).path] == [
        ("draft", 1),
        ("review", 1),
        ("draft", 2),
        ("review", 2),
    ]


def test_profile_run_goes_into_the_workflow_of_a_node() -> None:
    document = {
        "workflow": {"spec": {"nodes": [{"name": "a", "workflow": {"name": "inner"}}]}},
        "workflows": {"inner": {"nodes": [{"name": "x"}, {"name": "y", "needs": ["x"]}]}},
    }
    assert causes_of(document) == {"a": (), "a/x": (), "a/y": ("x",)}
    nodes = [ran("a", 0, 5), ran("a/x", 0, 2), ran("a/y", 2, 4.5)]
    profile = profile_run(RunFacts(at(0), at(5), nodes, causes=causes_of(document)))
    assert path_of(profile) == [("a/x", "overhead", 2), ("a/y", "overhead", 2.5), ("a", "overhead", 0.5)]


def test_profile_run_finds_the_item_and_iteration_that_a_path_lies_in() -> None:
    outer = [ran("a", 0, 9), ran("a", 0, 9, item="x/y"), ran("a[x%2Fy]/b", 1, 8)]
    again = [ran("c", 9, 12, iteration=2), ran("c#2.1/d", 9, 11)]
    profile = profile_run(RunFacts(at(0), at(12), [*outer, *again], causes={"c": ["a"]}))
    assert [one.node for one in profile.path] == ["a", "a[x%2Fy]/b", "a", "c#2.1/d", "c"]
    assert definition_path("a[x%2Fy]#2.1/b#3.1/c") == "a/b/c"


def test_profile_run_passes_through_what_was_skipped() -> None:
    nodes = [ran("a", 0, 2), ran("maybe", 2, 2, state="Skipped"), ran("b", 2, 6)]
    causes = {"maybe": ["a"], "b": ["a", "maybe"]}
    assert path_of(profile_run(RunFacts(at(0), at(6), nodes, causes=causes))) == [
        ("a", "overhead", 2),
        ("b", "overhead", 4),
    ]


def test_profile_run_counts_the_calls_and_tries_of_what_ran() -> None:
    executions = [
        ran("outer", 0, 9),
        ran("outer/ask", 1, 5, item="0", tries=2),
        ran("outer/ask", 1, 5),
        ran("outer/skipped", 5, 5, state="Skipped"),
    ]
    asked = [did(Spent.MODEL, 1, 2, "outer/ask", item="0"), did(Spent.MODEL, 3, 4, "outer/ask", item="0")]
    profile = profile_run(RunFacts(at(0), at(9), executions, asked, {}))
    counted = {one.node: (one.executions, one.tries, one.calls) for one in profile.nodes}
    assert counted == {"outer": (1, 1, 2), "outer/ask": (1, 2, 2), "outer/skipped": (0, 0, 0)}


def test_profile_run_names_what_people_and_times_are_waited_for() -> None:
    profile = profile_run(
        RunFacts(
            at(0),
            at(10),
            [ran("ask", 0, 6), ran("nap", 6, 10)],
            [
                did(Spent.PEOPLE, 1, 5, "ask"),
                did(Spent.QUEUE, 5, 6, "ask"),
                did(Spent.QUEUE, 2, 6),
                did(Spent.TIME, 6, 10, "nap"),
            ],
            {"nap": ["ask"]},
        )
    )
    assert path_of(profile) == [
        ("ask", "overhead", 1),
        ("ask", "people", 4),
        ("ask", "queue", 1),
        ("nap", "time", 4),
    ]


def test_profile_run_of_a_run_that_never_started() -> None:
    profile = profile_run(RunFacts(at(0), at(3), [], [did(Spent.QUEUE, 0, 3)]))
    assert path_of(profile) == [("", "queue", 3)]
    assert profile.slowest == ""


@st.composite
def _facts(draw: st.DrawFn) -> RunFacts:
    """Draw a run of any shape, with clocks that disagree: times overlap, precede causes, lie outside of the run."""
    moments = st.integers(-5, 60)
    names = ["a", "b", "c", "a/x", "a[i]/y", "b#2.1/x", "@finally"]
    executions, seen = [], set()
    for _ in range(draw(st.integers(0, 14))):
        start, length = draw(moments), draw(st.integers(0, 20))
        one = ran(draw(st.sampled_from(names)), start, start + length, item=draw(st.sampled_from(["", "i", "j"])))
        one = Execution(one.node, one.item, draw(st.integers(1, 3)), one.start, one.end)
        if one.key not in seen:
            seen.add(one.key)
            executions.append(one)
    activities = []
    for _ in range(draw(st.integers(0, 10))):
        start = draw(moments)
        node = draw(st.sampled_from(["", *names]))
        activities.append(
            did(draw(st.sampled_from(list(Spent))), start, start + draw(st.integers(0, 15)), node, item="")
        )
    causes = {name: draw(st.lists(st.sampled_from(["a", "b", "c", "x", "y"]), max_size=3)) for name in names}
    return RunFacts(at(0), at(draw(st.integers(0, 60))), executions, activities, causes)


@given(_facts())
def test_profile_run_covers_the_run_once_whatever_happened(facts: RunFacts) -> None:
    profile = profile_run(facts)
    total = max(facts.end - facts.accepted, timedelta())
    assert profile.total == total
    assert sum(profile.shares.values(), timedelta()) == total
    assert sum((one.length for one in profile.path), timedelta()) == total
    assert all(one.end == following.start for one, following in pairwise(profile.path))
    if profile.path:
        assert (profile.path[0].start, profile.path[-1].end) == (facts.accepted, facts.end)
    assert all(node.on_path <= total for node in profile.nodes)


@given(st.lists(st.integers(0, 1000), min_size=1))
def test_spread_gives_values_that_occurred(values: list[int]) -> None:
    found = spread(values)
    assert {found.p50, found.p95} <= set(values)
    assert sum(value <= found.p50 for value in values) * 2 >= len(values)
    assert sum(value <= found.p95 for value in values) * 20 >= 19 * len(values)


def test_spread_of_nothing() -> None:
    assert spread([]) == Spread(0, 0)


def test_profile_workflow_over_runs() -> None:
    def run(name: str, seconds: float, *, state: str = "Succeeded", cost: int | None = 5) -> FinishedRun:
        facts = RunFacts(at(0), at(seconds + 1), [ran("a", 0, 1), ran("b", 1, seconds + 1, state=state, cost=cost)])
        profile = profile_run(RunFacts(facts.accepted, facts.end, facts.executions, causes={"b": ["a"]}))
        return FinishedRun(name, state, "NodeFailed" if state == "Failed" else "", profile, cost, 10)

    found = profile_workflow([run("1", 3), run("2", 5), run("3", 9, state="Failed", cost=None)])
    assert (found.runs, found.failures, found.slowest) == (3, {"NodeFailed": 1}, "b")
    assert found.seconds == Spread(6, 10)
    assert found.cost is None
    assert sum(found.shares.values()) == pytest.approx(1)
    first, second = found.nodes
    assert (first.node, first.runs, first.failures, first.cost) == ("a", 3, 0, Spread(0, 0))
    assert (second.seconds, second.failures, second.cost) == (Spread(5, 9), 1, None)
    assert first.share + second.share == pytest.approx(1)


def test_profile_workflow_without_runs() -> None:
    found = profile_workflow([])
    assert (found.runs, found.nodes, found.slowest) == (0, (), "")


@given(st.data())
def test_profile_run_finds_a_longest_path_of_a_graph_without_pauses(data: st.DataObject) -> None:
    names = [f"n{number}" for number in range(data.draw(st.integers(1, 8)))]
    causes: dict[str, list[str]] = {}
    ends: dict[str, int] = {}
    executions = []
    for index, name in enumerate(names):
        causes[name] = data.draw(st.lists(st.sampled_from(names[:index]), unique=True)) if index else []
        start = max((ends[need] for need in causes[name]), default=0)
        ends[name] = start + data.draw(st.integers(1, 9))
        executions.append(ran(name, start, ends[name]))
    profile = profile_run(RunFacts(at(0), at(max(ends.values())), executions, causes=causes))
    on_path = [one.node for one in profile.path]
    assert "" not in on_path
    assert not causes[on_path[0]]
    assert all(before in causes[after] for before, after in pairwise(on_path))
