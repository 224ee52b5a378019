"""Runs one run's task: what the scheduler wants is done here, and what came of it goes into the journal first.

Nothing is started before the entry that allows it is committed. Tries run side by side; whatever ended while an
append was on its way goes into the next one together. A task that only waits is parked: it goes on by replay.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from fairlead_agent.desk import Desk, Place, digest
from fairlead_agent.failures import AppendRefused, Fenced, NodeFailure
from fairlead_agent.graph import STOPPED, TIMEOUT, GraphError, Idle, Lookup, Outcome, Schedule, Work
from fairlead_agent.inbox import Inbox
from fairlead_agent.ledger import Ledger, batches, describe
from fairlead_agent.nodes import agent, approval, code, llm, tool
from fairlead_agent.nodes.base import Try
from fairlead_agent.port import Port
from fairlead_agent.protocol import (
    RESUME,
    AwaitSignals,
    CacheAnswer,
    CacheLookup,
    CancelTurns,
    Entry,
    ErrorInfo,
    Kind,
    Park,
    Signal,
    State,
    Task,
    Wait,
    WaitFor,
)

__all__ = ["ACTIONS", "CAPABILITIES", "AppendRefused", "Execution", "Fenced", "Port", "batches", "describe", "digest"]

ACTIONS: Final[Mapping[str, Callable[[Try], Awaitable[Any]]]] = {
    "agent": agent.run,
    "approval": approval.run,
    "code": code.run,
    "llm": llm.run,
    "tool": tool.run,
}
"""What this agent can do, by the name of the node's action."""
CAPABILITIES: Final = tuple(sorted((*ACTIONS, "wait", "workflow")))
LEAST_PARK: Final = 5.0
"""Seconds: what comes sooner is waited for."""
LISTEN_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class _Done:
    """A try has ended."""

    work: Work
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class _LookedUp:
    """A lookup in the cache is answered."""

    work: Work
    answer: CacheAnswer


@dataclass(frozen=True, slots=True)
class _Waits:
    """A try waits for a signal from here on."""

    work: Work
    wait: Wait


@dataclass(frozen=True, slots=True)
class _Came:
    """Signals have come."""

    signals: tuple[Signal, ...]


@dataclass(frozen=True, slots=True)
class _End:
    """The run shall end, for this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Suspend:
    """The run is suspended, or goes on."""

    suspended: bool


@dataclass(frozen=True, slots=True)
class _Broken:
    """Nothing more can be done here."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class _Tick:
    """A time has come."""


_Event = _Done | _LookedUp | _Waits | _Came | _End | _Suspend | _Broken | _Tick


class Execution:
    """One run on its way to its end.

    Args:
        now: the wall clock, in UTC.
    """

    def __init__(self, task: Task, *, port: Port, now: Callable[[], datetime]) -> None:
        self._task = task
        self._port = port
        self._now = now
        self._ledger = Ledger(port, task.journal)
        self._inbox = Inbox(task.signals)
        self._events: asyncio.Queue[_Event] = asyncio.Queue()
        self._tries: dict[Work, asyncio.Task[None]] = {}
        self._turns: dict[Work, str] = {}
        """The key of the turn that a try has asked for."""
        remaining = task.remaining_seconds
        self._deadline = None if remaining is None else now() + timedelta(seconds=remaining)
        self._listener: asyncio.Task[None] | None = None
        self._heard: frozenset[str] = frozenset()
        """What `_listener` listens for."""

    def stop(self) -> None:
        """End the run as cancelled."""
        self._events.put_nowait(_End(STOPPED))

    def suspend(self) -> None:
        """Start nothing more until `resume`."""
        self._events.put_nowait(_Suspend(suspended=True))

    def resume(self) -> None:
        """Go on."""
        self._events.put_nowait(_Suspend(suspended=False))

    async def run(self) -> Entry | None:
        """Do what is left of the task; return the entry that ended the run, or None when it was parked.

        Raises:
            Fenced: another attempt owns the task.
        """
        timer: asyncio.TimerHandle | None = None
        try:
            schedule = Schedule.of(self._task)
            if schedule.ended is not None:
                return schedule.ended
            timer = self._start_timer()
            return await self._drive(schedule)
        except Fenced:
            raise
        except GraphError as error:
            return await self._give_up("InvalidGraph", str(error))
        except AppendRefused as refusal:
            return await self._give_up(refusal.reason, str(refusal))
        except NodeFailure as refusal:
            return await self._give_up(refusal.error.reason, str(refusal))
        except Exception as error:  # noqa: BLE001 - a bug must end the run, not hang it
            return await self._give_up("InternalError", "".join(traceback.format_exception_only(error)).strip())
        finally:
            if timer is not None:
                timer.cancel()
            await _cancel([*self._tries.values(), *([self._listener] if self._listener else [])])

    def _start_timer(self) -> asyncio.TimerHandle | None:
        """Watch the run's deadline."""
        remaining = self._task.remaining_seconds
        if remaining is None:
            return None
        loop = asyncio.get_running_loop()
        return loop.call_later(max(0.0, remaining), self._events.put_nowait, _End(TIMEOUT))

    async def _drive(self, schedule: Schedule) -> Entry | None:
        entries = schedule.end(STOPPED, self._now()) if self._task.cancel else []
        entries += schedule.advance(self._now())
        while True:
            while entries and await self._ledger.commit(entries, schedule.progress()):
                entries = schedule.end(STOPPED, self._now())  # before anything more is begun
            if schedule.ended is not None:  # its turns have ended with it
                return schedule.ended
            await self._follow(schedule)
            idle = schedule.idle()
            if idle is not None and self._events.empty() and await self._parked(schedule, idle):
                return None
            self._listen(schedule, idle)
            entries = []
            for event in await self._next_events(schedule.wake_at):
                entries += self._react(schedule, event)
            entries += schedule.advance(self._now())

    def _react(self, schedule: Schedule, event: _Event) -> list[Entry]:
        match event:
            case _Done(work, outcome):
                self._tries.pop(work, None)
                self._turns.pop(work, None)
                return schedule.outcome(work, outcome, self._now())
            case _LookedUp(work, answer):
                self._tries.pop(work, None)
                return schedule.looked_up(work, answer, self._now())
            case _Waits(work, wait):
                return [] if wait.key in self._inbox else schedule.waiting(work, wait, self._now())
            case _Came(signals):
                self._take(schedule, signals)
            case _End(reason):
                return schedule.end(reason, self._now())
            case _Suspend(suspended):
                schedule.suspended = suspended
            case _Broken(error):
                raise error
            case _Tick():
                pass
        return []

    def _take(self, schedule: Schedule, signals: Iterable[Signal]) -> None:
        for signal in signals:
            if signal.key == RESUME:
                schedule.suspended = False
            elif self._inbox.put(signal):
                schedule.woken(signal.key)

    async def _next_events(self, wake_at: datetime | None) -> list[_Event]:
        """Wait for an event, a time's too; return it with all that happened meanwhile."""
        timer: asyncio.TimerHandle | None = None
        if wake_at is not None and self._events.empty():
            seconds = max(0.0, (wake_at - self._now()).total_seconds())
            timer = asyncio.get_running_loop().call_later(seconds, self._events.put_nowait, _Tick())
        try:
            events = [await self._events.get()]
        finally:
            if timer is not None:
                timer.cancel()
        while not self._events.empty():
            events.append(self._events.get_nowait())
        return events

    async def _follow(self, schedule: Schedule) -> None:
        """Start what should be under way, end what should not."""
        changes = schedule.changes()
        if changes.end:
            await _cancel([self._tries.pop(work) for work, _ in changes.end if work in self._tries])
            asked = [self._turns.pop(work, "") for work, _ in changes.end]
            waited = [wait.key for _, wait in changes.end if wait is not None and wait.kind is WaitFor.TURN]
            keys = tuple(key for key in dict.fromkeys((*asked, *waited)) if key and key not in self._inbox)
            if keys:
                await self._port.cancel_turns(CancelTurns(attempt=self._task.attempt, keys=keys))
        for work in changes.begin:
            started = self._try(schedule, work) if work.lookup is None else self._look_up(work, work.lookup)
            self._tries[work] = asyncio.create_task(started)

    async def _parked(self, schedule: Schedule, idle: Idle) -> bool:
        """Give the task back if it has to wait for long; return whether it was."""
        times = [idle.wake_at, self._deadline if schedule.ending is None else None]
        wake_at = min((time for time in times if time is not None), default=None)
        seconds = None if wake_at is None else (wake_at - self._now()).total_seconds()
        if seconds is not None and seconds < LEAST_PARK:
            return False
        await self._port.flush()
        attempt, reason = self._task.attempt, idle.reason
        answer = await self._port.park(Park(attempt=attempt, keys=idle.keys, wake_seconds=seconds, reason=reason))
        if answer.signals:
            self._events.put_nowait(_Came(answer.signals))
        return answer.parked

    def _listen(self, schedule: Schedule, idle: Idle | None) -> None:
        """Listen for every signal that a try waits for."""
        if idle is None and not schedule.waits and not self._heard:
            return
        keys = {wait.key for wait in schedule.waits.values() if wait.key}
        wanted = frozenset(keys | set(idle.keys if idle else ()))
        if wanted == self._heard and (not wanted or (self._listener and not self._listener.done())):
            return
        if self._listener is not None:
            self._listener.cancel()
        self._heard = wanted
        self._listener = asyncio.create_task(self._hear(tuple(sorted(wanted)))) if wanted else None

    async def _hear(self, keys: tuple[str, ...]) -> None:
        """Report the first signals of *keys*."""
        try:
            signals: tuple[Signal, ...] = ()
            while not signals:
                wanted = AwaitSignals(attempt=self._task.attempt, keys=keys, wait_seconds=LISTEN_SECONDS)
                signals = await self._port.signals(wanted)
        except (Fenced, NodeFailure) as error:
            self._events.put_nowait(_Broken(error))
        else:
            self._events.put_nowait(_Came(signals))

    async def _look_up(self, work: Work, lookup: Lookup) -> None:
        message = CacheLookup(
            attempt=self._task.attempt, node=work.node, digest=lookup.digest, max_age_seconds=lookup.max_age_seconds
        )
        try:
            answer = await self._port.cached(message)
        except NodeFailure:  # a cache that does not answer is an empty one
            answer = CacheAnswer()
        except Fenced as fenced:
            self._events.put_nowait(_Broken(fenced))
            return
        self._events.put_nowait(_LookedUp(work, answer))

    async def _try(self, schedule: Schedule, work: Work) -> None:
        """Do one try and report how it ended."""
        timeout = schedule.node(work).timeout_seconds
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                outcome = Outcome(await self._act(schedule, work, limit))
        except NodeFailure as failure:
            outcome = Outcome(error=failure.error)
        except Fenced as fenced:
            self._events.put_nowait(_Broken(fenced))
            return
        except Exception as error:  # noqa: BLE001 - a bug must fail the node, not hang the run
            if limit.expired():
                text = f"it took longer than its timeoutSeconds ({timeout})"
                outcome = Outcome(error=ErrorInfo(reason="Timeout", message=text))
            else:
                text = f"{type(error).__name__}: {error}"
                outcome = Outcome(error=ErrorInfo(reason="InternalError", message=text, retryable=False))
        self._events.put_nowait(_Done(work, outcome))

    async def _act(self, schedule: Schedule, work: Work, limit: asyncio.Timeout) -> Any:
        node = schedule.node(work)

        async def wait(wanted: Wait) -> Mapping[str, Any]:
            return await self._signal(work, wanted, limit)

        desk = Desk(
            port=self._port,
            attempt=self._task.attempt,
            place=Place(work.node, work.item, work.iteration, work.try_number),
            tools=self._task.tools,
            wait=wait,
            timeout_seconds=node.timeout_seconds,
            external=self._task.external,
        )
        until = None if node.timeout_seconds is None else self._now() + timedelta(seconds=node.timeout_seconds)
        return await ACTIONS[node.action](Try(node, schedule.model(work), schedule.scope(work), desk, until))

    async def _signal(self, work: Work, wait: Wait, limit: asyncio.Timeout) -> Mapping[str, Any]:
        """Wait for a signal. That time does not count: nobody has to decide within a node's ``timeoutSeconds``."""
        if wait.kind is WaitFor.TURN:
            self._turns[work] = wait.key
        if wait.key in self._inbox:
            return await self._inbox.get(wait.key)
        self._events.put_nowait(_Waits(work, wait))
        loop, when = asyncio.get_running_loop(), limit.when()
        left = None if when is None else when - loop.time()
        limit.reschedule(None)
        value = await self._inbox.get(wait.key)
        limit.reschedule(None if left is None else loop.time() + left)
        return value

    async def _give_up(self, reason: str, message: str) -> Entry:
        """End a run that cannot be run on, with every node that is not finished."""
        at, info = self._now(), ErrorInfo(reason=reason, message=message, retryable=False)
        entries = [
            Entry(kind=Kind.NODE_FINISHED, node=node, iteration=iteration, at=at, state=State.CANCELLED, reason=reason)
            for node, iteration in self._ledger.begun
        ]
        entries.append(Entry(kind=Kind.RUN_FINISHED, at=at, state=State.FAILED, reason=reason, error=info))
        await self._ledger.commit(entries)
        return entries[-1]


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
