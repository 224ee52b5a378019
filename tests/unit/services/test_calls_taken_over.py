"""Calls that another attempt or another gateway goes on with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.errors import Unavailable
from fairlead.services.outcomes import Outcome, build_answer
from fairlead.storage import Storage
from fairlead.storage.base import CallState
from fairlead.testing.clock import FakeClock
from fairlead.testing.outside import CODE_CALL, TOOL_CALL, Outside, ask, calls, claim, open_world, queued_run
from fairlead.testing.storage import NOW
from fairlead_agent.protocol import (
    AgentRequest,
    Call,
    CallReply,
    call_key,
)


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    async with queued_run(tmp_path) as opened:
        yield opened


async def test_call_of_the_next_attempt_joins_the_one_in_flight(storage: Storage) -> None:
    outside = Outside()
    made = calls(storage, outside)
    old = await claim(storage)
    lost = asyncio.create_task(made.call(old, ask(old)))
    await outside.started.wait()
    await storage.requeue_pod("pod-1-uid", at=NOW)
    new = await claim(storage, "pod-2")
    joined = asyncio.create_task(made.call(new, ask(new)))
    outside.go.set()

    assert (await joined).result == "42"
    assert new.attempt == old.attempt + 1
    assert outside.asked == 1
    await lost


async def test_call_lost_with_its_gateway_is_repeated_and_marked(storage: Storage) -> None:
    clock = FakeClock()
    fence = await claim(storage)
    lost = Outside()
    dead = calls(storage, lost, gateway="gateway-dead")
    dying = asyncio.create_task(dead.call(fence, ask(fence)))
    await lost.started.wait()
    await storage.beat_gateway("gateway-dead", at=clock.now())
    dying.cancel()
    outside = open_world()

    reply = await calls(storage, outside, gateway="gateway-2", clock=clock).call(fence, ask(fence))

    assert reply.result == "42"
    assert 6 <= sum(clock.slept) <= 7
    record = await storage.get_call(fence.task_id, "ask/-/1/1/1")
    assert record is not None
    assert (record.repeats, record.intent.gateway) == (1, "gateway-2")
    (span,) = await storage.spans_of_run("run-1")
    assert span.attributes["fairlead.repeats"] == 1
    await dead.drain(0)


async def test_call_of_an_external_agent_is_repeated_as_the_same_message(storage: Storage) -> None:
    fence, request = await claim(storage), AgentRequest(name="theirs", prompt="?")
    key = call_key("abroad", None, 1, 1, 0)
    asked = Call(attempt=1, key=key, digest="d", action="agent", node="abroad", agent=request)
    lost, clock = Outside(), FakeClock()
    dead = calls(storage, lost, gateway="gateway-dead")
    dying = asyncio.create_task(dead.call(fence, asked))
    await lost.started.wait()
    await storage.beat_gateway("gateway-dead", at=clock.now())
    dying.cancel()
    living = calls(storage, open_world(), gateway="gateway-2", clock=clock)

    reply = await living.call(fence, asked)

    assert (reply.error, reply.result) == (None, "42")
    assert dead._agents.sent == living._agents.sent == [(fence.task_id, key)]  # type: ignore[attr-defined]  # fakes
    (span,) = await storage.spans_of_run("run-1")
    assert (span.name, span.attributes["fairlead.repeats"]) == ("invoke_agent theirs", 1)
    await dead.drain(0)


async def test_call_of_a_living_gateway_is_waited_for(storage: Storage) -> None:
    class Beating(FakeClock):
        async def sleep(self, seconds: float) -> None:
            await storage.beat_gateway("gateway-1", at=self.now())
            await super().sleep(seconds)
            if len(self.slept) == 100:
                answer = build_answer(Outcome(CallReply(result="theirs")), at=self.now())
                await storage.finish_call(fence.task_id, "ask/-/1/1/1", answer, span=None)

    fence = await claim(storage)
    theirs = Outside()
    first = calls(storage, theirs, gateway="gateway-1")
    calling = asyncio.create_task(first.call(fence, ask(fence)))
    await theirs.started.wait()
    await storage.beat_gateway("gateway-1", at=NOW)
    outside = open_world()

    reply = await calls(storage, outside, gateway="gateway-2", clock=Beating()).call(fence, ask(fence))

    assert (reply.result, reply.replayed, outside.asked) == ("theirs", True, 0)
    await first.drain(0)
    await asyncio.gather(calling, return_exceptions=True)


async def test_drain_lets_calls_finish(storage: Storage) -> None:
    outside = Outside()
    made = calls(storage, outside)
    fence = await claim(storage)
    calling = asyncio.create_task(made.call(fence, ask(fence)))
    await outside.started.wait()
    draining = asyncio.create_task(made.drain(10))
    outside.go.set()
    await draining
    assert (await calling).result == "42"


async def test_drain_leaves_what_does_not_finish_as_an_intent(storage: Storage) -> None:
    outside = Outside()
    made = calls(storage, outside)
    fence = await claim(storage)
    calling = asyncio.create_task(made.call(fence, ask(fence)))
    await outside.started.wait()
    await made.drain(0.01)
    with pytest.raises(Unavailable, match="ending"):
        await calling
    record = await storage.get_call(fence.task_id, "ask/-/1/1/1")
    assert record is not None
    assert record.state is CallState.INTENT


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("made", [pytest.param(TOOL_CALL, id="tool"), pytest.param(CODE_CALL, id="program")])
async def test_call_lost_with_its_gateway(storage: Storage, made: dict[str, Any], *, idempotent: bool) -> None:
    clock = FakeClock()
    fence = await claim(storage)
    key = call_key(made["node"], None, 1, 1, 1)
    changes: dict[str, Any] = {"llm": None, "key": key, **made}
    lost = Outside()
    dead = calls(storage, lost, gateway="gateway-dead")
    dying = asyncio.create_task(dead.call(fence, ask(fence, **changes)))
    await lost.started.wait()
    await storage.beat_gateway("gateway-dead", at=clock.now())
    dying.cancel()
    outside = open_world(idempotent=idempotent)

    reply = await calls(storage, outside, gateway="gateway-2", clock=clock).call(fence, ask(fence, **changes))

    assert outside.asked == int(idempotent)
    assert (reply.error is None) is idempotent
    assert reply.error is None or (reply.error.reason, reply.error.retryable) == ("OutcomeUnknown", False)
    lost.go.set()
    await dead.drain(5)
    record = await storage.get_call(fence.task_id, key)
    assert record is not None
    assert record.answer is not None
    assert record.repeats == int(idempotent)
    assert ("error" in record.answer.reply) is not idempotent, "what the dead one says later changes nothing"
