"""Whatever runs at the same time, no budget line is ever over its limit, and every sum is exact in the end."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairlead.storage import Storage
from fairlead.storage.base import (
    BudgetLine,
    CallAnswer,
    Fence,
    Fenced,
    OverBudget,
    Reservation,
    RunEnd,
    RunState,
    Spent,
)
from fairlead.testing.storage import NOW, make_intent, start_run

LINES = (
    BudgetLine("model/fast", "2026-01", max_cost=1000),
    BudgetLine("workflow/triage", "2026-01-02", max_tokens=300),
    BudgetLine("agent/engineer", "", max_cost=400, max_tokens=500),
    BudgetLine("workflow/free", "2026-01"),
)
RUNS = 3
_examples = itertools.count()


@dataclass(frozen=True)
class Asked:
    """A call: what it reserves, and how much of what it was granted it then uses; None: nobody ever answers it."""

    run: int
    worst: Reservation
    used: float | None


reservations = st.builds(
    Reservation,
    lines=st.sets(st.sampled_from(range(len(LINES)))).map(lambda chosen: tuple(LINES[number] for number in chosen)),
    input_tokens=st.integers(0, 40),
    input_cost=st.integers(0, 150),
    output_tokens=st.integers(0, 80),
    least_output_tokens=st.integers(1, 10),
    output_token_cost=st.integers(0, 6),
)
calls = st.builds(Asked, run=st.integers(0, RUNS - 1), worst=reservations, used=st.none() | st.floats(0, 1))


class Spender:
    """Makes calls and looks, whenever something changed, that no line is over its limit."""

    def __init__(self, storages: tuple[Storage, Storage], fences: list[Fence]) -> None:
        self.storages = storages
        self.fences = fences
        self.example = next(_examples)
        self.lines = self.own(LINES)
        self.expected: dict[BudgetLine, Counter[str]] = {line: Counter() for line in self.lines}

    def own(self, lines: tuple[BudgetLine, ...]) -> tuple[BudgetLine, ...]:
        """Return lines that no other example uses."""
        return tuple(replace(line, scope=line.scope.replace("/", f"/{self.example}/")) for line in lines)

    async def spend(self, number: int, asked: Asked) -> None:
        storage, fence = self.storages[number % 2], self.fences[asked.run]
        key = f"{self.example}-{number}"
        worst = replace(asked.worst, lines=self.own(asked.worst.lines))
        try:
            begun = await storage.begin_call(
                fence, make_intent(key, f"run-{asked.run}", target="fast", reservation=worst)
            )
        except OverBudget:
            return
        granted = begun.granted_output_tokens
        assert granted is not None
        assert min(worst.least_output_tokens, worst.output_tokens) <= granted <= worst.output_tokens
        await self.look()
        if asked.used is None:
            self.expect(worst, granted, "reserved_")
            return
        out = int(granted * asked.used)
        cost, _ = worst.worst(out)
        answer = CallAnswer({}, NOW, input_tokens=worst.input_tokens, output_tokens=out, cost=cost)
        await storage.finish_call(fence.task_id, key, answer, span=None)
        self.expect(worst, out, "")
        await self.look()

    def expect(self, worst: Reservation, out: int, how: str) -> None:
        cost, tokens = worst.worst(out)
        for line in worst.lines:
            self.expected[line].update({f"{how}cost": cost, f"{how}tokens": tokens})

    async def look(self) -> list[Spent]:
        found = await self.storages[0].spent(self.lines)
        for spent in found:
            cost, tokens = spent.cost + spent.reserved_cost, spent.tokens + spent.reserved_tokens
            assert spent.line.max_cost is None or cost <= spent.line.max_cost, spent
            assert spent.line.max_tokens is None or tokens <= spent.line.max_tokens, spent
        return found

    async def check_sums(self) -> None:
        for spent in await self.look():
            sums = self.expected[spent.line]
            names = ("cost", "tokens", "reserved_cost", "reserved_tokens")
            assert {name: getattr(spent, name) for name in names} == {name: sums[name] for name in names}


@pytest.fixture
async def fences(storage: Storage) -> list[Fence]:
    return [await start_run(storage, f"run-{number}") for number in range(RUNS)]


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(asked=st.lists(calls, min_size=2, max_size=24))
async def test_parallel_reservations_never_overshoot(
    storage: Storage, other: Storage, fences: list[Fence], asked: list[Asked]
) -> None:
    spender = Spender((storage, other), fences)

    await asyncio.gather(*(spender.spend(number, one) for number, one in enumerate(asked)))

    await spender.check_sums()


async def test_parallel_reservations_of_one_line_use_it_up_and_no_more(
    storage: Storage, other: Storage, fences: list[Fence]
) -> None:
    line = BudgetLine("model/fast", "2026-01", max_cost=1000)
    worst = Reservation((line,), input_tokens=1, input_cost=10, output_tokens=4, output_token_cost=5)

    async def begin(number: int) -> int:
        intent = make_intent(f"k{number}", f"run-{number % RUNS}", target="fast", reservation=worst)
        try:
            begun = await (storage, other)[number % 2].begin_call(fences[number % RUNS], intent)
        except OverBudget:
            return 0
        assert begun.granted_output_tokens is not None
        return worst.worst(begun.granted_output_tokens)[0]

    reserved = await asyncio.gather(*(begin(number) for number in range(60)))

    # 33 calls take 30 each; the last 10 would pay for input alone, which is less than makes sense.
    assert sorted(reserved, reverse=True) == [30] * 33 + [0] * 27
    assert await storage.spent([line]) == [Spent(line, 0, 0, 990, 33 * 5)]


async def test_ends_of_runs_while_calls_begin_and_finish_leave_nothing_reserved(
    storage: Storage, other: Storage, fences: list[Fence]
) -> None:
    line = BudgetLine("model/fast", "2026-01")
    worst = Reservation((line,), input_tokens=1, input_cost=10, output_tokens=4, output_token_cost=5)
    keys = [f"k{number}" for number in range(8)]
    for fence, key in itertools.product(fences, keys[:4]):
        uid = fence.task_id.removesuffix("-task")
        await storage.begin_call(fence, make_intent(key, uid, target="fast", reservation=worst))

    async def finish(fence: Fence, key: str) -> None:
        await other.finish_call(fence.task_id, key, CallAnswer({}, NOW, 1, 0, cost=10), span=None)

    async def begin(fence: Fence, key: str) -> None:
        uid = fence.task_id.removesuffix("-task")
        await storage.begin_call(fence, make_intent(key, uid, target="fast", reservation=worst))

    end = RunEnd(RunState.CANCELLED, "Stopped", "", None, NOW)

    async def stop(fence: Fence) -> None:
        await storage.end_run(fence.task_id.removesuffix("-task"), end)

    work = [begin(fence, key) for fence, key in itertools.product(fences, keys[4:])]
    work += [finish(fence, key) for fence, key in itertools.product(fences, keys[:2])]
    work += [stop(fence) for fence in fences]
    refused = [error for error in await asyncio.gather(*work, return_exceptions=True) if error is not None]
    assert all(isinstance(error, Fenced) for error in refused), refused

    made = [call for number in range(RUNS) for call in await storage.calls_of_run(f"run-{number}")]
    for call in made:
        await other.finish_call(call.intent.task_id, call.intent.key, CallAnswer({}, NOW, 1, 0, cost=10), span=None)
    assert await storage.spent([line]) == [Spent(line, 10 * len(made), len(made), 0, 0)]
    assert len(made) >= RUNS * 4
