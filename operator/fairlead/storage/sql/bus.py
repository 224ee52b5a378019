"""Hands events to who listens in this process. How they get here from another process is the database's affair."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Collection, Iterable

from fairlead.storage.base import Event

_MAX_WAITING = 10_000


class Subscription(AsyncIterator[Event]):
    """Events of some topics, from the moment it was made. What waits twice is given once."""

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics = frozenset(topics)
        self._waiting: dict[Event, None] = {}
        self._woken = asyncio.Event()
        self._closed = False

    def offer(self, event: Event) -> None:
        """Take an event, if it is of its topics. When far too many wait, the oldest is dropped."""
        if self._closed or (self._topics and event.topic not in self._topics):
            return
        if len(self._waiting) >= _MAX_WAITING and event not in self._waiting:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[event] = None
        self._woken.set()

    def close(self) -> None:
        """End the iteration."""
        self._closed = True
        self._woken.set()

    async def aclose(self) -> None:
        """End the iteration."""
        self.close()

    async def __anext__(self) -> Event:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._woken.clear()
            await self._woken.wait()
        event = next(iter(self._waiting))
        del self._waiting[event]
        return event


class Hub:
    """Everyone who listens in this process. Whoever forgets a subscription has ended it."""

    def __init__(self) -> None:
        self._subscriptions: weakref.WeakSet[Subscription] = weakref.WeakSet()

    def subscribe(self, topics: Iterable[str]) -> Subscription:
        """Return a new subscription to *topics*; none: to all."""
        subscription = Subscription(topics)
        self._subscriptions.add(subscription)
        return subscription

    def tell(self, events: Collection[Event]) -> None:
        """Give events to who listens."""
        for subscription in self._subscriptions:
            for event in events:
                subscription.offer(event)

    def close(self) -> None:
        """End every subscription."""
        for subscription in list(self._subscriptions):
            subscription.close()
