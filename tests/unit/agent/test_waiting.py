"""Waiting without a pod: approvals, agents' turns, times, suspension; and the end that comes meanwhile."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from fairlead.testing.agentworld import EPOCH, RUN
from fairlead_agent.protocol import (
    AskApproval,
    Call,
    CallReply,
    Decision,
    Kind,
    Rerun,
    State,
    ToolInfo,
    TurnInfo,
)

HOUR = 3600.0
AGENTS = {"smith": TurnInfo(agent="", prompt="", model="m", instructions="You are Smith.")}


def tool(name: str, **keys: Any) -> dict[str, Any]:
    arguments = keys.pop("arguments", {})
    return {"name": name, "tool": {"name": "echo", "arguments": arguments}, **keys}


def approval(name: str, **keys: Any) -> dict[str, Any]:
    options = {key: keys.pop(key) for key in ("timeoutSeconds", "onTimeout", "approvers") if key in keys}
    return {"name": name, "approval": {"message": "Send {{ outputs.a }}?", **options}, **keys}


def agent(name: str, **keys: Any) -> dict[str, Any]:
    return {
        "name": name,
        "agent": {"name": "smith", "prompt": "Find {{ inputs.what }}", **keys.pop("agent", {})},
        **keys,
    }


def yes(_question: AskApproval) -> Decision:
    return Decision(approved=True, by="ann", at=EPOCH, comment="fine")


def no(_question: AskApproval) -> Decision:
    return Decision(approved=False, by="ann", at=EPOCH, comment="too early")


async def echo(call: Call) -> Any:
    """Give back what came, a second later."""
    await asyncio.sleep(1)
    return call.tool.arguments if call.tool else call.llm.messages[-1].content if call.llm else None


def test_approval_waits_without_a_pod_and_goes_on_with_who_said_yes(simulation: Any) -> None:
    spec = {"nodes": [tool("a", arguments={"x": 1}), approval("ok", needs=["a"]), tool("b", needs=["ok"])]}
    world = simulation.finish(spec, handler=echo, decide=yes, decide_seconds=HOUR)
    assert world.node("ok").output == {"approved": True, "by": "ann", "comment": "fine", "at": EPOCH.isoformat()}
    assert world.end.state is State.SUCCEEDED
    assert [park.reason for park in world.parks] == ["Approval"]
    (question,) = world.approvals.values()
    assert (question.message, question.timeout_seconds) == ('Send {"x":1}?', 86_400)
    assert set(world.sent.values()) == {1}


@pytest.mark.parametrize(
    ("keys", "decide", "state", "reason"),
    [
        pytest.param({}, no, State.FAILED, "ApprovalRejected", id="rejected"),
        pytest.param({"timeoutSeconds": 60}, None, State.FAILED, "ApprovalTimeout", id="nobody-in-time"),
        pytest.param({"timeoutSeconds": 60, "onTimeout": "Approve"}, None, State.SUCCEEDED, "", id="silence-agrees"),
    ],
)
def test_approval_ends_as_was_decided(simulation: Any, keys: Any, decide: Any, state: State, reason: str) -> None:
    spec = {"nodes": [tool("a"), approval("ok", needs=["a"], retry={"limit": 3}, **keys)]}
    world = simulation.finish(spec, decide=decide)
    assert (world.node("ok").state, world.node("ok").reason) == (state, reason)
    assert len(world.approvals) == 1, "a person's no is not asked again"
    assert world.end.reason == (reason or "Succeeded")


def test_approval_holds_up_no_other_branch(simulation: Any) -> None:
    nodes = [
        tool("a"),
        approval("ok", needs=["a"]),
        *(tool(f"f{i}", needs=[f"f{i - 1}"] if i else []) for i in range(9)),
    ]
    world = simulation.finish({"nodes": nodes}, handler=echo, decide=yes, decide_seconds=4)
    assert world.parks == []
    assert world.node("ok").at < world.node("f8").at
    assert simulation.elapsed == pytest.approx(9)


def test_tool_that_requires_approval_is_used_when_it_was_given(simulation: Any) -> None:
    tools = {"echo": ToolInfo(name="echo", require_approval=True)}
    world = simulation.finish({"nodes": [tool("a", arguments={"x": 1})]}, tools=tools, handler=echo, decide=yes)
    assert world.end.output == {"a": {"x": 1}}
    world = simulation.finish({"nodes": [tool("a")]}, tools=tools, handler=echo, decide=no)
    assert world.node("a").reason == "ApprovalRejected"
    assert not world.sent


def test_agent_turn_is_a_task_of_its_own(simulation: Any) -> None:
    async def handler(call: Call) -> Any:
        assert call.llm is not None
        told = [(message.role, message.content) for message in call.llm.messages]
        assert told == [("system", "You are Smith."), ("user", "Find gold")]
        return CallReply(result='{"where": "here"}')

    schema = {"type": "object", "required": ["where"]}
    spec = {
        "inputs": [{"name": "what"}],
        "nodes": [agent("a", agent={"output": schema})],
        "output": "{{ outputs.a.where }}",
    }
    world = simulation.finish(spec, inputs={"what": "gold"}, agents=AGENTS, handler=handler)
    assert world.end.output == "here"
    assert [park.reason for park in world.parks] == ["Turn"]
    (turn,) = (job for job in world.jobs.values() if job.id != RUN)
    assert [entry.kind for entry in turn.journal] == [Kind.TURN_FINISHED]
    assert list(world.sent) == [f"{turn.id}:a/-/1/1/0"]


def test_agent_that_fails_is_asked_again_by_another_turn(simulation: Any) -> None:
    async def handler(_call: Call) -> Any:
        if len(world.jobs) == 2:
            raise simulation.tool_error("RateLimited")
        return "ok"

    spec = {"inputs": [{"name": "what"}], "nodes": [agent("a", retry={"limit": 1})]}
    world = simulation.world(spec, inputs={"what": ""}, agents=AGENTS, handler=handler)
    simulation.resume(world)
    assert world.end.output == {"a": "ok"}
    assert len(world.jobs) == 3


def test_agent_that_is_too_slow_is_cancelled(simulation: Any) -> None:
    async def handler(_call: Call) -> Any:
        await asyncio.sleep(HOUR)

    spec = {"inputs": [{"name": "what"}], "nodes": [agent("a", timeoutSeconds=30)]}
    world = simulation.finish(spec, inputs={"what": ""}, agents=AGENTS, handler=handler)
    assert world.node("a").error.reason == "Timeout"
    assert all(job.done for job in world.jobs.values())
    assert simulation.elapsed == pytest.approx(30)


def test_run_that_fails_cancels_the_turns_that_it_waits_for(simulation: Any) -> None:
    async def handler(call: Call) -> Any:
        await asyncio.sleep(10 if call.tool else HOUR)
        if call.tool:
            raise simulation.tool_error("ToolFailed")

    spec = {"inputs": [{"name": "what"}], "nodes": [agent("a"), tool("bad")]}
    world = simulation.finish(spec, inputs={"what": ""}, agents=AGENTS, handler=handler)
    assert (world.end.state, world.node("a").state) == (State.FAILED, State.CANCELLED)
    assert all(job.done for job in world.jobs.values())
    assert simulation.elapsed == pytest.approx(10)


@pytest.mark.parametrize(("seconds", "parks"), [pytest.param(4, 0, id="short"), pytest.param(3600, 1, id="long")])
def test_wait_holds_a_pod_only_for_seconds(simulation: Any, seconds: int, parks: int) -> None:
    spec = {"nodes": [{"name": "w", "wait": {"seconds": seconds}}, tool("b", needs=["w"])]}
    world = simulation.finish(spec)
    assert len(world.parks) == parks
    assert simulation.elapsed == pytest.approx(seconds)
    assert world.node("w").output == {"until": (EPOCH + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")}


def test_pause_before_the_next_try_holds_no_pod(simulation: Any) -> None:
    async def handler(call: Call) -> Any:
        if call.key == "a/-/1/1/0":
            raise simulation.tool_error("ToolFailed", retry_after=50)

    world = simulation.finish({"nodes": [tool("a", retry={"limit": 1})]}, handler=handler)
    assert [park.wake_seconds for park in world.parks] == [50]
    assert world.end.state is State.SUCCEEDED


def live_and(world: Any, *steps: tuple[float, Any]) -> Any:
    async def main() -> None:
        living = asyncio.create_task(world.live())
        for seconds, step in steps:
            await asyncio.sleep(seconds)
            step()
        await living

    return main


def test_suspended_run_finishes_what_runs_and_starts_nothing(simulation: Any) -> None:
    nodes = [tool("a"), tool("b", needs=["a"]), tool("c", forEach="[1, 2, 3]", maxParallel=1)]
    world = simulation.world({"nodes": nodes}, seconds=10)
    simulation.run(live_and(world, (5, world.suspend), (HOUR, world.resume)))
    assert [park.keys for park in world.parks] == [("$resume",)]
    assert next(entry.at - EPOCH for entry in world.of(Kind.ITEM_FINISHED)) == timedelta(seconds=10)
    assert world.of(Kind.NODE_STARTED, "b")[0].at - EPOCH == timedelta(seconds=HOUR + 5)
    assert world.end.state is State.SUCCEEDED
    assert set(world.sent.values()) == {1}


def test_suspended_run_that_is_resumed_before_it_parked_goes_on(simulation: Any) -> None:
    world = simulation.world({"nodes": [tool("a"), tool("b", needs=["a"])]}, seconds=10)
    simulation.run(live_and(world, (5, world.suspend), (1, world.resume)))
    assert world.parks == []
    assert simulation.elapsed == pytest.approx(20)


def test_decision_that_comes_while_the_run_is_suspended_is_kept(simulation: Any) -> None:
    spec = {"nodes": [tool("a"), approval("ok", needs=["a"])]}
    world = simulation.world(spec, seconds=10, decide=yes, decide_seconds=60)
    simulation.run(live_and(world, (5, world.suspend), (HOUR, world.resume)))
    assert world.end.state is State.SUCCEEDED


@pytest.mark.parametrize("inside", [False, True])
def test_time_out_that_is_over_while_the_run_is_suspended_comes_with_its_end(simulation: Any, *, inside: bool) -> None:
    waits: dict[str, Any] = {"name": "ok", "approval": {"message": "Send it?"}}
    nodes = [{"name": "sub", "workflow": {"name": "inner"}}] if inside else [waits | {"timeoutSeconds": 60}]
    workflows = {"inner": {"timeoutSeconds": 60, "nodes": [waits]}}
    world = simulation.world({"nodes": nodes}, workflows=workflows)
    simulation.run(live_and(world, (5, world.suspend), (HOUR, world.resume)))
    (ended,) = world.of(Kind.NODE_FINISHED, "sub" if inside else "ok")
    assert (ended.reason, ended.at - EPOCH) == ("Timeout", timedelta(seconds=HOUR + 5))


def test_time_out_of_what_still_runs_in_a_suspended_run_comes_at_once(simulation: Any) -> None:
    world = simulation.world({"nodes": [{**tool("a"), "timeoutSeconds": 20}]}, seconds=30)
    simulation.run(live_and(world, (5, world.suspend), (HOUR, world.resume)))
    (ended,) = world.of(Kind.NODE_FINISHED, "a")
    assert (ended.reason, ended.at - EPOCH) == ("Timeout", timedelta(seconds=20))


FINALLY = {"tool": {"name": "echo", "arguments": {"why": "{{ run.state }} {{ run.reason }}"}}}


def test_stopped_run_runs_finally_before_it_ends(simulation: Any) -> None:
    world = simulation.world({"nodes": [tool("a")], "finally": FINALLY}, handler=echo, seconds=40)
    simulation.run(live_and(world, (5, world.stop)))
    assert (world.end.state, world.end.reason) == (State.CANCELLED, "Stopped")
    assert world.node("@finally").output == {"why": "Cancelled Stopped"}
    kinds = [entry.kind for entry in world.journal]
    assert kinds.index(Kind.RUN_ENDING) < kinds.index(Kind.NODE_FINISHED)


def test_parked_run_that_is_stopped_runs_finally(simulation: Any) -> None:
    spec = {"nodes": [tool("a"), approval("ok", needs=["a"])], "finally": FINALLY}
    world = simulation.world(spec, handler=echo)
    simulation.run(live_and(world, (HOUR, world.stop)))
    assert (world.end.state, world.node("ok").state) == (State.CANCELLED, State.CANCELLED)
    assert world.node("@finally").state is State.SUCCEEDED


def test_run_over_its_time_runs_handlers(simulation: Any) -> None:
    handlers = {"onFailure": {"tool": {"name": "echo", "arguments": {"why": "{{ run.message }}"}}}, "finally": FINALLY}
    world = simulation.finish({"nodes": [tool("a")], **handlers}, handler=echo, seconds=40, remaining=30)
    assert (world.end.state, world.end.reason) == (State.FAILED, "Timeout")
    assert world.node("@onFailure").state is State.SUCCEEDED
    assert world.node("@finally").output == {"why": "Failed Timeout"}


def test_parked_run_ends_in_time(simulation: Any) -> None:
    world = simulation.finish({"nodes": [tool("a"), approval("ok", needs=["a"])]}, remaining=60)
    assert (world.end.reason, world.node("ok").state) == ("Timeout", State.CANCELLED)
    assert [park.wake_seconds for park in world.parks] == [60]
    assert simulation.elapsed == pytest.approx(60)


def test_cached_result_is_used_by_a_later_run(simulation: Any) -> None:
    node = tool("a", arguments={"x": "{{ inputs.x }}"}, cache={"ttlSeconds": 1000})
    spec = {"inputs": [{"name": "x", "type": "integer"}], "nodes": [node]}
    first = simulation.finish(spec, inputs={"x": 1}, handler=echo, uid="first")
    second = simulation.finish(spec, inputs={"x": 1}, handler=echo, uid="second", cache=first.cache)
    other = simulation.finish(spec, inputs={"x": 2}, handler=echo, uid="other", cache=first.cache)
    assert (second.node("a").reused, second.node("a").reason) == ("first", "Cached")
    assert second.end.output == first.end.output
    assert (len(second.sent), len(other.sent)) == (0, 1)


def test_rerun_uses_what_succeeded_again(simulation: Any) -> None:
    async def handler(call: Call) -> Any:
        if call.node == "b" and broken:
            raise simulation.tool_error("ToolFailed")
        return await echo(call)

    spec = {"nodes": [tool("a", arguments={"x": 1}), tool("b", needs=["a"], arguments={"y": "{{ outputs.a.x }}"})]}
    broken = True
    first = simulation.finish(spec, handler=handler, uid="first")
    broken = False
    good = tuple(entry for entry in first.journal if entry.state is State.SUCCEEDED and entry.digest)
    second = simulation.finish(spec, handler=handler, uid="second", rerun=Rerun(uid="first", entries=good))
    assert (second.node("a").reused, second.node("a").reason, second.node("b").reused) == ("first", "Reused", "")
    assert (second.end.output, list(second.sent)) == ({"b": {"y": 1}}, ["b/-/1/1/0"])


SUB = {
    "inputs": [{"name": "n", "type": "integer"}],
    "nodes": [tool("x", arguments={"n": "{{ inputs.n }}"}), approval("ok", needs=["x"])],
    "output": "{{ outputs.x.n }}",
    "finally": FINALLY,
}
SUB["nodes"][1]["approval"]["message"] = "Go on?"  # type: ignore[index]
SUB_OF_ITEM = {"name": "sub", "inputs": {"n": "{{ item }}"}}
EVERYTHING: dict[str, Any] = {
    "inputs": [{"name": "what"}],
    "model": "m",
    "nodes": [
        tool("a", arguments={"x": 1}, cache={"ttlSeconds": 1000}),
        agent("ask", needs=["a"], retry={"limit": 1}),
        approval("ok", needs=["ask"]),
        {
            "name": "sub",
            "needs": ["a"],
            "forEach": "[7, 8]",
            "workflow": {"name": "sub", "inputs": {"n": "{{ item }}"}},
        },
        tool("draft", needs=["a"], arguments={"n": "{{ iteration }}", "last": "{{ outputs.judge }}"}),
        tool("judge", needs=["draft"], repeat={"from": "draft", "until": "iteration == 3", "maxIterations": 5}),
        {"name": "nap", "needs": ["judge"], "wait": {"seconds": 600}},
        {"name": "send", "needs": ["nap"], "tool": {"name": "send", "arguments": {"to": "bob"}}},
        {"name": "mind", "needs": ["a"], "llm": {"prompt": "go", "tools": ["read", "send"]}},
        tool("bad", needs=["sub"], retry={"limit": 1, "backoffSeconds": 30}, onError="Continue"),
        tool("join", needs=["ok", "sub", "send", "mind", "bad"], arguments={"all": "{{ outputs.sub }}"}),
    ],
    "output": {"sub": "{{ outputs.join.all }}", "mind": "{{ outputs.mind }}", "asked": "{{ outputs.ask }}"},
    "finally": FINALLY,
}
EVERYTHING["nodes"][2]["approval"]["message"] = "Send {{ outputs.ask }}?"


def everything(simulation: Any) -> dict[str, Any]:
    async def handler(call: Call) -> Any:
        await asyncio.sleep(1)
        if call.node == "bad":
            raise simulation.tool_error("ToolFailed")
        if call.tool:
            return call.tool.arguments
        assert call.llm is not None
        if call.node == "mind" and len(call.llm.messages) == 1:
            uses = [{"id": "1", "name": "read", "arguments": {}}, {"id": "2", "name": "send", "arguments": {}}]
            return CallReply.model_validate({"toolCalls": uses})
        return f"{call.node} {len(call.llm.messages)}"

    tools = {"read": ToolInfo(name="read"), "send": ToolInfo(name="send", require_approval=True)}
    return {
        "inputs": {"what": "gold"},
        "handler": handler,
        "tools": tools,
        "agents": AGENTS,
        "workflows": {"sub": SUB},
        "decide": yes,
        "decide_seconds": 50.0,
    }


def test_run_that_is_stopped_meanwhile_begins_nothing_but_its_handlers(simulation: Any) -> None:
    async def stop_during_a(call: Call) -> Any:
        world.cancelled = True
        return await echo(call)

    spec = {"nodes": [tool("a"), tool("b", needs=["a"])], "finally": FINALLY}
    world = simulation.world(spec, handler=stop_during_a)
    simulation.resume(world)
    assert (world.end.state, world.end.reason) == (State.CANCELLED, "Stopped")
    assert [entry.node for entry in world.of(Kind.NODE_STARTED)] == ["a", "b", "@finally"]
    assert set(world.sent) == {"a/-/1/1/0", "@finally/-/1/1/0"}
    assert (world.node("a").state, world.node("b").reason) == (State.SUCCEEDED, "Stopped")


def test_run_with_everything_ends_the_same_wherever_the_process_died(simulation: Any) -> None:
    calm = simulation.finish(EVERYTHING, **everything(simulation))
    assert calm.end.output == {"sub": [7, 8], "mind": "mind 4", "asked": "ask 2"}
    assert calm.node("@finally").output == {"why": "Succeeded Succeeded"}
    for boundary in range(0, calm.boundaries, 7):
        world = simulation.world(EVERYTHING, **everything(simulation))
        simulation.survive(world, lambda number, at=boundary: -1 if number else at)
        assert ends(world) == ends(calm), f"killed at boundary {boundary}"
        assert world.sent == calm.sent, f"killed at boundary {boundary}"


def ends(world: Any) -> Any:
    finished = [entry for entry in world.journal if entry.kind in (Kind.NODE_FINISHED, Kind.ITEM_FINISHED)]
    keys = [(entry.node, entry.item, entry.iteration) for entry in finished]
    assert len(keys) == len(set(keys)), "a node was finished twice"
    nodes = {key: (entry.state, entry.reason, entry.try_number) for key, entry in zip(keys, finished, strict=True)}
    return world.end.state, world.end.reason, world.end.output, nodes
