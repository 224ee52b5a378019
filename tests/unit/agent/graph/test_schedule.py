"""One rule of the semantics each, on small workflows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from fairlead_agent.graph import STOPPED, TIMEOUT, Outcome, Schedule, Work, parse_graph, step
from fairlead_agent.protocol import RESUME, Entry, ErrorInfo, Kind, RunInfo, Signal, State, Task, Wait, WaitFor

TOOL = {"name": "t"}


def kinds(entries: list[Entry]) -> list[tuple[str, str]]:
    return [(entry.kind.value, entry.node) for entry in entries]


def test_the_members_of_a_region_go_round_and_the_others_wait_for_the_end(kit: Any) -> None:
    play = kit.finish(
        kit.tool("draft", arguments={"mend": "{{ outputs.review }}", "round": "{{ iteration }}"}),
        kit.tool("review", "draft", repeat={"from": "draft", "until": "iteration == 3"}),
        kit.tool("ship", "draft"),
        kit.tool("side"),
        oracle=lambda work, given: Outcome([work.iteration, given]),
    )
    assert [entry.iteration for entry in play.of(Kind.NODE_FINISHED, "draft")] == [1, 2, 3]
    assert [entry.iteration for entry in play.of(Kind.REPEATED)] == [2, 3]
    assert [given for work, given in play.given.items() if work.node == "draft"] == [
        {"mend": None, "round": 1},
        {"mend": [1, {}], "round": 2},
        {"mend": [2, {}], "round": 3},
    ]
    assert [work.node for work in play.ran] == ["draft", "side", "review", "draft", "review", "draft", "review", "ship"]


def test_a_member_sees_the_last_round_of_one_that_it_does_not_need_however_fast_that_is(kit: Any) -> None:
    nodes = [
        kit.tool("a"),
        kit.tool("fast", "a"),
        kit.tool("slow", "a", arguments={"fast": "{{ outputs.fast }}"}),
        kit.tool("end", "fast", "slow", repeat={"from": "a", "until": "iteration == 2"}),
    ]
    play = kit.finish(*nodes, seconds=lambda work: 1 if work.node == "fast" else 9, oracle=_turn)
    assert [given["fast"] for work, given in play.given.items() if work.node == "slow"] == [None, 1]


def _turn(work: Work, _given: Any) -> Outcome:
    return Outcome(work.iteration)


def test_an_inner_region_counts_its_rounds_anew_and_its_nodes_go_on_counting(kit: Any) -> None:
    play = kit.finish(
        kit.tool("a", arguments={"round": "{{ iteration }}"}, repeat={"from": "a", "until": "iteration == 2"}),
        kit.tool("b", "a", arguments={"round": "{{ iteration }}"}, repeat={"from": "a", "until": "iteration == 2"}),
    )
    rounds = [(work.node, work.iteration, given["round"]) for work, given in play.given.items()]
    assert rounds == [("a", 1, 1), ("a", 2, 2), ("b", 1, 1), ("a", 3, 1), ("a", 4, 2), ("b", 2, 2)]


@pytest.mark.parametrize(("exhausted", "state"), [("Fail", State.FAILED), ("Continue", State.SUCCEEDED)])
def test_an_exhausted_repeat_fails_or_goes_on(kit: Any, exhausted: str, state: State) -> None:
    repeat = {"from": "a", "until": "false", "maxIterations": 2, "onExhausted": exhausted}
    play = kit.finish(kit.tool("a", repeat=repeat))
    assert play.end.state is state
    assert [entry.iteration for entry in play.of(Kind.NODE_FINISHED, "a")] == [1, 2]
    assert play.node("a").reason == ("RepeatExhausted" if exhausted == "Fail" else "")


def test_a_repeat_ends_with_a_failure_that_is_continued_and_with_an_until_that_fails(kit: Any) -> None:
    repeat = {"from": "a", "until": "false"}
    play = kit.finish(kit.tool("a", repeat=repeat, onError="Continue"), oracle=lambda *_: kit.failure())
    assert (len(play.ran), play.end.output) == (1, {"a": {"reason": "ToolFailed", "message": "no"}})
    play = kit.finish(kit.tool("a", repeat={"from": "a", "until": "outputs.a.x"}))
    assert (play.node("a").reason, play.end.reason) == ("ExpressionError", "NodeFailed")


def test_a_workflow_runs_inside_with_its_own_inputs_outputs_and_names(kit: Any) -> None:
    inner = {
        "inputs": [{"name": "x", "type": "integer"}, {"name": "y", "default": "why"}],
        "nodes": [kit.tool("a", arguments={"x": "{{ inputs.x }}", "y": "{{ inputs.y }}"})],
        "output": "{{ outputs.a }}!",
    }
    node = {"name": "a", "forEach": "[7, 8]", "workflow": {"name": "w", "inputs": {"x": "{{ item }}"}}}
    play = kit.finish(node, workflows={"w": inner})
    assert list(play.given.values()) == [{"x": 7, "y": "why"}, {"x": 8, "y": "why"}]
    assert play.end.output == {"a": ["a[0]/a!", "a[1]/a!"]}


def test_a_failed_workflow_is_tried_again_under_other_names(kit: Any) -> None:
    node = {"name": "a", "workflow": {"name": "w"}, "retry": {"limit": 1, "backoffSeconds": 5}}
    inner = {"nodes": [kit.tool("b"), kit.tool("c", "b"), kit.tool("slow")]}

    def oracle(work: Work, _given: Any) -> Outcome:
        return kit.failure() if work.node == "a/b" else Outcome(work.node)

    play = kit.finish(node, workflows={"w": inner}, oracle=oracle, seconds=lambda w: 9 if w.node == "a/slow" else 1)
    assert play.end.output == {"a": {"c": "a#1.2/c", "slow": "a#1.2/slow"}}
    assert (play.node("a/slow").state, play.node("a/slow").reason) == (State.CANCELLED, "WorkflowFailed")
    assert (play.node("a/c").state, play.node("a/c").reason) == (State.SKIPPED, "UpstreamFailed")
    assert play.of(Kind.TRY_FAILED, "a")[0].error.message == 'node "b": no'
    assert play.took == 1 + 5 + 2


@pytest.mark.parametrize(
    ("inner", "inputs", "reason"),
    [
        pytest.param({"nodes": [{"name": "b", "tool": TOOL}]}, {"x": 1}, "InvalidInputs", id="unknown-input"),
        pytest.param({"nodes": [{"name": "b"}]}, {}, "InvalidGraph", id="wrong"),
        pytest.param({"nodes": [{"name": "b", "workflow": {"name": "w"}}]}, {}, "InvalidGraph", id="endless"),
        pytest.param({"nodes": [{"name": "b", "tool": TOOL}]}, {"x": "{{ outputs.z.a }}"}, "ExpressionError", id="cel"),
    ],
)
def test_a_workflow_that_cannot_be_entered_fails_its_node(
    kit: Any, inner: dict[str, Any], inputs: dict[str, Any], reason: str
) -> None:
    nodes = [kit.tool("z"), {"name": "a", "needs": ["z"], "workflow": {"name": "w", "inputs": inputs}}]
    play = kit.finish(*nodes, workflows={"w": inner})
    assert (play.end.state, play.node("a").reason) == (State.FAILED, reason)


def test_the_deadline_of_a_workflow_outlives_whoever_waits_for_it(kit: Any) -> None:
    node = {"name": "a", "timeoutSeconds": 30, "workflow": {"name": "w"}}
    play = kit.play({"nodes": [node]}, workflows={"w": {"nodes": [kit.tool("b")], "timeoutSeconds": 20}})
    play.seconds = lambda _work: 60
    whole = play.finish().journal
    assert (play.end.error.message, play.took) == ('node "a": it took longer than its timeoutSeconds (20)', 20)
    for length in range(1, len(whole)):
        assert play.finish(whole[:length]).took == 20


def test_a_wait_is_over_at_the_time_that_the_journal_fixed(kit: Any) -> None:
    later = '"2026-01-01T00:01:00Z"'
    play = kit.play({"nodes": [{"name": "a", "wait": {"seconds": 30}}, {"name": "b", "wait": {"until": later}}]})
    play.spec["nodes"][1]["wait"]["until"] = f"timestamp({later})"
    schedule = play.schedule()
    journal = schedule.advance(kit.epoch)
    assert schedule.idle().wake_at == kit.epoch + timedelta(seconds=30)
    assert schedule.idle().reason == "Time"
    again = play.finish(journal)
    assert again.took == 60
    assert again.end.output == {"a": {"until": "2026-01-01T00:00:30Z"}, "b": {"until": "2026-01-01T00:01:00Z"}}


def test_a_wait_until_something_that_is_no_time_fails(kit: Any) -> None:
    play = kit.finish({"name": "a", "wait": {"until": "1 + 1"}})
    assert play.node("a").error.message == 'wait.until "1 + 1" gives integer, not a timestamp'


def waiting(kit: Any, *nodes: dict[str, Any]) -> tuple[Schedule, list[Entry], Work]:
    """Start nodes; the first of them asks a person."""
    schedule = Schedule(parse_graph({"nodes": list(nodes)}), inputs={}, run={})
    journal = schedule.advance(kit.epoch)
    work = schedule.changes().begin[0]
    journal += schedule.waiting(work, Wait(kind=WaitFor.APPROVAL, key="k"), kit.epoch)
    return schedule, journal, work


def test_a_run_is_idle_when_all_that_is_open_waits(kit: Any) -> None:
    ask = {"name": "ask", "approval": {"message": "?"}}
    schedule, _, work = waiting(kit, ask, kit.tool("b"))
    assert schedule.idle() is None
    schedule.outcome(Work("b"), Outcome(1), kit.epoch)
    schedule.advance(kit.epoch)
    idle = schedule.idle()
    assert (idle.keys, idle.wake_at, idle.reason) == (("k",), None, "Approval")
    assert schedule.waiting(work, Wait(kind=WaitFor.APPROVAL, key="k"), kit.epoch) == []
    schedule.woken("k")
    assert schedule.idle() is None
    schedule.outcome(work, Outcome("yes"), kit.epoch)
    assert schedule.advance(kit.epoch)[-1].output == {"ask": "yes", "b": 1}


def test_of_reads_what_a_task_brings(kit: Any) -> None:
    ask = {"name": "ask", "approval": {"message": "?"}}
    _, journal, work = waiting(kit, ask)
    run = RunInfo(uid="u", namespace="n", name="r", workflow="w")
    given = {"id": "t", "attempt": 2, "run": run, "spec": {"nodes": [ask]}, "inputs": {}, "journal": tuple(journal)}
    parked = Schedule.of(Task(**given))
    assert parked.advance(kit.epoch) == []
    assert parked.idle().keys == ("k",)
    assert parked.changes().begin == (work,)
    woken = Schedule.of(Task(**given, signals=(Signal(key="k", value={}),)))
    assert woken.advance(kit.epoch) == []
    assert woken.idle() is None
    assert Schedule.of(Task(**given, suspended=True)).suspended


def test_a_wait_that_takes_too_long_fails_its_try(kit: Any) -> None:
    ask = {"name": "ask", "agent": {"name": "x", "prompt": "?"}, "timeoutSeconds": 9}
    schedule = Schedule(parse_graph({"nodes": [ask]}), inputs={}, run={})
    schedule.advance(kit.epoch)
    (work,) = schedule.changes().begin
    until = kit.epoch + timedelta(seconds=9)
    schedule.waiting(work, Wait(kind=WaitFor.TURN, key="k", until=until), kit.epoch)
    assert schedule.wake_at == until
    assert schedule.advance(until)[0].reason == "Timeout"
    assert [(gone, wait.key) for gone, wait in schedule.changes().end if wait] == [(work, "k")]


def test_a_suspended_run_starts_nothing_and_goes_on_where_it_was(kit: Any) -> None:
    each = kit.tool("each", forEach="[1, 2, 3]", maxParallel=1)
    flaky = kit.tool("flaky", retry={"limit": 1, "backoffSeconds": 1})
    schedule = Schedule(parse_graph({"nodes": [each, flaky, kit.tool("b", "flaky")]}), inputs={}, run={})
    schedule.advance(kit.epoch)
    schedule.suspended = True
    at = kit.epoch + timedelta(seconds=10)
    schedule.outcome(Work("each", "0"), Outcome(1), at)
    schedule.outcome(Work("flaky"), kit.failure(), at)
    assert schedule.advance(at) == []
    assert schedule.advance(at + timedelta(seconds=5)) == []
    idle = schedule.idle()
    assert (idle.keys, idle.wake_at, idle.reason) == ((RESUME,), None, "Suspended")
    schedule.changes()
    schedule.suspended = False
    assert kinds(schedule.advance(at + timedelta(seconds=6))) == [("ItemStarted", "each")]
    assert set(schedule.changes().begin) == {Work("each", "1"), Work("flaky", try_number=2)}


def test_a_failure_ends_the_run_then_its_handlers_run(kit: Any) -> None:
    def oracle(work: Work, _given: Any) -> Outcome:
        return kit.failure() if work.node in ("bad", "@onFailure") else Outcome(work.node)

    sees = {"slow": "{{ outputs.slow }}", "good": "{{ outputs.good }}", "why": "{{ run.state }} {{ run.message }}"}
    play = kit.finish(
        kit.tool("good"),
        kit.tool("bad"),
        kit.tool("slow"),
        kit.tool("after", "bad", "slow"),
        onFailure={"tool": TOOL},
        oracle=oracle,
        seconds=lambda work: 9 if work.node == "slow" else 1,
        **{"finally": {"tool": {"name": "t", "arguments": sees}}},
    )
    assert kinds(play.journal)[-8:] == [
        ("RunEnding", ""),
        ("NodeFinished", "slow"),
        ("NodeFinished", "after"),
        ("NodeStarted", "@onFailure"),
        ("NodeFinished", "@onFailure"),
        ("NodeStarted", "@finally"),
        ("NodeFinished", "@finally"),
        ("RunFinished", ""),
    ]
    assert [(entry.node, entry.reason) for entry in play.of(Kind.NODE_FINISHED)][2:4] == [
        ("slow", "RunFailed"),
        ("after", "UpstreamFailed"),
    ]
    assert play.given[Work("@finally")] == {"slow": None, "good": "good", "why": 'Failed node "bad": no'}
    assert (play.end.state, play.end.reason) == (State.FAILED, "NodeFailed")


def test_a_good_run_skips_on_failure_and_fails_when_its_finally_does(kit: Any) -> None:
    handlers = {"onFailure": {"tool": TOOL}, "finally": {"tool": TOOL}}
    play = kit.finish(kit.tool("a"), **handlers)
    assert [work.node for work in play.ran] == ["a", "@finally"]
    assert (play.end.state, play.end.output) == (State.SUCCEEDED, {"a": "a"})

    def oracle(work: Work, _given: Any) -> Outcome:
        return kit.failure() if work.node == "@finally" else Outcome(work.node)

    play = kit.finish(kit.tool("a"), **handlers, oracle=oracle)
    assert (play.end.state, play.end.reason) == (State.FAILED, "FinallyFailed")
    assert play.end.error.message == 'node "@finally": no'


def test_a_handler_may_be_a_workflow_and_has_a_minute(kit: Any) -> None:
    handlers = {"finally": {"workflow": {"name": "w"}}}
    play = kit.finish(kit.tool("a"), **handlers, workflows={"w": {"nodes": [kit.tool("b")]}})
    assert [work.node for work in play.ran] == ["a", "@finally/b"]
    play.seconds = lambda work: 1 if work.node == "a" else 100
    assert (play.finish().end.reason, play.took) == ("FinallyFailed", 61)


@pytest.mark.parametrize(
    ("reason", "state", "ran"),
    [(STOPPED, State.CANCELLED, ["@finally"]), (TIMEOUT, State.FAILED, ["@onFailure", "@finally"])],
)
def test_end_stops_everything_and_runs_the_handlers(kit: Any, reason: str, state: State, ran: list[str]) -> None:
    inner = {"nodes": [kit.tool("x")]}
    spec = {
        "nodes": [{"name": "a", "forEach": "[1]", "workflow": {"name": "w"}}, kit.tool("b", "a")],
        "onFailure": {"tool": TOOL},
        "finally": {"tool": TOOL},
    }
    play = kit.play(spec, workflows={"w": inner})
    schedule = play.schedule()
    journal = schedule.advance(kit.epoch) + schedule.end(reason, kit.epoch)
    assert schedule.end(STOPPED, kit.epoch) == []
    assert [(e.node, e.state, e.reason) for e in journal if e.kind in (Kind.NODE_FINISHED, Kind.ITEM_FINISHED)] == [
        ("a[0]/x", State.CANCELLED, reason),
        ("a", State.CANCELLED, reason),
        ("a", State.CANCELLED, reason),
        ("b", State.SKIPPED, reason),
    ]
    for length in range(kinds(journal).index(("RunEnding", "")) + 1, len(journal) + 1):
        play.ran.clear()
        end = play.finish(journal[:length]).end
        assert (end.state, end.reason, [work.node for work in play.ran]) == (state, reason, ran)


def test_what_people_and_budgets_end_is_the_reason_of_the_run(kit: Any) -> None:
    inner = {"nodes": [{"name": "b", "approval": {"message": "?"}}]}
    for reason in ("ApprovalRejected", "BudgetExceeded"):
        refused = kit.failure(reason, retryable=False)
        play = kit.finish(
            {"name": "a", "workflow": {"name": "w"}}, workflows={"w": inner}, oracle=lambda *_, r=refused: r
        )
        assert (play.end.reason, play.end.error.message) == (reason, 'node "a": node "b": no')


def test_a_failed_item_cancels_the_others_and_what_is_inside_them(kit: Any) -> None:
    def oracle(work: Work, _given: Any) -> Outcome:
        return kit.failure() if work.node == "a[1]/b" else Outcome(work.node)

    node = {"name": "a", "forEach": "[1, 2, 3]", "workflow": {"name": "w"}}
    seconds = {"a[0]/b": 1.0, "a[1]/b": 2.0}
    play = kit.finish(
        node, workflows={"w": {"nodes": [kit.tool("b")]}}, oracle=oracle, seconds=lambda w: seconds.get(w.node, 9.0)
    )
    assert [entry.state.value for entry in play.of(Kind.ITEM_FINISHED)] == ["Succeeded", "Failed", "Cancelled"]
    assert (play.node("a[2]/b").state, play.node("a[2]/b").reason) == (State.CANCELLED, "ItemFailed")
    assert play.end.error.message == 'node "a": item 1: node "b": no'


def test_an_output_that_is_too_large_fails_its_node(kit: Any) -> None:
    play = kit.finish(kit.tool("a"), oracle=lambda *_: Outcome("x" * (1 << 20)))
    assert (play.node("a").reason, play.end.reason) == ("OutputTooLarge", "NodeFailed")


@pytest.mark.parametrize(
    ("retry", "node", "tries"),
    [
        pytest.param({"on": ["OutputTooLarge"]}, {}, 3, id="asked-for"),
        pytest.param({}, {}, 1, id="does-not-pass-by-itself"),
        pytest.param({"on": ["OutputTooLarge"]}, {"forEach": "[1]"}, 3, id="item"),
    ],
)
def test_an_output_that_is_too_large_is_tried_again_if_that_is_wanted(
    kit: Any, retry: Any, node: Any, tries: int
) -> None:
    tool = kit.tool("a", retry={"limit": 2, "backoffSeconds": 1, **retry}, **node)
    play = kit.finish(tool, oracle=lambda *_: Outcome("x" * (1 << 20)))
    assert [work.try_number for work in play.ran] == list(range(1, tries + 1))
    assert play.node("a").reason == "OutputTooLarge"
    assert len(play.of(Kind.TRY_FAILED, "a")) == tries - 1
    play = kit.finish(tool, oracle=lambda work, _: Outcome("x" * (1 << 20) if work.try_number == 1 else "good"))
    assert (play.end.state is State.SUCCEEDED) == (tries > 1)


def test_items_that_are_too_large_together_fail_their_node_at_once(kit: Any) -> None:
    retry = {"limit": 2, "on": ["OutputTooLarge"]}
    tool = kit.tool("a", forEach="[1, 2, 3]", retry=retry)
    play = kit.finish(tool, oracle=lambda *_: Outcome("x" * (400 << 10)))
    assert (len(play.ran), play.node("a").reason, play.of(Kind.TRY_FAILED)) == (3, "OutputTooLarge", [])


def test_too_many_items_fail_their_node_and_say_so(kit: Any) -> None:
    tool = kit.tool("a", forEach="inputs.list", onError="Continue", retry={"limit": 1, "on": ["TooManyItems"]})
    declared = [{"name": "list", "type": "array"}]
    play = kit.play({"inputs": declared, "nodes": [tool]}, inputs={"list": [0] * 10_001}).finish()
    assert (play.ran, play.node("a").reason) == ([], "TooManyItems")
    assert play.end.output["a"] == {
        "reason": "TooManyItems",
        "message": "forEach gives 10001 items, at most 10000 are allowed",
    }


@pytest.mark.parametrize("reason", ["ToolFailed", "BudgetExceeded"])
def test_a_failed_item_gives_its_node_its_own_reason(kit: Any, reason: str) -> None:
    play = kit.finish(kit.tool("a", forEach="[1, 2]"), oracle=lambda *_: kit.failure(reason, retryable=False))
    assert (play.node("a").reason, play.node("a").error.message) == (reason, "item 0: no")
    assert play.end.reason == ("NodeFailed" if reason == "ToolFailed" else reason)


def test_an_outcome_that_nobody_waits_for_is_ignored(kit: Any) -> None:
    schedule = Schedule(parse_graph({"nodes": [kit.tool("a")]}), inputs={}, run={})
    schedule.advance(kit.epoch)
    assert schedule.outcome(Work("a", None, 1, 2), Outcome("late"), kit.epoch) == []
    assert schedule.outcome(Work("b"), Outcome("late"), kit.epoch) == []
    assert kinds(schedule.outcome(Work("a"), Outcome("out"), kit.epoch)) == [("NodeFinished", "a")]
    assert schedule.outcome(Work("a"), Outcome("out"), kit.epoch) == []


def test_a_pause_is_the_longer_of_what_the_server_asks_and_what_retry_says(kit: Any) -> None:
    asked = Outcome(error=ErrorInfo(reason="RateLimited", message="no", retry_after_seconds=30))
    retry = {"limit": 1, "backoffSeconds": 1, "maxBackoffSeconds": 20}
    schedule = Schedule(parse_graph({"nodes": [kit.tool("a", retry=retry)]}), inputs={}, run={})
    schedule.advance(kit.epoch)
    (entry,) = schedule.outcome(Work("a"), asked, kit.epoch)
    assert entry.retry_at == kit.epoch + timedelta(seconds=20)
    assert schedule.wake_at == entry.retry_at
    assert not schedule.open


def test_step_says_what_follows_from_a_journal(kit: Any) -> None:
    graph = parse_graph({"nodes": [kit.tool("a"), kit.tool("b", "a")]})
    entries, work = step(graph, [], inputs={}, run={}, at=kit.epoch)
    assert (kinds(entries), work) == ([("NodeStarted", "a")], [Work("a")])


def calls(do: Callable[[], Any]) -> int:
    """Return how many functions a computation calls: a measure that no busy machine changes."""
    made = 0

    def note(_frame: Any, event: str, _arg: Any) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        do()
    finally:
        sys.setprofile(before)
    return made


def each_tool(kit: Any, size: int) -> Any:
    node = kit.tool("a", forEach="inputs.items", arguments={"x": "{{ item }}"})
    return kit.play({"inputs": [{"name": "items"}], "nodes": [node]}, inputs={"items": list(range(size))})


def each_workflow(kit: Any, size: int) -> Any:
    play = each_tool(kit, size)
    play.spec["nodes"][0] |= {"workflow": {"name": "w", "inputs": {"x": "{{ item }}"}}, "maxParallel": 100}
    del play.spec["nodes"][0]["tool"]
    play.workflows["w"] = {"inputs": [{"name": "x", "type": "integer"}], "nodes": [kit.tool("b"), kit.tool("c", "b")]}
    return play


def a_chain(kit: Any, size: int) -> Any:
    nodes = [kit.tool(f"n{i}", *([f"n{i - 1}"] if i else [])) for i in range(size)]
    return kit.play({"nodes": nodes})


def many_rounds(kit: Any, size: int) -> Any:
    repeat = {"from": "a", "until": f"iteration == {size}", "maxIterations": size}
    return kit.play({"nodes": [kit.tool("a"), kit.tool("b", "a", repeat=repeat)]})


@pytest.mark.parametrize("build", [each_tool, each_workflow, a_chain, many_rounds])
def test_the_work_for_a_run_and_for_its_replay_grows_with_its_length_only(
    kit: Any, build: Callable[[Any, int], Any]
) -> None:
    short, long = build(kit, 60), build(kit, 240)
    short.finish()  # imports, and what is kept
    parse_graph(long.spec)
    ran = [calls(play.finish) for play in (short, long)]
    replayed = [calls(play.schedule) for play in (short, long)]
    assert long.end.state is State.SUCCEEDED
    assert ran[1] < 4.5 * ran[0]
    assert replayed[1] < 4.5 * replayed[0]


def test_a_list_of_ten_thousand_is_gone_through_and_no_longer_one(kit: Any) -> None:
    assert (
        kinds(each_tool(kit, 10_000).schedule().advance(kit.epoch))
        == [("NodeStarted", "a")] + [("ItemStarted", "a")] * 8
    )
    play = each_tool(kit, 10_001).finish()
    assert "at most 10000 are allowed" in play.node("a").error.message


def test_a_suspended_run_can_be_stopped(kit: Any) -> None:
    play = kit.play({"nodes": [kit.tool("a", retry={"limit": 1})], "finally": {"tool": TOOL}})
    schedule = play.schedule()
    schedule.advance(kit.epoch)
    schedule.suspended = True
    schedule.outcome(Work("a"), kit.failure(), kit.epoch)
    schedule.advance(kit.epoch + timedelta(seconds=9))
    assert kinds(schedule.end(STOPPED, kit.epoch)) == [
        ("RunEnding", ""),
        ("NodeFinished", "a"),
        ("NodeStarted", "@finally"),
    ]
    assert schedule.changes().begin == (Work("@finally"),)
    schedule.outcome(Work("@finally"), Outcome(), kit.epoch)
    assert schedule.advance(kit.epoch)[-1].reason == STOPPED
