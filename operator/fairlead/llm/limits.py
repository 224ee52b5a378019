"""Keeps what is sent to a model below so many requests and tokens in a minute, first come, first served.

In any 60 seconds no more is sent than allowed, by this gateway process: with several gateways each allows as much. How
many tokens a call takes is known when it is over; until then it counts as its input and a usual answer have.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from fairlead.clock import Clock
from fairlead.errors import RetryableError
from fairlead.llm.base import TokenUsage

_WINDOW: Final = 60.0
_MEMORY: Final = 4
"""The usual answer is about the mean of so many."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What is allowed in a minute; None: any number."""

    requests: int | None
    tokens: int | None


@dataclass(slots=True)
class Ticket:
    """A place in time for one request."""

    at: float
    tokens: int


class RateLimiter:
    """Gives each request the earliest time that the limits leave for it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tickets: deque[Ticket] = deque()
        """In the order of their times; those over a minute ago are dropped."""
        self._usual = 0.0

    async def wait(self, rate: Rate, tokens: int, *, deadline: float) -> Ticket:
        """Wait until a request with so many tokens of input may be sent; `settle` the ticket once the answer is there.

        *deadline* is on the clock's monotonic time.

        Raises:
            RetryableError: with reason ``RateLimited``: its time is after the deadline.
        """
        ticket = self._place(rate, tokens + round(self._usual))
        pause = ticket.at - self._clock.monotonic()
        if ticket.at > deadline:
            raise RetryableError(
                f"the Model's rateLimit leaves no room for this call in time; there is room in {pause:.0f} s",
                reason="RateLimited",
                retry_after=pause,
            )
        self._tickets.append(ticket)
        if pause > 0:
            try:
                await self._clock.sleep(pause)
            except BaseException:
                self._tickets.remove(ticket)
                raise
        return ticket

    def settle(self, ticket: Ticket, usage: TokenUsage) -> None:
        """Count what a request really took."""
        ticket.tokens = usage.input_tokens + usage.output_tokens
        self._usual += (usage.output_tokens - self._usual) / _MEMORY

    def _place(self, rate: Rate, tokens: int) -> Ticket:
        now = self._clock.monotonic()
        while self._tickets and self._tickets[0].at <= now - _WINDOW:
            self._tickets.popleft()
        at = max(now, self._tickets[-1].at) if self._tickets else now
        count = len(self._tickets)
        total = sum(ticket.tokens for ticket in self._tickets)
        for ticket in self._tickets:
            if ticket.at > at - _WINDOW:
                if _fits(rate, count, total + tokens):
                    break
                at = ticket.at + _WINDOW
            count -= 1
            total -= ticket.tokens
        return Ticket(at, tokens)


def _fits(rate: Rate, earlier: int, tokens: int) -> bool:
    return (rate.requests is None or earlier < rate.requests) and (rate.tokens is None or tokens <= rate.tokens)
