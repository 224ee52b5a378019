"""A work queue: each key at most once at a time, delays, and back-off for what failed."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from fairlead.clock import Clock
from fairlead.errors import RetryableError
from fairlead.logs import get_logger
from fairlead.services.objects import Key

_log = get_logger(__name__)
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 300.0
_LONGEST_WAIT: Final = 30.0
"""For what is known to pass: a server that does not answer."""
Process = Callable[[Key], Awaitable[float | None]]
"""Brings one object to where it should be; returns in how many seconds to look again, if time alone may change it."""


class WorkQueue:
    """Feeds keys to workers. A key that is added while it is worked on is worked on once more afterwards."""

    def __init__(self, process: Process, clock: Clock) -> None:
        self._process = process
        self._clock = clock
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._order = itertools.count()
        self._active: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._turn = asyncio.Lock()
        """Held by the one worker that looks out for all: the others are woken when they are needed."""
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due)

    async def add(self, key: Key, delay: float = 0) -> None:
        """Have *key* looked at in *delay* seconds, or earlier if that is wanted already."""
        due = self._clock.monotonic() + delay
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._heap, (due, next(self._order), key))
            self._changed.set()

    async def run(self, workers: int) -> None:
        """Work for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = await self._take()
            try:
                await self._do(key)
            finally:
                self._active.discard(key)
                self._changed.set()

    async def _take(self) -> Key:
        async with self._turn:
            while True:
                self._changed.clear()
                key, wait = self._next()
                if key is not None:
                    self._active.add(key)
                    return key
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._changed.wait()

    def _next(self) -> tuple[Key | None, float | None]:
        """Return the key whose turn it is, or how long until there may be one."""
        now = self._clock.monotonic()
        held = []
        found: Key | None = None
        while self._heap and found is None:
            due, _, key = self._heap[0]
            if self._due.get(key) != due:
                heapq.heappop(self._heap)  # it was added again for an earlier time
            elif due > now:
                break
            elif key in self._active:
                held.append(heapq.heappop(self._heap))
            else:
                heapq.heappop(self._heap)
                del self._due[key]
                found = key
        later = self._heap[0][0] if self._heap else None  # of what is held, a worker tells when it is done
        for entry in held:
            heapq.heappush(self._heap, entry)
        return found, None if later is None else max(later - now, 0)

    async def _do(self, key: Key) -> None:
        try:
            again = await self._process(key)
        except RetryableError as error:
            await self.add(key, max(error.retry_after, min(self._pause(key), _LONGEST_WAIT)))
        except Exception:  # noqa: BLE001 - a mistake about one object must not stop the others
            _log.exception("reconcile_failed", kind=key.kind, uid=key.uid)
            await self.add(key, self._pause(key))
        else:
            self._failures.pop(key, None)
            if again is not None:
                await self.add(key, max(again, 0.01))

    def _pause(self, key: Key) -> float:
        self._failures[key] = self._failures.get(key, 0) + 1
        return float(min(_FIRST_PAUSE * 2 ** (self._failures[key] - 1), _LONGEST_PAUSE))
