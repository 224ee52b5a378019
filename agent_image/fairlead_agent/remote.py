"""The engine's port over HTTPS, for one task."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Final, TypeVar

from fairlead_agent.client import Gateway, GatewayRefusal, SessionOver
from fairlead_agent.failures import AppendRefused, Fenced, NodeFailure
from fairlead_agent.logs import write
from fairlead_agent.protocol import (
    Append,
    AskApproval,
    AwaitSignals,
    CacheAnswer,
    CacheLookup,
    Call,
    CallReply,
    CancelTurns,
    Entry,
    ErrorInfo,
    LogLine,
    Logs,
    Park,
    Parked,
    Progress,
    Signal,
    StartTurn,
    Task,
)

FLUSH_SECONDS: Final = 0.5
MAX_WAITING: Final = 5_000
MAX_SENT: Final = 500
_SERVER_ERROR: Final = 500
T = TypeVar("T")


class TaskPort:
    """The engine's `Port`, over HTTPS."""

    def __init__(self, gateway: Gateway, task: Task) -> None:
        self._gateway = gateway
        self._task = task
        self._lines: deque[LogLine] = deque(maxlen=MAX_WAITING)
        self._sending: tuple[LogLine, ...] = ()
        """Lines that may have arrived; sent again, as the same, until there is an answer."""
        self._sent = 0
        self._flushing = asyncio.Lock()

    async def append(self, first: int, entries: Sequence[Entry], progress: Progress | None) -> bool:
        """Add entries to the journal, which are committed when this returns: True if the run is to be cancelled."""
        message = Append(attempt=self._task.attempt, first=first, entries=tuple(entries), progress=progress)
        try:
            return (await self._gateway.append(self._task.id, message)).cancel
        except SessionOver as error:
            raise Fenced(str(error)) from None
        except GatewayRefusal as refusal:
            raise AppendRefused(refusal.problem.reason, refusal.problem.message) from None

    async def call(self, call: Call) -> CallReply:
        """Have the gateway make a call; a refusal fails the try."""
        try:
            return await _granted(self._gateway.call(self._task.id, call))
        except NodeFailure as refusal:
            return CallReply(error=refusal.error)

    async def ask(self, question: AskApproval) -> None:
        """Have a person decide."""
        await _granted(self._gateway.ask(self._task.id, question))

    async def start_turn(self, turn: StartTurn) -> None:
        """Hand a task to an agent."""
        await _granted(self._gateway.start_turn(self._task.id, turn))

    async def cancel_turns(self, turns: CancelTurns) -> None:
        """End turns that nobody waits for any more."""
        await _granted(self._gateway.cancel_turns(self._task.id, turns))

    async def signals(self, wanted: AwaitSignals) -> tuple[Signal, ...]:
        """Wait for signals."""
        return (await _granted(self._gateway.signals(self._task.id, wanted))).signals

    async def park(self, park: Park) -> Parked:
        """Give the task back until it can go on."""
        return await _granted(self._gateway.park(self._task.id, park))

    async def cached(self, lookup: CacheLookup) -> CacheAnswer:
        """Look for a result of the same work."""
        return await _granted(self._gateway.cached(self._task.id, lookup))

    def log(self, line: LogLine) -> None:
        """Show a line in the pod's log and queue it for the run's; the oldest go when there are too many."""
        run = self._task.run
        keys = {"namespace": run.namespace, "run": run.name, "node": line.node, "text": line.text}
        write("node" if line.node else "run", level=line.level, **keys)
        self._lines.append(line)

    async def flush(self) -> None:
        """Send the lines that wait. They are for people: what cannot be delivered is given up."""
        async with self._flushing:
            while self._sending or self._lines:
                if not self._sending:
                    self._sending = tuple(self._lines.popleft() for _ in range(min(len(self._lines), MAX_SENT)))
                await self._send_lines()
                self._sent += len(self._sending)
                self._sending = ()

    async def _send_lines(self) -> None:
        message = Logs(attempt=self._task.attempt, first=self._sent, lines=self._sending)
        try:
            await self._gateway.log(self._task.id, message)
        except (Fenced, SessionOver, GatewayRefusal) as error:
            write("log_lines_lost", level="warning", lines=len(self._sending), why=str(error))

    async def flush_now_and_then(self) -> None:
        """Send lines until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()


async def _granted(request: Awaitable[T]) -> T:
    """Return the answer; make the engine's errors of the client's."""
    try:
        return await request
    except SessionOver as error:
        raise Fenced(str(error)) from None
    except GatewayRefusal as refusal:
        problem, retryable = refusal.problem, refusal.status >= _SERVER_ERROR
        raise NodeFailure(ErrorInfo(reason=problem.reason, message=problem.message, retryable=retryable)) from None
