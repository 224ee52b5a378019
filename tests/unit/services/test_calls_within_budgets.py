"""Calls that budgets limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.clock import SystemClock
from fairlead.errors import TerminalError
from fairlead.services.outcomes import Outcome
from fairlead.services.tasks import TaskContext
from fairlead.services.wakeups import Wakeups
from fairlead.storage import Storage
from fairlead.storage.base import BudgetLine, CallState, Reservation
from fairlead.testing.clock import FakeClock
from fairlead.testing.outside import Outside, ask, calls, claim, open_world, queued_run
from fairlead_agent.protocol import (
    CallReply,
    LlmRequest,
    Usage,
)


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    async with queued_run(tmp_path) as opened:
        yield opened


def reservation(*, limit: int, output: int = 100) -> Reservation:
    """Return what a call may take at worst: 10 tokens of input and *output*, of a budget of *limit* tokens."""
    line = BudgetLine("run/run-1", "", max_tokens=limit, name="the run's budget")
    return Reservation((line,), input_tokens=10, input_cost=0, output_tokens=output, least_output_tokens=50)


async def test_call_is_granted_what_the_budget_leaves(storage: Storage) -> None:
    outside = open_world(reservation=reservation(limit=70))
    fence = await claim(storage)
    reply = await calls(storage, outside).call(fence, ask(fence))
    assert (reply.error, outside.granted) == (None, 60)


async def test_call_over_budget_is_not_sent_and_says_what_was_spent(storage: Storage) -> None:
    used = Outcome(CallReply(usage=Usage(input_tokens=10, output_tokens=45)), cost=0, priced=True)
    outside = open_world(answer=used, reservation=reservation(limit=60))
    fence = await claim(storage)
    made = calls(storage, outside)
    await made.call(fence, ask(fence))

    reply = await made.call(fence, ask(fence, key="ask/-/1/1/2"))

    assert reply.error is not None
    assert (reply.error.reason, reply.error.retryable, outside.asked) == ("BudgetExceeded", False, 1)
    assert "55 tokens of 60 tokens" in reply.error.message
    assert await storage.get_call(fence.task_id, "ask/-/1/1/2") is None


async def test_call_waits_while_calls_in_flight_hold_the_budget(storage: Storage) -> None:
    used = Outcome(CallReply(result="42", usage=Usage(input_tokens=1)), cost=0, priced=True)
    outside = Outside(answer=used, reservation=reservation(limit=61))
    fence = await claim(storage)
    wakeups = Wakeups(storage, SystemClock(), "budget")
    listening = asyncio.create_task(wakeups.run())
    made = calls(storage, outside, wakeups=wakeups)
    first = asyncio.create_task(made.call(fence, ask(fence)))
    await outside.started.wait()
    second = asyncio.create_task(made.call(fence, ask(fence, key="ask/-/1/1/2")))
    await asyncio.wait((second,), timeout=0.2)
    assert (second.done(), outside.asked) == (False, 1)

    outside.go.set()

    assert [(await asyncio.wait_for(calling, 20)).result for calling in (first, second)] == ["42", "42"]
    listening.cancel()


async def test_call_waits_for_its_budget_no_longer_than_it_has_time(storage: Storage) -> None:
    outside = Outside(reservation=reservation(limit=61))
    fence = await claim(storage)
    made = calls(storage, outside)
    first = asyncio.create_task(made.call(fence, ask(fence)))
    await outside.started.wait()
    late = await made.call(fence, ask(fence, key="ask/-/1/1/2", timeout_seconds=0.2))
    assert late.error is not None
    assert (late.error.reason, outside.asked) == ("BudgetExceeded", 1)
    assert "reserved by calls in flight" in late.error.message
    outside.go.set()
    await first


@pytest.mark.parametrize(("limit", "asked", "spent"), [(120, 1, 63), (119, 0, 60)])
async def test_call_lost_with_its_gateway_is_repeated_only_if_the_budget_allows_both(
    storage: Storage, limit: int, asked: int, spent: int
) -> None:
    clock = FakeClock()
    fence = await claim(storage)
    worst = reservation(limit=limit, output=50)
    lost = Outside(reservation=worst)
    dead = calls(storage, lost, gateway="gateway-dead")
    dying = asyncio.create_task(dead.call(fence, ask(fence)))
    await lost.started.wait()
    await storage.beat_gateway("gateway-dead", at=clock.now())
    dying.cancel()
    outside = open_world(reservation=worst)

    reply = await calls(storage, outside, gateway="gateway-2", clock=clock).call(fence, ask(fence))

    assert (reply.error is None, outside.asked) == (bool(asked), asked)
    assert reply.error is None or (reply.error.reason, reply.error.retryable) == ("BudgetExceeded", False)
    (line,) = await storage.spent(worst.lines)
    assert (line.tokens, line.reserved_tokens) == (spent, 0)
    record = await storage.get_call(fence.task_id, "ask/-/1/1/1")
    assert record is not None
    assert (record.state, record.repeats) == (CallState.DONE, asked)
    await dead.drain(0)


@pytest.mark.parametrize(
    ("outside", "changes", "spent"),
    [
        pytest.param(Outside, {"timeout_seconds": 0.5}, 60, id="timed-out"),
        pytest.param(lambda: open_world(answer=ValueError("?")), {}, 60, id="broke"),
        pytest.param(lambda: open_world(answer=TerminalError("no")), {}, 0, id="refused"),
    ],
)
async def test_call_that_nobody_saw_answered_counts_at_its_worst(
    storage: Storage, outside: Any, changes: dict[str, Any], spent: int
) -> None:
    world = outside()
    world.reservation = reservation(limit=1000, output=50)
    fence = await claim(storage)
    reply = await calls(storage, world).call(fence, ask(fence, **changes))
    assert reply.error is not None
    (line,) = await storage.spent(world.reservation.lines)
    assert (line.tokens, line.reserved_tokens) == (spent, 0)


async def test_call_that_is_answered_needs_no_price_any_more(storage: Storage) -> None:
    class Forgetful(Outside):
        def reserve(self, context: TaskContext, request: LlmRequest) -> Reservation | None:
            del context, request
            if self.asked:
                raise TerminalError("nobody knows the price", reason="PriceUnknown")
            return None

    outside = Forgetful()
    outside.go.set()
    fence = await claim(storage)
    made = calls(storage, outside)
    first, second = await made.call(fence, ask(fence)), await made.call(fence, ask(fence))
    assert (first.result, second.result, second.replayed, outside.asked) == ("42", "42", True, 1)


async def test_call_whose_budget_cannot_be_kept_is_not_sent(storage: Storage) -> None:
    class Unpriced(Outside):
        def reserve(self, context: TaskContext, request: LlmRequest) -> Reservation | None:
            del context, request
            raise TerminalError("nobody knows the price", reason="PriceUnknown")

    outside = Unpriced()
    fence = await claim(storage)
    reply = await calls(storage, outside).call(fence, ask(fence))
    assert reply.error is not None
    assert (reply.error.reason, reply.error.retryable, outside.asked) == ("PriceUnknown", False, 0)
