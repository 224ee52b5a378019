"""Asks a model again where that may help: rate limits, server errors, lost connections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from fairlead.clock import Clock
from fairlead.errors import FairleadError, RetryableError
from fairlead.llm.answers import estimated_usage
from fairlead.llm.base import AnswerLost, ChatModel, ChatRequest, Completion, TokenUsage
from fairlead.llm.breaker import Breaker
from fairlead.llm.limits import Rate, RateLimiter
from fairlead.logs import get_logger

_log = get_logger(__name__)
PATIENCE_SECONDS: Final = 60.0
"""What a provider may ask to wait within a call."""
_MAX_BACKOFF: Final = 30.0


@dataclass(frozen=True, slots=True)
class Care:
    """How a model is asked.

    Args:
        jitter: gives numbers from 0 to 1.
        patience: what is waited for at most between two tries, in seconds.
    """

    breaker: Breaker
    limiter: RateLimiter
    jitter: Callable[[], float]
    rate: Rate | None = None
    retries: int = 2
    patience: float = PATIENCE_SECONDS


class Retrying:
    """Asks a model for one answer, never faster than its provider, its rate limit and its circuit breaker allow."""

    def __init__(self, model: ChatModel, clock: Clock, care: Care) -> None:
        self._model = model
        self._clock = clock
        self._care = care
        self._asked = 0

    async def complete(self, request: ChatRequest, *, deadline: float) -> Completion:
        """Return the answer; the last failure is raised when all tries failed.

        *deadline* is on the clock's monotonic time.
        """
        lost: tuple[TokenUsage, ...] = ()
        failed = 0
        while True:
            try:
                done = await self._once(request, deadline)
            except AnswerLost as failure:
                error, lost = failure.error, (*lost, *failure.lost)
            except FairleadError as failure:
                error = failure
            else:
                return replace(done, tries=self._asked, lost=lost)
            pause = self._pause(error, failed, deadline)
            if pause is None or not may_go_on(request, lost):
                told = error.within(f"after {self._asked} tries") if self._asked > 1 else error
                raise AnswerLost(told, *lost) if lost else told
            failed += 1
            _log.info("model_retry", reason=error.reason, failed=failed, seconds=round(pause, 3))
            await self._clock.sleep(pause)

    def _pause(self, error: FairleadError, failed: int, deadline: float) -> float | None:
        """Return how long to wait before the next try, or None where there is none."""
        if not isinstance(error, RetryableError) or failed >= self._care.retries:
            return None
        pause = error.retry_after + self._care.jitter() * min(2.0**failed, _MAX_BACKOFF)
        if error.retry_after > self._care.patience or self._clock.monotonic() + pause >= deadline:
            return None
        return pause

    async def _once(self, request: ChatRequest, deadline: float) -> Completion:
        care = self._care
        care.breaker.check()
        ticket = None
        if care.rate is not None:
            ticket = await care.limiter.wait(care.rate, estimated_usage(request).input_tokens, deadline=deadline)
        care.breaker.enter()
        self._asked += 1
        seconds = max(min(request.timeout_seconds, deadline - self._clock.monotonic()), 0.0)
        try:
            done = await self._model.complete(replace(request, timeout_seconds=seconds))
        except (AnswerLost, FairleadError) as failure:
            error = failure.error if isinstance(failure, AnswerLost) else failure
            if error.reason == "Timeout" and seconds < request.timeout_seconds:
                care.breaker.left()  # it was not given its time
            else:
                care.breaker.failed(error)
            raise
        except BaseException:
            care.breaker.left()
            raise
        care.breaker.succeeded()
        if ticket is not None:
            care.limiter.settle(ticket, done.usage)
        return done


def may_go_on(request: ChatRequest, lost: Sequence[TokenUsage]) -> bool:
    """Whether another try may be made: what a budget granted was for one answer, and a lost one has used of it."""
    return request.granted_output_tokens is None or not lost
