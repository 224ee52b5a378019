"""The work queue: order, exclusion, delay, back-off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from fairlead.clock import SystemClock
from fairlead.errors import Unavailable
from fairlead.services.objects import Key
from fairlead.services.workqueue import WorkQueue

A, B = Key("Workflow", "a"), Key("Workflow", "b")


@asynccontextmanager
async def working(process: Callable[[Key], Awaitable[float | None]], workers: int = 2) -> AsyncIterator[WorkQueue]:
    queue = WorkQueue(process, SystemClock())
    task = asyncio.create_task(queue.run(workers))
    try:
        async with asyncio.timeout(20):
            yield queue
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_add_twice_before_the_turn_is_one_turn() -> None:
    seen: list[Key] = []
    done = asyncio.Event()

    async def process(key: Key) -> None:
        seen.append(key)
        if key == B:
            done.set()

    async with working(process, workers=1) as queue:
        await queue.add(A, 0.02)
        await queue.add(A, 0.01)
        await queue.add(B, 0.05)
        await done.wait()
    assert seen == [A, B]


async def test_add_an_earlier_time_wins_over_a_later_one() -> None:
    seen = asyncio.Event()

    async def process(_: Key) -> None:
        seen.set()

    async with working(process) as queue:
        await queue.add(A, 3600)
        await queue.add(A)
        await seen.wait()


async def test_add_while_it_is_worked_on_is_one_more_turn_and_never_two_at_once() -> None:
    running, turns = 0, 0
    began, go, twice = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def process(_: Key) -> None:
        nonlocal running, turns
        running += 1
        assert running == 1
        turns += 1
        began.set()
        await go.wait()
        running -= 1
        if turns == 2:
            twice.set()

    async with working(process, workers=4) as queue:
        await queue.add(A)
        await began.wait()
        await queue.add(A)
        await queue.add(A)
        go.set()
        await twice.wait()
        assert len(queue) == 0
    assert turns == 2


async def test_add_a_slow_key_does_not_hold_up_another() -> None:
    never, done = asyncio.Event(), asyncio.Event()

    async def process(key: Key) -> None:
        if key == A:
            await never.wait()
        done.set()

    async with working(process) as queue:
        await queue.add(A)
        await queue.add(B)
        await done.wait()


async def test_add_again_while_it_is_worked_on_does_not_hold_up_what_is_due_before_a_third() -> None:
    never, busy, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def process(key: Key) -> None:
        if key == A:
            busy.set()
            await never.wait()
        done.set()

    async with working(process) as queue:
        await queue.add(A)
        await busy.wait()
        for key, seconds in ((A, 0), (Key("Pod", "late"), 100), (B, 0.05)):
            await queue.add(key, seconds)
        async with asyncio.timeout(10):
            await done.wait()


async def test_work_is_repeated_when_it_says_so() -> None:
    turns = 0
    done = asyncio.Event()

    async def process(_: Key) -> float | None:
        nonlocal turns
        turns += 1
        if turns < 3:
            return 0.01
        done.set()
        return None

    async with working(process) as queue:
        await queue.add(A)
        await done.wait()
    assert turns == 3


async def test_work_that_fails_is_tried_again_and_stops_nobody() -> None:
    errors: list[Exception] = [Unavailable("later", retry_after=0.01), ValueError("a bug")]
    done, other = asyncio.Event(), asyncio.Event()

    async def process(key: Key) -> None:
        if key == B:
            other.set()
        elif errors:
            raise errors.pop(0)
        else:
            done.set()

    async with working(process, workers=1) as queue:
        await queue.add(A)
        await queue.add(B)
        await other.wait()
        await done.wait()
    assert errors == []
