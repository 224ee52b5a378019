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
ANY: Final = ""
"""The key for whoever waits for any event of a topic."""
_Place = tuple[str, str]


class Wakeups:
    """One subscription for the whole process; whoever waits for a topic and key is woken by an event of them."""

    def __init__(self, storage: Storage, clock: Clock, *topics: str) -> None:
        self._storage = storage
        self._clock = clock
        self._topics = topics
        self._waiting: defaultdict[_Place, set[asyncio.Future[None]]] = defaultdict(set)
        self._closed = False

    async def run(self) -> None:
        """Listen until cancelled; a lost bus is subscribed to again, and everybody looks for himself meanwhile."""
        while True:
            try:
                async for event in self._storage.subscribe(*self._topics):
                    self._wake((event.topic, event.key))
                    self._wake((event.topic, ANY))
            except RetryableError as error:
                _log.warning("bus_lost", error=str(error))
            self._wake_all()
            await self._clock.sleep(_RETRY_SECONDS)

    def arm(self, topic: str, key: str = ANY) -> asyncio.Future[None]:
        """Return what is done when the next such event comes: arm first, then look, then wait."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_result(None)
        else:
            self._waiting[topic, key].add(future)
        return future

    def disarm(self, future: asyncio.Future[None], topic: str, *, key: str = ANY) -> None:
        """Forget a wait."""
        future.cancel()
        waiting = self._waiting.get((topic, key))
        if waiting is not None:
            waiting.discard(future)
            if not waiting:
                del self._waiting[topic, key]

    @property
    def closed(self) -> bool:
        """Whether nobody is to wait any more."""
        return self._closed

    def close(self) -> None:
        """Wake everybody, now and from now on."""
        self._closed = True
        self._wake_all()

    def _wake(self, place: _Place) -> None:
        for future in self._waiting.pop(place, ()):
            if not future.done():
                future.set_result(None)

    def _wake_all(self) -> None:
        for place in list(self._waiting):
            self._wake(place)
