"""What workflows inside others do at their end: their handlers have their turn, whatever ends them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from fairlead_agent.graph import STOPPED, TIMEOUT, Outcome, Work
from fairlead_agent.protocol import RESUME, Kind, State

TOOL = {"name": "t"}
FINALLY = {
    "finally": {"tool": {"name": "t", "arguments": {"why": "{{ run.state }} {{ run.reason }}: {{ run.message }}"}}}
}
HANDLERS = {"onFailure": {"tool": TOOL}, **FINALLY}


@pytest.fixture
def failing(kit: Any) -> Callable[..., Any]:
    """Return an oracle by which the named nodes fail."""

    def make(*nodes: str, reason: str = "ToolFailed") -> Any:
        return lambda work, _given: kit.failure(reason) if work.node in nodes else Outcome(work.node)

    return make


def nested(name: str = "a", workflow: str = "w", **more: Any) -> dict[str, Any]:
    return {"name": name, "workflow": {"name": workflow}, **more}


def order(play: Any) -> list[str]:
    """Return what started and ended, in order."""
    shown = {Kind.NODE_STARTED: "+", Kind.NODE_FINISHED: "-", Kind.ITEM_FINISHED: "-", Kind.WORKFLOW_ENDING: "~"}
    return [shown[entry.kind] + entry.node for entry in play.journal if entry.kind in shown]


def test_a_good_workflow_runs_finally_before_anyone_goes_on(kit: Any) -> None:
    inner = {"nodes": [kit.tool("x")], "output": "{{ outputs.x }}", **HANDLERS}
    play = kit.finish(nested(), kit.tool("b", "a", arguments={"of": "{{ outputs.a }}"}), workflows={"w": inner})
    assert [work.node for work in play.ran] == ["a/x", "a/@finally", "b"]
    assert play.given[Work("a/@finally")] == {"why": "Succeeded Succeeded: "}
    assert play.given[Work("b")] == {"of": "a/x"}


def test_a_failed_workflow_runs_both_handlers_and_then_its_node_fails(kit: Any, failing: Any) -> None:
    inner = {"nodes": [kit.tool("x"), kit.tool("slow"), kit.tool("y", "x")], **HANDLERS}
    play = kit.finish(
        nested(), workflows={"w": inner}, oracle=failing("a/x"), seconds=lambda w: 1 + 8 * ("slow" in w.node)
    )
    assert order(play)[3:] == [
        "-a/x",
        "~a",
        "-a/slow",
        "-a/y",
        "+a/@onFailure",
        "-a/@onFailure",
        "+a/@finally",
        "-a/@finally",
        "-a",
    ]
    assert [play.node(f"a/{name}").reason for name in ("slow", "y")] == ["WorkflowFailed", "UpstreamFailed"]
    assert play.given[Work("a/@finally")] == {"why": 'Failed NodeFailed: node "x": no'}
    assert (play.node("a").reason, play.end.error.message) == ("ToolFailed", 'node "a": node "x": no')
    assert play.took == 3


def test_a_failed_finally_fails_a_good_workflow_and_it_is_tried_again(kit: Any, failing: Any) -> None:
    inner = {"nodes": [kit.tool("x")], **FINALLY}
    node = nested(retry={"limit": 1, "backoffSeconds": 1, "on": ["FinallyFailed"]})
    play = kit.finish(node, workflows={"w": inner}, oracle=failing("a/@finally"))
    assert [work.node for work in play.ran] == ["a/x", "a/@finally", "a#1.2/x", "a#1.2/@finally"]
    assert play.end.state is State.SUCCEEDED
    play = kit.finish(nested(), workflows={"w": inner}, oracle=failing("a/@finally"))
    assert (play.node("a").reason, play.end.reason) == ("FinallyFailed", "NodeFailed")
    assert play.end.error.message == 'node "a": node "@finally": no'


def test_a_failed_handler_changes_nothing_about_a_failure(kit: Any, failing: Any) -> None:
    inner = {"nodes": [kit.tool("x")], **HANDLERS}
    failed = failing("a/x", "a/@onFailure", "a/@finally")
    play = kit.finish(nested(), workflows={"w": inner}, oracle=failed)
    assert [work.node for work in play.ran] == ["a/x", "a/@onFailure", "a/@finally"]
    assert play.end.error.message == 'node "a": node "x": no'


@pytest.mark.parametrize("where", ["node", "workflow"])
def test_handlers_have_their_own_time_after_a_time_out(kit: Any, where: str) -> None:
    limit = {"timeoutSeconds": 5}
    inner = {"nodes": [kit.tool("x")], **HANDLERS, **(limit if where == "workflow" else {})}
    play = kit.finish(
        nested(**(limit if where == "node" else {})),
        workflows={"w": inner},
        seconds=lambda work: 50 if work.node in ("a/x", "a/@finally") else 20,
    )
    assert [work.node for work in play.ran] == ["a/x", "a/@onFailure", "a/@finally"]
    assert play.given[Work("a/@finally")]["why"].startswith(
        "Failed Timeout: it took longer than its timeoutSeconds (5)"
    )
    assert (play.node("a/x").reason, play.node("a").reason) == ("Timeout", "Timeout")
    assert play.took == 5 + 20 + 50


def test_what_is_inside_ends_before_what_is_around_it(kit: Any, failing: Any) -> None:
    workflows = {
        "w": {"nodes": [nested("m", "v")]},
        "v": {"nodes": [nested("n", "u")], **FINALLY},
        "u": {"nodes": [kit.tool("x")], **FINALLY},
    }
    slow = {"a/m/n/x": 99.0}
    play = kit.finish(
        nested(),
        kit.tool("bad"),
        workflows=workflows,
        oracle=failing("bad"),
        seconds=lambda w: slow.get(w.node, 1.0),
        **HANDLERS,
    )
    assert [work.node for work in play.ran][2:] == ["a/m/n/@finally", "a/m/@finally", "@onFailure", "@finally"]
    ends = [entry.node for entry in play.of(Kind.NODE_FINISHED)]
    assert ends == ["bad", "a/m/n/x", "a/m/n/@finally", "a/m/n", "a/m/@finally", "a/m", "a", "@onFailure", "@finally"]
    assert play.given[Work("a/m/@finally")] == {"why": "Cancelled RunFailed: the run failed"}
    assert {play.node(path).state for path in ("a/m/n", "a/m", "a")} == {State.CANCELLED}


@pytest.mark.parametrize(("reason", "state"), [(STOPPED, State.CANCELLED), (TIMEOUT, State.FAILED)])
def test_an_end_from_outside_lets_finally_run_and_interrupts_no_handler(kit: Any, reason: str, state: State) -> None:
    inner = {"nodes": [kit.tool("x")], **HANDLERS}
    play = kit.play({"nodes": [nested(forEach="[1, 2]"), kit.tool("b", "a")], **FINALLY}, workflows={"w": inner})
    schedule = play.schedule()
    journal = schedule.advance(kit.epoch)
    journal += schedule.outcome(Work("a[0]/x"), kit.failure(), kit.epoch) + schedule.advance(kit.epoch)
    assert schedule.open.keys() == {Work("a[0]/@onFailure"), Work("a[1]/x")}
    journal += schedule.end(reason, kit.epoch)
    assert schedule.open.keys() == {Work("a[0]/@onFailure"), Work("a[1]/@finally")}
    for length in range(len(journal) - 3, len(journal) + 1):
        play.ran.clear()
        end = play.finish(journal[:length]).end
        assert (end.state, end.reason) == (state, reason)
        assert {work.node for work in play.ran} >= {"a[0]/@onFailure", "a[0]/@finally", "a[1]/@finally", "@finally"}
        assert [(one.item, one.state) for one in play.of(Kind.ITEM_FINISHED)] == [
            ("1", State.CANCELLED),
            ("0", State.FAILED),
        ]


def test_a_failed_item_waits_for_what_the_others_do_at_their_end(kit: Any, failing: Any) -> None:
    inner = {"nodes": [kit.tool("x"), kit.tool("y", "x")], **FINALLY}
    node = nested(forEach="[1, 2, 3]", maxParallel=2)
    slow = {"a[1]/x": 9.0, "a[1]/@finally": 9.0}
    play = kit.finish(
        node,
        kit.tool("b", "a"),
        workflows={"w": inner},
        oracle=failing("a[0]/x"),
        seconds=lambda w: slow.get(w.node, 1.0),
    )
    assert [work.node for work in play.ran] == ["a[0]/x", "a[1]/x", "a[0]/@finally", "a[1]/@finally"]
    assert play.given[Work("a[1]/@finally")] == {"why": "Cancelled ItemFailed: another item failed"}
    assert [(one.item, one.state.value) for one in play.of(Kind.ITEM_FINISHED)] == [("0", "Failed"), ("1", "Cancelled")]
    assert play.took == 2 + 9


def test_what_ends_with_its_run_gets_no_other_try_but_keeps_a_good_result(kit: Any, failing: Any) -> None:
    inner = {"nodes": [kit.tool("x")], **FINALLY}
    nodes = [nested(name, retry={"limit": 3, "on": ["ToolFailed"]}) for name in ("a", "c")]
    slow = {"bad": 1.5, "a/@finally": 5.0, "c/@finally": 5.0}
    play = kit.finish(
        *nodes,
        kit.tool("bad"),
        workflows={"w": inner},
        oracle=failing("bad", "c/x"),
        seconds=lambda w: slow.get(w.node, 1.0),
    )
    assert (play.node("a").state, play.node("a").output) == (State.SUCCEEDED, {"x": "a/x"})
    assert (play.node("c").state, play.node("c").reason) == (State.CANCELLED, "RunFailed")
    assert len(play.of(Kind.TRY_FAILED)) == 0


def test_a_handler_may_run_a_workflow_with_handlers(kit: Any, failing: Any) -> None:
    workflows = {
        "w": {"nodes": [kit.tool("x")], "onFailure": {"workflow": {"name": "v"}, "timeoutSeconds": 5}},
        "v": {"nodes": [kit.tool("y")], **FINALLY},
    }
    play = kit.finish(
        nested(), workflows=workflows, oracle=failing("a/x"), seconds=lambda w: 99 if w.node.endswith("/y") else 1
    )
    assert [work.node for work in play.ran] == ["a/x", "a/@onFailure/y", "a/@onFailure/@finally"]
    assert (play.node("a/@onFailure").reason, play.end.reason, play.took) == ("Timeout", "NodeFailed", 1 + 5 + 1)


def test_a_suspended_run_begins_no_handler_inside_until_it_goes_on(kit: Any) -> None:
    inner = {"nodes": [kit.tool("x")], **FINALLY}
    schedule = kit.play({"nodes": [nested()]}, workflows={"w": inner}).schedule()
    schedule.advance(kit.epoch)
    schedule.suspended = True
    schedule.outcome(Work("a/x"), Outcome(1), kit.epoch)
    assert [entry.kind for entry in schedule.advance(kit.epoch)] == [Kind.WORKFLOW_ENDING]
    assert (schedule.idle().keys, schedule.open) == ((RESUME,), {})
    schedule.suspended = False
    schedule.advance(kit.epoch)
    assert list(schedule.open) == [Work("a/@finally")]


@pytest.mark.parametrize("failed", [False, True], ids=["not-begun", "to-be-tried-again"])
@pytest.mark.parametrize("stopped", [False, True], ids=["failure", "stop"])
def test_a_suspended_run_that_ends_begins_the_handlers_that_it_held_back(
    kit: Any, *, failed: bool, stopped: bool
) -> None:
    inner = {"nodes": [kit.tool("x")], "finally": {"tool": TOOL, "retry": {"limit": 1, "backoffSeconds": 1}}}
    schedule = kit.play({"nodes": [nested(), kit.tool("b")]}, workflows={"w": inner}).schedule()
    schedule.advance(kit.epoch)
    schedule.suspended = not failed
    schedule.outcome(Work("a/x"), Outcome(1), kit.epoch)
    schedule.advance(kit.epoch)
    schedule.suspended = True
    schedule.outcome(Work("a/@finally"), kit.failure(), kit.epoch)
    later = kit.epoch + timedelta(seconds=1)
    schedule.advance(later)
    assert list(schedule.open) == [Work("b")]
    if stopped:
        schedule.end(STOPPED, later)
    else:
        schedule.outcome(Work("b"), kit.failure(), later)
        schedule.advance(later)
    assert list(schedule.open) == [Work("a/@finally", try_number=1 + failed)]


@pytest.mark.parametrize("stopped", [False, True], ids=["failure", "stop"])
def test_an_end_begins_no_try_whose_pause_is_over_only_to_end_it(kit: Any, *, stopped: bool) -> None:
    retried = nested("m", "v", retry={"limit": 1, "backoffSeconds": 1, "on": ["ToolFailed"]})
    workflows = {"w": {"nodes": [retried]}, "v": {"nodes": [kit.tool("x")], **FINALLY}}
    schedule = kit.play({"nodes": [nested(), kit.tool("b")]}, workflows=workflows).schedule()
    schedule.advance(kit.epoch)
    for work, outcome in ((Work("a/m/x"), kit.failure()), (Work("a/m/@finally"), Outcome(1))):
        schedule.outcome(work, outcome, kit.epoch)
        schedule.advance(kit.epoch)
    later = kit.epoch + timedelta(seconds=1)
    entries = schedule.end(STOPPED, later) if stopped else schedule.outcome(Work("b"), kit.failure(), later)
    entries += schedule.advance(later)
    assert entries[-1].kind is Kind.RUN_FINISHED
    assert Kind.NODE_STARTED not in [entry.kind for entry in entries]


def test_an_end_that_comes_at_once_is_the_same_from_wherever_it_is_replayed(kit: Any) -> None:
    workflows = {
        "w": {"nodes": [nested("m", "v"), kit.tool("bad", when="1 / 0 == 1"), nested("n", "v")], **FINALLY},
        "v": {"nodes": [kit.tool("x")]},
    }
    play = kit.play({"nodes": [nested()]}, workflows=workflows)
    whole = play.schedule().advance(kit.epoch)
    assert [(entry.node, entry.reason) for entry in whole[-4:-1]] == [
        ("a/m/x", "WorkflowFailed"),
        ("a/m", "WorkflowFailed"),
        ("a/n", "WorkflowFailed"),
    ]
    for length in range(len(whole)):
        play.journal = whole[:length]
        assert play.schedule().advance(kit.epoch) == whole[length:]


@pytest.mark.parametrize("inside", [False, True], ids=["own", "inside"])
def test_the_work_of_an_end_grows_with_what_ends(kit: Any, *, inside: bool) -> None:
    last = {"nodes": [kit.tool("x")], **FINALLY}
    workflows = {"w": {"nodes": [nested("m", "v")]} if inside else last, "v": last}

    def calls(items: int) -> int:
        made = [0]
        node = nested(forEach=str([*range(items)]), maxParallel=items)
        play = kit.play({"nodes": [node]}, workflows=workflows, stop_after=0.5)
        sys.setprofile(lambda _frame, event, _argument: made.__setitem__(0, made[0] + (event == "call")))
        try:
            play.finish()
        finally:
            sys.setprofile(None)
        assert len(play.ran) == 2 * items
        return made[0]

    calls(1)
    assert calls(100) <= 2 * calls(50)


def test_a_cancelled_lookup_begins_nothing(kit: Any) -> None:
    inner = {"nodes": [kit.tool("x")], **FINALLY}
    node = {**nested(forEach="[1, 2]"), "cache": {"ttlSeconds": 60}}
    play = kit.play({"nodes": [node]}, workflows={"w": inner})
    schedule = play.schedule()
    schedule.advance(kit.epoch)
    first, second = schedule.changes().begin
    schedule.looked_up(first, kit.nothing_cached, kit.epoch)
    schedule.advance(kit.epoch)
    schedule.end(STOPPED, kit.epoch)
    at = kit.epoch + timedelta(seconds=1)
    assert schedule.looked_up(second, kit.nothing_cached, at) + schedule.advance(at) == []
    assert list(schedule.open) == [Work("a[0]/@finally")]


def test_a_workflow_that_has_not_begun_has_nothing_to_finish(kit: Any) -> None:
    inner = {"nodes": [kit.tool("x")], **FINALLY}
    play = kit.finish(kit.tool("z"), nested(needs=["z"]), workflows={"w": inner}, stop_after=0.5)
    assert [work.node for work in play.ran] == ["z"]


def test_a_rerun_takes_over_a_workflow_as_long_as_its_handlers_are_the_same(kit: Any) -> None:
    inner = {"nodes": [kit.tool("x")], **FINALLY}
    play = kit.finish(nested(), workflows={"w": inner})
    assert play.again().ran == []
    changed = play.again(workflows={"w": {**inner, "finally": {"tool": TOOL}}})
    assert [work.node for work in changed.ran] == ["a/@finally"]
