"""The agent may die before and after everything that it asks of the gateway, every write to the journal included."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from fairlead.testing.agentworld import World
from fairlead.testing.simulation import Simulation
from fairlead.testing.stories import EVERYTHING, FAILING, WORKFLOWS, answer, inputs_of
from fairlead_agent.protocol import AskApproval, Call, CallReply, Decision, Kind, ToolInfo, TurnInfo


async def handler(call: Call) -> CallReply:
    """Answer by the number of the try, so that a call's answer is the same whoever asks for it."""
    asked = call.llm or call.tool or call.code
    assert asked is not None
    return answer(asked, int(call.key.rsplit("/", 2)[1]))


def decide(question: AskApproval) -> Decision | None:
    """Say yes to what is asked."""
    if question.message != "go on?":
        return None
    return Decision(approved=True, by="anna", at="2026-01-01T00:00:00Z")  # type: ignore[arg-type]  # pydantic reads it


def build(spec: dict[str, Any]) -> World:
    """Return a world in which the workflow has not begun."""
    return World(
        spec,
        inputs=inputs_of(spec),
        handler=handler,
        seconds=1,
        workflows=WORKFLOWS,
        tools={"echo": ToolInfo(name="echo", parameters={"type": "object"})},
        agents={"thinker": TurnInfo(agent="thinker", prompt="", model="default", tools=("echo",))},
        decide=decide,
        decide_seconds=3,
    )


def final(world: World) -> Any:
    """Return what must be the same whatever happened."""
    nodes = {(one.node, one.iteration): (one.state, one.reason) for one in world.of(Kind.NODE_FINISHED)}
    return world.end.state, world.end.reason, world.end.output, nodes


def assert_nothing_twice(world: World) -> None:
    assert set(world.sent.values()) == {1}, "a call was sent twice"
    for kind in (Kind.NODE_FINISHED, Kind.ITEM_FINISHED):
        ended = Counter((one.node, one.item, one.iteration) for one in world.of(kind))
        assert set(ended.values()) <= {1}, f"{kind} twice"


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param(EVERYTHING, "Succeeded", id="every-construct"),
        pytest.param(FAILING, "NodeFailed", id="failure-with-handlers"),
    ],
)
def test_run_ends_the_same_wherever_the_agent_dies(spec: dict[str, Any], reason: str) -> None:
    calm = build(spec)
    Simulation().resume(calm)
    assert calm.end.reason == reason
    for boundary in range(calm.boundaries):
        world = build(spec)
        Simulation().survive(world, lambda life, at=boundary: -1 if life else at)  # type: ignore[misc]
        assert final(world) == final(calm), f"killed at boundary {boundary}"
        assert_nothing_twice(world)
