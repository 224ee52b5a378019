"""What the engine sees of the gateway, for one task."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from fairlead_agent.client import Gateway, GatewayRefusal, SessionOver
from fairlead_agent.engine import AppendRefused, Fenced
from fairlead_agent.logs import write
from fairlead_agent.protocol import Append, Call, CallReply, Entry, ErrorInfo, LogLine, Logs, Progress, Task

FLUSH_SECONDS: Final = 0.5
MAX_WAITING: Final = 5_000
MAX_SENT: Final = 500
_SERVER_ERROR: Final = 500


class TaskPort:
    """The engine's `Port`, over HTTPS."""

    def __init__(self, gateway: Gateway, task: Task) -> None:
        self._gateway = gateway
        self._task = task
        self._lines: deque[LogLine] = deque(maxlen=MAX_WAITING)

    async def append(self, first: int, entries: Sequence[Entry], progress: Progress | None) -> None:
        """Add entries to the journal; they are committed when this returns."""
        message = Append(attempt=self._task.attempt, first=first, entries=tuple(entries), progress=progress)
        try:
            await self._gateway.append(self._task.id, message)
        except SessionOver as error:
            raise Fenced(str(error)) from None
        except GatewayRefusal as refusal:
            raise AppendRefused(refusal.problem.reason, refusal.problem.message) from None

    async def call(self, call: Call) -> CallReply:
        """Have the gateway make a call; a refusal fails the try."""
        try:
            return await self._gateway.call(self._task.id, call)
        except SessionOver as error:
            raise Fenced(str(error)) from None
        except GatewayRefusal as refusal:
            problem, retryable = refusal.problem, refusal.status >= _SERVER_ERROR
            return CallReply(error=ErrorInfo(reason=problem.reason, message=problem.message, retryable=retryable))

    def log(self, line: LogLine) -> None:
        """Show a line in the pod's log and queue it for the run's; the oldest go when there are too many."""
        run = self._task.run
        keys = {"namespace": run.namespace, "run": run.name, "node": line.node, "text": line.text}
        write("node" if line.node else "run", level=line.level, **keys)
        self._lines.append(line)

    async def flush(self) -> None:
        """Send the lines that wait. They are for people: what cannot be delivered is given up."""
        while self._lines:
            lines = tuple(self._lines.popleft() for _ in range(min(len(self._lines), MAX_SENT)))
            try:
                await self._gateway.log(self._task.id, Logs(attempt=self._task.attempt, lines=lines))
            except (Fenced, SessionOver, GatewayRefusal) as error:
                write("log_lines_lost", level="warning", lines=len(lines), why=str(error))

    async def flush_now_and_then(self) -> None:
        """Send lines until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()
