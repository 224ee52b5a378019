"""Wakes those who wait for something on the event bus."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Final

from fairlead.clock import Clock
from fairlead.errors import RetryableError
from fairlead.logs import get_logger
from fairlead.storage.base import Storage

_log = get_logger(__name__)
_RETRY_SECONDS: Final = 1.0


class Wakeups:
    """One subscription for the whole process; whoever waits for a key is woken by an event of that key."""

    def __init__(self, storage: Storage, clock: Clock, *topics: str) -> None:
        self._storage = storage
        self._clock = clock
        self._topics = topics
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._closed = False

    async def run(self) -> None:
        """Listen until cancelled; a lost bus is subscribed to again, and everybody looks for himself meanwhile."""
        while True:
            try:
                async for event in self._storage.subscribe(*self._topics):
                    self._wake(event.key)
            except RetryableError as error:
                _log.warning("bus_lost", error=str(error))
            self._wake_all()
            await self._clock.sleep(_RETRY_SECONDS)

    def arm(self, key: str) -> asyncio.Future[None]:
        """Return what is done when the next event of *key* comes: arm first, then look, then wait."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_result(None)
        else:
            self._waiting[key].add(future)
        return future

    def disarm(self, key: str, future: asyncio.Future[None]) -> None:
        """Forget a wait."""
        future.cancel()
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.discard(future)
            if not waiting:
                del self._waiting[key]

    def close(self) -> None:
        """Wake everybody, now and from now on."""
        self._closed = True
        self._wake_all()

    def _wake(self, key: str) -> None:
        for future in self._waiting.pop(key, ()):
            if not future.done():
                future.set_result(None)

    def _wake_all(self) -> None:
        for key in list(self._waiting):
            self._wake(key)
