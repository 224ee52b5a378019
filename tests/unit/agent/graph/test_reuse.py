"""Results that are used again: reruns and the cache."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead_agent.graph import Outcome, Schedule, Work, parse_graph
from fairlead_agent.protocol import CacheAnswer, Kind


def chain(kit: Any, **keys: Any) -> list[dict[str, Any]]:
    """Return ``a -> b -> c``, each given what the one before gave, and ``side``."""
    return [
        kit.tool("a", arguments={"x": "{{ inputs.x }}"}),
        kit.tool("b", "a", arguments={"a": "{{ outputs.a }}"}, **keys),
        kit.tool("c", "b", arguments={"b": "{{ outputs.b }}"}),
        kit.tool("side"),
    ]


def run(kit: Any, nodes: list[dict[str, Any]], **keys: Any) -> Any:
    spec = {"inputs": [{"name": "x"}, {"name": "y"}], "nodes": nodes}
    return kit.play(spec, **{"inputs": {"x": "1", "y": "1"}, **keys}).finish()


def names(play: Any) -> list[str]:
    return sorted({work.node for work in play.ran})


def test_a_rerun_of_a_good_run_runs_nothing_and_says_so(kit: Any) -> None:
    again = run(kit, chain(kit)).again()
    assert again.ran == []
    assert again.of(Kind.NODE_STARTED) == []
    assert {(entry.reused, entry.reason) for entry in again.of(Kind.NODE_FINISHED)} == {("before", "Reused")}
    assert again.end.output == {"c": "c", "side": "side"}


@pytest.mark.parametrize(
    ("from_", "ran"), [("Failed", []), ("Start", ["a", "b", "c", "side"]), ("b", ["b", "c"]), ("side", ["side"])]
)
def test_a_rerun_runs_what_is_forced_and_what_depends_on_it(kit: Any, from_: str, ran: list[str]) -> None:
    assert names(run(kit, chain(kit)).again(from_)) == ran


def test_a_rerun_runs_what_failed_and_what_is_given_something_else(kit: Any) -> None:
    failing = run(kit, chain(kit), oracle=lambda w, _: kit.failure() if w.node == "b" else Outcome(w.node))
    assert names(failing.again(oracle=kit.name_of)) == ["b", "c"]
    good = run(kit, chain(kit))
    assert names(good.again(inputs={"x": "1", "y": "2"})) == []
    assert names(good.again(inputs={"x": "2", "y": "1"})) == ["a"]
    changed = good.again(inputs={"x": "2", "y": "1"}, oracle=lambda work, _: Outcome(work.node + "!"))
    assert names(changed) == ["a", "b", "c"]


def test_a_rerun_of_another_revision_runs_only_what_was_changed(kit: Any) -> None:
    good = run(kit, chain(kit))
    assert names(good.again(spec=good.spec | {"nodes": chain(kit, timeoutSeconds=9, retry={"limit": 1})})) == []
    nodes = chain(kit)
    nodes[3]["tool"] = {"name": "other", "arguments": {}}
    assert names(good.again(spec=good.spec | {"nodes": nodes})) == ["side"]
    assert names(good.again(definitions={"tool:t": "changed"})) == ["a", "b", "c", "side"]


def test_items_are_reused_one_by_one(kit: Any) -> None:
    nodes = [kit.tool("each", forEach="inputs.x.split(',')", arguments={"item": "{{ item }}"})]
    good = run(kit, nodes, inputs={"x": "p,q,r", "y": ""})
    again = good.again(inputs={"x": "p,X,r,s", "y": ""})
    assert [work.item for work in again.ran] == ["1", "3"]
    assert [(entry.item, entry.reused) for entry in again.of(Kind.ITEM_FINISHED)][:2] == [
        ("0", "before"),
        ("2", "before"),
    ]
    assert again.end.output == {"each": ["each=0", "each=1", "each=2", "each=3"]}
    assert [entry.kind for entry in good.again().journal] == [Kind.NODE_FINISHED, Kind.RUN_FINISHED]


@pytest.mark.parametrize(
    ("before", "now", "ran"),
    [
        pytest.param("p,q,r", "new,p,q,r", ["0"], id="one-more-in-front"),
        pytest.param("p,q,r", "p,new,q,r", ["1"], id="one-more-within"),
        pytest.param("p,q,r", "r,q", [], id="fewer-in-another-order"),
        pytest.param("p,q", "q,q,q,new", ["3"], id="equal-ones"),
    ],
)
def test_items_are_reused_wherever_they_stood(kit: Any, before: str, now: str, ran: list[str]) -> None:
    nodes = [kit.tool("each", forEach="inputs.x.split(',')", arguments={"item": "{{ item }}"})]
    good = run(kit, nodes, inputs={"x": before, "y": ""}, oracle=lambda _work, given: Outcome(given["item"]))
    again = good.again(inputs={"x": now, "y": ""})
    assert [work.item for work in again.ran] == ran
    assert again.end.output == {"each": now.split(",")}


def test_an_item_that_uses_its_index_is_done_again_at_another_place(kit: Any) -> None:
    nodes = [kit.tool("each", forEach="inputs.x.split(',')", arguments={"item": "{{ index }} {{ item }}"})]
    again = run(kit, nodes, inputs={"x": "p,q,r", "y": ""}).again(inputs={"x": "new,p,q,r", "y": ""})
    assert [work.item for work in again.ran] == ["0", "1", "2", "3"]


def test_equal_items_keep_their_own_results(kit: Any) -> None:
    nodes = [kit.tool("each", forEach="inputs.x.split(',')", arguments={"item": "{{ item }}"})]
    again = run(kit, nodes, inputs={"x": "p,p,q", "y": ""}).again(inputs={"x": "p,p,new", "y": ""})
    assert again.end.output == {"each": ["each=0", "each=1", "each=2"]}


def test_items_of_other_nodes_and_rounds_are_not_mistaken_for_each_other(kit: Any) -> None:
    nodes = [
        kit.tool("a", forEach="inputs.x.split(',')", arguments={"item": "{{ item }}"}),
        kit.tool("b", forEach="inputs.y.split(',')", arguments={"item": "{{ item }}"}),
    ]
    again = run(kit, nodes, inputs={"x": "p", "y": "q"}).again(inputs={"x": "q", "y": "p"})
    assert names(again) == ["a", "b"]
    assert run(kit, nodes[:1], inputs={"x": "p,q", "y": ""}).again("a", inputs={"x": "q,p", "y": ""}).took == 1.0


def test_what_is_inside_an_item_is_taken_with_it_and_never_from_another(kit: Any) -> None:
    inner = {
        "inputs": [{"name": "k"}],
        "nodes": [kit.tool("p", arguments={"k": "{{ inputs.k }}"}), kit.tool("same", "p"), kit.tool("q", "same")],
    }
    each = {"name": "each", "forEach": "inputs.x.split(',')", "workflow": {"name": "w", "inputs": {"k": "{{ item }}"}}}

    def fails(work: Any, _given: Any) -> Any:
        return kit.failure() if work.node == "each[2]/q" else Outcome(work.node)

    given = {"inputs": {"x": "a,b,c", "y": ""}, "workflows": {"w": inner}}
    failing = run(kit, [each], **given, oracle=fails)
    there = failing.again(oracle=kit.name_of)
    assert names(there) == ["each[2]/q"], "at its old place, what is inside an item that failed is used again"
    moved = failing.again(inputs={"x": "new,b,a", "y": ""}, oracle=kit.name_of)
    assert names(moved) == ["each[0]/p"], "same and q are those of its old place, a and b are taken as they are"
    more = failing.again(inputs={"x": "b,a,c,new", "y": ""}, oracle=kit.name_of)
    assert names(more) == ["each[2]/q", "each[3]/p", "each[3]/q", "each[3]/same"], "a new item is done wholly"


def test_rounds_are_reused_as_long_as_they_are_the_same(kit: Any) -> None:
    nodes = [
        kit.tool("draft", arguments={"mend": "{{ outputs.review }}"}),
        kit.tool(
            "review",
            "draft",
            arguments={"d": "{{ outputs.draft }}"},
            repeat={"from": "draft", "until": "iteration == 3"},
        ),
    ]
    good = run(kit, nodes, oracle=lambda work, _: Outcome([work.node, work.iteration]))
    assert names(good.again()) == []
    assert [entry.iteration for entry in good.again().of(Kind.NODE_FINISHED, "review")] == [1, 2, 3]


def test_what_is_inside_a_failed_workflow_is_reused(kit: Any) -> None:
    inner = {"nodes": [kit.tool("p"), kit.tool("q", "p"), kit.tool("r", "q")]}
    nodes = [{"name": "a", "workflow": {"name": "w"}}, {"name": "z", "needs": ["a"], "workflow": {"name": "w"}}]
    failing = run(
        kit, nodes, workflows={"w": inner}, oracle=lambda w, _: kit.failure() if w.node == "z/q" else Outcome(w.node)
    )
    again = failing.again(oracle=kit.name_of)
    assert names(again) == ["z/q", "z/r"]
    assert again.node("a").reused == "before"
    assert names(again.again("z")) == names(again.again("z/q")) == ["z/p", "z/q", "z/r"]
    other = {"nodes": [kit.tool("p"), kit.tool("q", "p"), kit.tool("r", "q", arguments={"new": 1})]}
    assert names(run(kit, nodes, workflows={"w": inner}).again(workflows={"w": other})) == ["a/r", "z/r"]


def test_people_decide_again_and_waits_do_not_last_again(kit: Any) -> None:
    nodes = [{"name": "ask", "approval": {"message": "?"}}, {"name": "pause", "wait": {"seconds": 60}}]
    good = run(kit, nodes)
    assert good.node("ask").digest == ""
    again = good.again()
    assert (names(again), again.took) == (["ask"], 1.0)


@pytest.mark.parametrize("runs", ["asking", "around"])
def test_people_decide_again_inside_a_workflow_and_the_rest_of_it_is_used_again(kit: Any, runs: str) -> None:
    workflows = {
        "asking": {"nodes": [kit.tool("before"), {"name": "ask", "needs": ["before"], "approval": {"message": "?"}}]},
        "around": {"nodes": [{"name": "inner", "workflow": {"name": "asking"}}]},
    }
    node = {"name": "sub", "workflow": {"name": runs}, "cache": {"ttlSeconds": 60}}
    good = run(kit, [node], workflows=workflows)
    assert good.node("sub").digest == ""
    again = good.again()
    assert [path.rpartition("/")[2] for path in names(again)] == ["ask"]
    assert not any(work.lookup for work in good.ran), "nothing is looked up that is never kept"


def test_a_node_with_cache_is_looked_up_and_kept(kit: Any) -> None:
    nodes = [kit.tool("a", arguments={"x": "{{ inputs.x }}"}, cache={"ttlSeconds": 60}), kit.tool("b", "a")]
    first = run(kit, nodes)
    (entry,) = first.of(Kind.NODE_FINISHED, "a")
    assert (entry.cache_seconds, first.node("b").cache_seconds, first.node("b").digest != "") == (60, None, True)
    second = run(kit, nodes, cached={entry.digest: "kept"})
    (hit,) = second.of(Kind.NODE_FINISHED, "a")
    assert (hit.output, hit.reason, hit.reused, hit.cache_seconds) == ("kept", "Cached", "earlier", None)
    assert second.of(Kind.NODE_STARTED, "a") == []
    assert run(kit, nodes, cached={entry.digest: "kept"}, inputs={"x": "2", "y": ""}).node("a").output == "a"


@pytest.mark.parametrize(("from_", "ran"), [("Failed", []), ("a", ["a"]), ("Start", ["a", "b", "c", "side"])])
def test_a_rerun_does_what_is_forced_again_whatever_is_cached(kit: Any, from_: str, ran: list[str]) -> None:
    nodes = [
        kit.tool("a", cache={}, arguments={"x": "{{ inputs.x }}"}),
        kit.tool("b", cache={}, forEach="[1, 2]"),
        {"name": "c", "cache": {}, "workflow": {"name": "w"}},
        kit.tool("side"),
    ]
    workflows = {"w": {"nodes": [kit.tool("d", cache={})]}}
    first = run(kit, nodes, workflows=workflows)
    kept = [entry for entry in first.journal if entry.cache_seconds]
    assert {entry.node for entry in kept} == {"a", "b", "c", "c/d"}
    again = first.again(from_, cached={entry.digest: "kept" for entry in kept})
    assert sorted({work.node.partition("/")[0] for work in again.ran}) == ran
    assert not any(work.lookup for work in again.ran)
    assert [entry.digest for entry in again.journal if entry.cache_seconds] == [
        entry.digest for entry in kept if entry.node.partition("/")[0] in ran
    ], "what is done again is kept for others"


def test_a_rerun_does_again_what_handlers_do_but_for_what_is_cached(kit: Any) -> None:
    workflows = {"w": {"nodes": [kit.tool("p"), kit.tool("q", "p", cache={})]}}
    spec = {"nodes": [kit.tool("a")], "finally": {"workflow": {"name": "w"}}}
    first = kit.play(spec, workflows=workflows).finish()
    kept = first.node("@finally/q")
    again = first.again(cached={kept.digest: "kept"})
    assert (names(again), again.node("@finally/q").reason) == (["@finally/p", "@finally/q"], "Cached")


def test_a_cache_key_stands_for_what_is_given(kit: Any) -> None:
    cache = {"key": "string(item)"}
    nodes = [kit.tool("a", forEach="[1, 2]", arguments={"x": "{{ inputs.x }}"}, cache=cache)]
    first = run(kit, nodes)
    one, two = (entry.digest for entry in first.of(Kind.ITEM_FINISHED))
    assert one != two
    second = run(kit, nodes, inputs={"x": "other", "y": ""}, cached={two: "kept"})
    assert second.end.output == {"a": ["a=0", "kept"]}
    failing = run(kit, [kit.tool("a", cache={"key": "inputs.x.y"})])
    assert (failing.node("a").reason, failing.ran) == ("ExpressionError", [])
    forced = first.again("Start", spec=failing.spec)
    assert (forced.node("a").reason, forced.ran) == ("ExpressionError", [])


def test_a_suspended_run_does_not_start_what_the_cache_lacks(kit: Any) -> None:
    schedule = Schedule(
        parse_graph({"nodes": [kit.tool("a", cache={}), kit.tool("b", cache={}, forEach="[1]")]}), inputs={}, run={}
    )
    schedule.advance(kit.epoch)
    asked = schedule.changes().begin
    assert [work.node for work in asked if work.lookup] == ["a", "b"]
    schedule.suspended = True
    assert [schedule.looked_up(work, CacheAnswer(), kit.epoch) for work in asked] == [[], []]
    assert schedule.advance(kit.epoch) == []
    assert schedule.idle().reason == "Suspended"
    schedule.suspended = False
    schedule.advance(kit.epoch)
    assert [(work.node, work.lookup) for work in schedule.changes().begin] == [(w.node, w.lookup) for w in asked]


def test_a_lookup_that_nobody_waits_for_any_more_is_given_up(kit: Any) -> None:
    schedule = Schedule(parse_graph({"nodes": [kit.tool("a", cache={}), kit.tool("b")]}), inputs={}, run={})
    schedule.advance(kit.epoch)
    (looking, _) = schedule.changes().begin
    schedule.outcome(Work("b"), kit.failure(), kit.epoch)
    schedule.advance(kit.epoch)
    assert schedule.changes().end == ((looking, None),)
    assert schedule.looked_up(looking, CacheAnswer(found=True), kit.epoch) == []
