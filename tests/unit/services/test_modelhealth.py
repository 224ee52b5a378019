from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.services.modelhealth import TOPIC, ModelHealth, ModelReports
from fairlead.storage.base import Event
from fairlead.testing.clock import FakeClock
from fairlead.testing.operatorworld import OperatorWorld, operator_world
from fairlead.testing.storage import CLUSTER


class Bus:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def publish(self, event: Event) -> None:
        assert event.topic == TOPIC
        self.keys.append(event.key)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[OperatorWorld]:
    async with operator_world(tmp_path) as made:
        yield made


async def test_report_tells_what_has_changed_and_reminds_of_what_has_not() -> None:
    bus, clock = Bus(), FakeClock()
    storage: Any = bus
    reports = ModelReports(storage, clock, cluster="c")
    for reason in ("", "", "ModelUnavailable", "CircuitOpen", "ModelUnavailable"):
        await reports.report("n", "m", reason)
    assert bus.keys == ["c/n/m/ModelUnavailable"]
    clock.advance(61)
    await reports.report("n", "m", "ModelUnavailable")
    await reports.report("n", "m", "ContextTooLong")
    assert bus.keys[1:] == ["c/n/m/ModelUnavailable", "c/n/m/"]


def test_heard_is_believed_until_it_is_denied_or_old() -> None:
    clock = FakeClock()
    health = ModelHealth(clock, cluster="c")
    assert health.heard("another/n/m/Unreachable") is None
    assert health.heard("c/n/m/Unreachable") == ("n", "m")
    assert health.heard("c/n/m/Unreachable") is None
    assert health.trouble("n", "m") == "Unreachable"
    clock.advance(601)
    assert health.trouble("n", "m") == ""
    health.heard("c/n/m/Unreachable")
    assert health.heard("c/n/m/") == ("n", "m")
    assert health.trouble("n", "m") == ""


async def test_model_that_does_not_answer_is_said_on_it_and_on_the_agents_that_think_with_it(
    world: OperatorWorld,
) -> None:
    model = await world.add("Model", "m", {"model": "x"})
    saved = await world.add("Model", "saved", {"model": "x", "fallbacks": ["other"]})
    await world.add("Model", "other", {"model": "y"})
    agent = await world.add("Agent", "g", {"model": "m"})
    lucky = await world.add("Agent", "h", {"model": "saved"})
    keys = (model, saved, agent, lucky)
    for key in keys:
        await world.settle(key)
    for name in ("m", "saved"):
        await world.operator._hear(Event(TOPIC, f"{CLUSTER}/default/{name}/AuthenticationFailed"))
    assert set(keys) <= set(world.operator.queue._due)
    for key in keys:
        await world.settle(key)
    said = {world.object(key)["metadata"]["name"]: world.condition(key, "Ready")["reason"] for key in keys}
    assert said == {
        "m": "AuthenticationFailed",
        "saved": "AuthenticationFailed",
        "g": "AuthenticationFailed",
        "h": "ScalingUp",
    }
    assert 'Model "m"' in world.condition(agent, "Ready")["message"]
    await world.operator._hear(Event(TOPIC, f"{CLUSTER}/default/m/"))
    await world.settle(agent)
    assert world.condition(agent, "Ready")["reason"] == "ScalingUp"
