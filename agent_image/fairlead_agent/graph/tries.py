"""What is under way: the tries that the engine runs, and the times that something waits for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from heapq import heappop, heappush
from itertools import count

from fairlead_agent.graph.frame import Work
from fairlead_agent.protocol import Wait


@dataclass(frozen=True, slots=True)
class Changes:
    """What the engine should do since it asked last."""

    begin: tuple[Work, ...] = ()
    """Run these tries, or look them up."""
    end: tuple[tuple[Work, Wait | None], ...] = ()
    """Give these up; with what they waited for."""


class Tries:
    """The current try of every node and item that is under way."""

    def __init__(self) -> None:
        self.current: dict[tuple[str, str | None], Work] = {}
        self.open: dict[Work, None] = {}
        """Those that the engine has under way."""
        self.waits: dict[Work, Wait] = {}
        """Of the open ones: what they wait for."""
        self.delayed: set[Work] = set()
        """Those that a pause holds back."""
        self._times: dict[Work, datetime] = {}
        self._heap: list[tuple[datetime, int, Work]] = []
        self._sequence = count()
        self._by_key: dict[str, Work] = {}
        self._begun: dict[Work, None] = {}
        self._ended: list[tuple[Work, Wait | None]] = []

    def begin(self, work: Work, *, by_engine: bool) -> None:
        """Let a try be under way."""
        self.forget_time(work)
        self.delayed.discard(work)
        self.current[work.key] = work
        if by_engine:
            self.open[work] = None
            self._begun[work] = None

    def delay(self, work: Work, until: datetime) -> None:
        """Let a try begin at a time."""
        self.current[work.key] = work
        self.delayed.add(work)
        self.set_time(work, until)

    def wait(self, work: Work, wait: Wait) -> None:
        """Take note of what an open try waits for."""
        self.woken(self.waits[work].key if work in self.waits else "")
        self.waits[work] = wait
        self._by_key[wait.key] = work
        if wait.until is not None:
            self.set_time(work, wait.until)

    def woken(self, key: str) -> None:
        """Let the try that waits for a signal go on."""
        work = self._by_key.pop(key, None)
        if work is not None:
            self.waits.pop(work, None)
            self.forget_time(work)

    def close(self, key: tuple[str, str | None]) -> Work | None:
        """Forget what is under way of a node or item."""
        work = self.current.pop(key, None)
        if work is None:
            return None
        wait = self.waits.pop(work, None)
        if wait is not None:
            self._by_key.pop(wait.key, None)
        self.forget_time(work)
        self.delayed.discard(work)
        if work in self.open:
            del self.open[work]
            if work in self._begun:
                del self._begun[work]
            else:
                self._ended.append((work, wait))
        return work

    def reported(self, work: Work) -> None:
        """Take note that the engine has ended a try by itself."""
        self.open.pop(work, None)
        self._begun.pop(work, None)

    def clear(self) -> None:
        """Forget everything."""
        for key in list(self.current):
            self.close(key)

    def changes(self) -> Changes:
        """Return what has changed since the last call."""
        changes = Changes(tuple(self._begun), tuple(self._ended))
        self._begun, self._ended = {}, []
        return changes

    def has_time(self, work: Work) -> bool:
        """Return whether a time is set for a try."""
        return work in self._times

    def set_time(self, work: Work, when: datetime) -> None:
        """Have `take_due` give *work* at a time."""
        self._times[work] = when
        heappush(self._heap, (when, next(self._sequence), work))

    def take_due(self, at: datetime) -> tuple[Work, datetime] | None:
        """Take out something that its time has come for."""
        when = self.wake_at
        if when is None or when > at:
            return None
        work = heappop(self._heap)[2]
        del self._times[work]
        return work, when

    @property
    def wake_at(self) -> datetime | None:
        """The next time that something waits for."""
        while self._heap:
            when, _, work = self._heap[0]
            if self._times.get(work) == when:
                return when
            heappop(self._heap)
        return None

    def forget_time(self, work: Work) -> None:
        """Let a try wait for no time any more."""
        self._times.pop(work, None)
