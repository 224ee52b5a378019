"""Asks a model again where that may help: rate limits, server errors, lost connections."""

from __future__ import annotations

import asyncio
from typing import Final

from fairlead.clock import Clock
from fairlead.errors import RetryableError
from fairlead.llm.base import ChatModel, ChatRequest, Completion
from fairlead.logs import get_logger

_log = get_logger(__name__)
_MAX_SECONDS: Final = 60.0


class Retrying:
    """A model that is asked up to *retries* times more; a provider's ``Retry-After`` is kept to."""

    def __init__(self, model: ChatModel, clock: Clock, *, retries: int) -> None:
        self._model = model
        self._clock = clock
        self._retries = retries

    async def complete(self, request: ChatRequest) -> Completion:
        """Return the answer; the last failure is raised when all tries failed."""
        for failed in range(self._retries):
            try:
                return await self._once(request)
            except RetryableError as error:
                seconds = min(max(error.retry_after, min(2.0**failed, 30.0)), _MAX_SECONDS)
                if error.retry_after > _MAX_SECONDS:
                    raise
                _log.info("model_retry", reason=error.reason, failed=failed + 1, seconds=seconds)
                await self._clock.sleep(seconds)
        return await self._once(request)

    async def _once(self, request: ChatRequest) -> Completion:
        try:
            async with asyncio.timeout(request.timeout_seconds):
                return await self._model.complete(request)
        except TimeoutError as error:
            text = f"the model did not answer within {request.timeout_seconds:g} s"
            raise RetryableError(text, reason="Timeout", retry_after=1.0) from error
