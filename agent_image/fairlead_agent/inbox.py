"""The signals of one task: what has come, and who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from fairlead_agent.protocol import Signal


class Inbox:
    """Keeps the first signal of each key."""

    def __init__(self, signals: Iterable[Signal]) -> None:
        self._known: dict[str, Mapping[str, Any]] = {}
        self._arrived: dict[str, asyncio.Event] = {}
        for signal in signals:
            self.put(signal)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def put(self, signal: Signal) -> bool:
        """Take a signal; return whether it is news."""
        if signal.key in self._known:
            return False
        self._known[signal.key] = signal.value
        self._event(signal.key).set()
        return True

    async def get(self, key: str) -> Mapping[str, Any]:
        """Wait for a signal."""
        await self._event(key).wait()
        return self._known[key]

    def _event(self, key: str) -> asyncio.Event:
        return self._arrived.setdefault(key, asyncio.Event())
