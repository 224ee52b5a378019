"""Tasks that wait: for signals while something else goes on, or parked, without a pod, until they may go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Final

from fairlead.clock import Clock
from fairlead.errors import RetryableError
from fairlead.logs import get_logger
from fairlead.services.wakeups import Wakeups
from fairlead.storage.base import Fence, Storage
from fairlead.storage.base import Signal as Kept
from fairlead_agent.protocol import RESUME, AwaitSignals, Park, Parked, Signal, Signals

_log = get_logger(__name__)
TOPIC: Final = "signal"
_LOOK_AGAIN_SECONDS: Final = 5.0
_WAKE_SECONDS: Final = 1.0
_LEAST_PAUSE_SECONDS: Final = 0.02
_DROP_SECONDS: Final = 600.0
_MAX_WAKE_SECONDS: Final = 10 * 366 * 86_400.0


class Waiting:
    """Tells tasks what they wait for, and parks those that only wait."""

    def __init__(self, storage: Storage, clock: Clock, wakeups: Wakeups) -> None:
        self._storage = storage
        self._clock = clock
        self._wakeups = wakeups
        self.closing = False
        """Set while the process ends: nobody is kept waiting."""

    async def signals(self, fence: Fence, request: AwaitSignals, *, gone: Callable[[], Awaitable[bool]]) -> Signals:
        """Return those of the asked-for signals that have come; wait for the first one, but no longer than asked.

        Raises:
            Fenced: the claim is over.
        """
        deadline = self._clock.monotonic() + request.wait_seconds
        wanted = frozenset(request.keys)
        while True:
            armed = self._wakeups.arm(TOPIC, fence.task_id)
            try:
                found = await self._come(fence, wanted)
                left = deadline - self._clock.monotonic()
                if found or left <= 0 or self.closing or await gone():
                    return Signals(signals=tuple(found))
                await asyncio.wait((armed,), timeout=min(left, _LOOK_AGAIN_SECONDS))
            finally:
                self._wakeups.disarm(armed, TOPIC, key=fence.task_id)

    async def park(self, fence: Fence, request: Park) -> Parked:
        """Take back a task that only waits; it goes on when a signal or its time comes.

        Raises:
            Fenced: the claim is over.
        """
        now = self._clock.now()
        wake_at = None
        if request.wake_seconds is not None:
            wake_at = now + timedelta(seconds=min(request.wake_seconds, _MAX_WAKE_SECONDS))
        there = await self._storage.park(
            fence, keys=request.keys, wake_at=wake_at, reason=request.reason[:64] or "Time", at=now
        )
        if there:
            return Parked(parked=False, signals=tuple(show_signals(there)))
        _log.info("task_parked", task=fence.task_id, attempt=fence.attempt, reason=request.reason[:64])
        return Parked(parked=True)

    async def run(self) -> None:
        """Wake what is due, until cancelled. Every gateway does this: whoever is first, does it for all."""
        drop_at = self._clock.monotonic()
        while True:
            pause = _WAKE_SECONDS
            try:
                pause = await self._wake()
                if self._clock.monotonic() >= drop_at:
                    await self._storage.drop_expired(at=self._clock.now())
                    drop_at = self._clock.monotonic() + _DROP_SECONDS
            except RetryableError as error:
                _log.warning("waiting_not_looked_at", error=str(error))
            await self._clock.sleep(pause)

    async def _wake(self) -> float:
        """Wake what is due; return how long nothing else is."""
        now = self._clock.now()
        soonest = await self._storage.wake(at=now)
        if soonest is None:
            return _WAKE_SECONDS
        return min(max((soonest - now).total_seconds(), _LEAST_PAUSE_SECONDS), _WAKE_SECONDS)

    async def _come(self, fence: Fence, wanted: frozenset[str]) -> list[Signal]:
        task = await self._storage.check_fence(fence)
        found = show_signals(one for one in await self._storage.signals_of_task(fence.task_id) if one.key in wanted)
        if RESUME in wanted:
            run = await self._storage.get_run(task.run_uid)
            if run is not None and not run.suspended:
                found.append(Signal(key=RESUME, value={}))
        return found


def show_signals(signals: Iterable[Kept]) -> list[Signal]:
    """Return signals as they are on the wire."""
    return [Signal(key=one.key, value=dict(one.value)) for one in signals]
