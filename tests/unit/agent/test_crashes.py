"""The process may die before and after every append and every call; the next attempt ends the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fairlead_agent.protocol import Call, Kind, State


def tool(name: str, **keys: Any) -> dict[str, Any]:
    arguments = keys.pop("arguments", {})
    return {"name": name, "tool": {"name": "echo", "arguments": arguments}, **keys}


EVERYTHING = {
    "model": "default",
    "inputs": [{"name": "list", "type": "array"}, {"name": "topic"}],
    "nodes": [
        tool("load", arguments={"rows": "{{ inputs.list }}"}),
        {
            "name": "sort",
            "needs": ["load"],
            "forEach": "outputs.load.rows",
            "maxParallel": 2,
            "retry": {"limit": 2, "backoffSeconds": 1},
            "onError": "Continue",
            "timeoutSeconds": 30,
            "llm": {
                "system": "Sort.",
                "prompt": "{{ index }} {{ item }} {{ inputs.topic }}",
                "output": {"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string"}}},
            },
        },
        tool("flaky", needs=["load"], retry={"limit": 3, "backoffSeconds": 2}),
        tool("never", needs=["load"], when="size(outputs.load.rows) > 100"),
        tool("after", needs=["never"]),
        tool("bad", needs=["load"], onError="Continue"),
        tool("by_key", needs=["flaky"], forEach="{'x': 1, 'y': 2}", arguments={"v": "{{ item + 1 }}"}),
        tool("join", needs=["sort", "after", "bad", "by_key"], arguments={"all": "{{ outputs.sort }}"}),
    ],
    "output": {"sorted": "{{ outputs.join.all }}", "why": "{{ outputs.bad.reason }}", "map": "{{ outputs.by_key }}"},
}
INPUTS = {"list": ["a", "b", "c"], "topic": "ships"}
FAILING = {
    "nodes": [tool("a"), tool("slow"), tool("bad", needs=["a"]), tool("down", needs=["bad"]), tool("x", needs=["slow"])]
}


def answers(simulation: Any) -> Any:
    async def handler(call: Call) -> Any:
        await asyncio.sleep({"slow": 100}.get(call.node, 1 + int(call.item or 0) if call.node == "sort" else 1))
        if call.node == "bad" or call.key in ("flaky/-/1/1/0", "flaky/-/1/2/0", "sort/=1/1/1/0"):
            raise simulation.tool_error("ToolFailed")
        if call.node == "sort":
            return f'```json\n{{"kind": "{call.item}"}}\n```' if call.item != "2" else "no idea"
        return call.tool.arguments if call.tool else None

    return handler


def final(world: Any) -> Any:
    nodes = {entry.node: (entry.state, entry.reason, entry.output) for entry in world.of(Kind.NODE_FINISHED)}
    return world.end.state, world.end.reason, world.end.output, nodes


def assert_nothing_twice(world: Any) -> None:
    assert set(world.sent.values()) == {1}, "a committed call was sent twice"
    for kind in (Kind.NODE_STARTED, Kind.NODE_FINISHED, Kind.ITEM_STARTED, Kind.ITEM_FINISHED):
        keys = [(entry.node, entry.item) for entry in world.of(kind)]
        assert len(keys) == len(set(keys)), f"{kind} twice"


@pytest.mark.parametrize(
    ("spec", "inputs"), [pytest.param(EVERYTHING, INPUTS, id="succeeds"), pytest.param(FAILING, {}, id="fails")]
)
def test_run_ends_the_same_wherever_the_process_died(simulation: Any, spec: Any, inputs: Any) -> None:
    calm = simulation.finish(spec, inputs=inputs, handler=answers(simulation))
    assert calm.end.state is (State.SUCCEEDED if spec is EVERYTHING else State.FAILED)
    assert_nothing_twice(calm)
    assert calm.boundaries > 10
    for boundary in range(calm.boundaries):
        world = simulation.world(spec, inputs=inputs, handler=answers(simulation))
        simulation.survive(world, lambda attempt, at=boundary: -1 if attempt else at)
        assert world.attempt == (2 if boundary + 1 < calm.boundaries else 1)
        assert final(world) == final(calm), f"killed at boundary {boundary}"
        assert_nothing_twice(world)


def test_run_ends_the_same_when_it_dies_again_and_again(simulation: Any) -> None:
    calm = simulation.finish(EVERYTHING, inputs=INPUTS, handler=answers(simulation))
    world = simulation.world(EVERYTHING, inputs=INPUTS, handler=answers(simulation))
    simulation.survive(world, lambda attempt: 1 + attempt % 9)
    assert final(world) == final(calm)
    assert world.attempt > 5
    assert_nothing_twice(world)


def test_run_goes_on_stopping_when_it_dies_while_it_is_stopped(simulation: Any) -> None:
    spec = {"nodes": [tool("a"), tool("each", forEach="[1, 2]"), tool("b", needs=["a"])]}
    world = simulation.world(spec, handler=answers(simulation), seconds=50)

    async def stopped() -> None:
        execution = world.execution()
        running = asyncio.create_task(execution.run())
        await asyncio.sleep(0.5)
        execution.stop()
        await running

    simulation.run(stopped)
    whole = list(world.journal)
    for length in range(1, len(whole)):
        if any(entry.reason == "Stopped" for entry in whole[:length]):
            world.journal = whole[:length]
            simulation.resume(world)
            assert (world.end.state, world.end.reason) == (State.CANCELLED, "Stopped")
            assert {entry.node: entry.state for entry in world.of(Kind.NODE_FINISHED)} == {
                "a": State.CANCELLED,
                "each": State.CANCELLED,
                "b": State.SKIPPED,
            }


def test_run_waits_the_rest_of_a_pause(simulation: Any) -> None:
    async def handler(call: Call) -> Any:
        if call.key == "a/-/1/1/0":
            raise simulation.tool_error("ToolFailed")
        return "ok"

    spec = {"nodes": [tool("a", retry={"limit": 1, "backoffSeconds": 60, "maxBackoffSeconds": 60})]}
    world = simulation.world(spec, handler=handler)

    async def interrupted() -> None:
        living = asyncio.create_task(world.live())
        await asyncio.sleep(20)
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        await asyncio.sleep(30)
        await world.live()

    simulation.run(interrupted)
    assert simulation.elapsed == pytest.approx(60)
    assert world.end.output == {"a": "ok"}
