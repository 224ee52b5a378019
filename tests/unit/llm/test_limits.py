from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.errors import RetryableError
from fairlead.llm.limits import Rate, RateLimiter, Ticket
from fairlead.testing.clock import FakeClock

FAR = 1e9


async def test_wait_first_come_first_served() -> None:
    clock = FakeClock()
    limiter = RateLimiter(clock)
    start = clock.monotonic()
    tickets = await asyncio.gather(*(limiter.wait(Rate(2, None), 0, deadline=FAR) for _ in range(5)))
    assert [ticket.at - start for ticket in tickets] == [0, 0, 60, 60, 120]


async def test_wait_beyond_the_deadline_is_told_at_once_and_takes_no_place() -> None:
    clock = FakeClock()
    limiter = RateLimiter(clock)
    await limiter.wait(Rate(1, None), 0, deadline=FAR)
    clock.advance(18)
    for _ in range(3):
        with pytest.raises(RetryableError, match="room in 42 s") as failed:
            await limiter.wait(Rate(1, None), 0, deadline=clock.monotonic() + 10)
    assert (failed.value.reason, failed.value.retry_after, clock.slept) == ("RateLimited", 42, [])


async def test_wait_who_gives_up_makes_room() -> None:
    waits = asyncio.Event()

    class Waits(FakeClock):
        async def sleep(self, seconds: float) -> None:
            self.slept.append(seconds)
            waits.set()
            await asyncio.Event().wait()

    clock = Waits()
    limiter = RateLimiter(clock)
    await limiter.wait(Rate(1, None), 0, deadline=FAR)
    waiting = asyncio.create_task(limiter.wait(Rate(1, None), 0, deadline=FAR))
    await waits.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    clock.advance(60)
    assert (await limiter.wait(Rate(1, None), 0, deadline=FAR)).at == clock.monotonic()


async def test_wait_more_than_a_minute_allows_goes_alone() -> None:
    clock = FakeClock()
    limiter = RateLimiter(clock)
    await limiter.wait(Rate(None, 100), 10, deadline=FAR)
    await limiter.wait(Rate(None, 100), 500, deadline=FAR)
    assert clock.slept == [60.0]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 60)), min_size=1, max_size=40),
    st.integers(1, 5),
    st.integers(30, 60),
)
def test_wait_no_minute_ever_has_more(calls: list[tuple[int, int]], requests: int, tokens: int) -> None:
    async def play() -> list[Ticket]:
        clock = FakeClock()
        limiter = RateLimiter(clock)
        tickets = []
        for size, pause in calls:
            clock.advance(pause)
            tickets.append(await limiter.wait(Rate(requests, tokens), size, deadline=FAR))
        return tickets

    tickets = asyncio.run(play())
    for ticket in tickets:
        minute = [other for other in tickets if ticket.at <= other.at < ticket.at + 60]
        assert len(minute) <= requests
        assert sum(other.tokens for other in minute) <= tokens
