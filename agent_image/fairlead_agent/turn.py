"""Runs one turn's task: what an agent is asked to do, with its model and its tools, or by a graph of its own.

A turn waits for one thing at a time, a person's decision, and nothing else of it goes on meanwhile. So it is parked
there and then, and goes on by replay.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from fairlead_agent.conversation import Limits, Talk, answer, load, opening
from fairlead_agent.desk import Desk, Place
from fairlead_agent.failures import AppendRefused, Fenced, NodeFailure, failure
from fairlead_agent.graph import MAX_OUTPUT, output_size
from fairlead_agent.inbox import Inbox
from fairlead_agent.ledger import Ledger
from fairlead_agent.port import Port
from fairlead_agent.protocol import (
    RESUME,
    Entry,
    ErrorInfo,
    Kind,
    Park,
    Parked,
    State,
    Task,
    TurnInfo,
    Wait,
    WaitFor,
)


class _Away(Exception):
    """The task was parked."""


class TurnExecution:
    """One turn on its way to its end.

    Args:
        now: the wall clock, in UTC.
    """

    def __init__(self, task: Task, *, port: Port, now: Callable[[], datetime]) -> None:
        self._task = task
        self._turn = task.turn or TurnInfo(agent="", prompt="")
        self._port = port
        self._now = now
        self._ledger = Ledger(port, task.journal, node=self._turn.node)
        self._inbox = Inbox(task.signals)
        self._waited = {entry.wait.key for entry in task.journal if entry.wait is not None}
        self._going = asyncio.Event()
        self._calls = 0
        self._quiet = asyncio.Event()
        """Set while the run is suspended and no call is under way."""
        self._stopped = asyncio.Event()
        remaining = task.remaining_seconds
        self._deadline = None if remaining is None else now() + timedelta(seconds=remaining)
        self._parking = asyncio.Lock()
        self._parked = Parked(parked=False)
        if task.suspended:
            self._look_quiet()
        else:
            self._going.set()

    def stop(self) -> None:
        """End the turn as cancelled."""
        self._stopped.set()

    def suspend(self) -> None:
        """Send no more calls until `resume`."""
        self._going.clear()
        self._look_quiet()

    def resume(self) -> None:
        """Go on."""
        self._going.set()
        self._look_quiet()

    def _look_quiet(self) -> None:
        if self._calls or self._going.is_set():
            self._quiet.clear()
        else:
            self._quiet.set()

    async def run(self) -> Entry | None:
        """Do what is left of the turn; return the entry that ended it, or None when it was parked.

        Raises:
            Fenced: another attempt owns the task, or nobody waits for the turn any more.
        """
        last = self._task.journal[-1] if self._task.journal else None
        if last is not None and last.kind is Kind.TURN_FINISHED:
            return last
        working = asyncio.create_task(self._outcome())
        try:
            return await self._watch(working)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def _watch(self, working: asyncio.Task[Entry | None]) -> Entry | None:
        """Wait for the end, the wish to end, or a moment at which a suspended turn can be parked."""
        while True:
            quiet, stopped = asyncio.ensure_future(self._quiet.wait()), asyncio.ensure_future(self._stopped.wait())
            try:
                await asyncio.wait((working, quiet, stopped), return_when=asyncio.FIRST_COMPLETED)
            finally:
                quiet.cancel()
                stopped.cancel()
            if working.done():
                ended = working.result()
            elif self._stopped.is_set():
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
                error = ErrorInfo(reason="Stopped", message="the turn was stopped", retryable=False)
                ended = self._entry(State.CANCELLED, reason="Stopped", error=error)
            elif (await self._park(RESUME, "Suspended")).parked:
                return None
            else:
                self.resume()
                continue
            if ended is not None:
                await self._commit(ended)
            return ended

    async def _commit(self, ended: Entry) -> None:
        try:
            await self._ledger.commit([ended])
        except AppendRefused as refusal:
            error = ErrorInfo(reason=refusal.reason, message=str(refusal), retryable=False)
            await self._ledger.commit([self._entry(State.FAILED, reason=refusal.reason, error=error)])

    async def _outcome(self) -> Entry | None:
        """Do the work; return how the turn ends, or None when it was parked."""
        limit = asyncio.timeout(self._left())
        try:
            async with limit:
                output = bounded(await self._act())
        except _Away:
            return None
        except Fenced:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was must end the turn, not hang it
            info = self._error(error, expired=limit.expired())
            return self._entry(State.FAILED, reason=info.reason, error=info)
        return self._entry(State.SUCCEEDED, output=output)

    def _left(self) -> float | None:
        """Return the seconds that are left of the turn's time."""
        return None if self._deadline is None else max(0.0, (self._deadline - self._now()).total_seconds())

    def _error(self, error: Exception, *, expired: bool) -> ErrorInfo:
        if isinstance(error, NodeFailure):
            return error.error
        if isinstance(error, AppendRefused):
            return ErrorInfo(reason=error.reason, message=str(error), retryable=False)
        if expired:
            return ErrorInfo(reason="Timeout", message="the turn took longer than it may")
        text = f"{type(error).__name__}: {error}"
        if self._turn.graph:
            return ErrorInfo(reason="TurnFailed", message=f"{self._turn.graph} failed: {text}")
        return ErrorInfo(reason="InternalError", message=text, retryable=False)

    def _entry(self, state: State, **keys: Any) -> Entry:
        return Entry(kind=Kind.TURN_FINISHED, at=self._now(), state=state, **keys)

    async def _act(self) -> Any:
        turn, desk = self._turn, self._desk()
        if turn.graph:
            own = await load("fairlead_agent.owngraph")
            saved = [entry.output for entry in self._task.journal if entry.kind is Kind.CHECKPOINT]
            return await own.play(turn, desk, saved=saved, save=self._save)
        talk = Talk(
            model=turn.model,
            messages=opening(turn.prompt, system=turn.instructions),
            output=turn.output,
            tools=turn.tools,
            limits=Limits(turns=turn.max_turns, tool_calls=turn.max_tool_calls, tokens=turn.max_tokens),
        )
        return await answer(talk, desk)

    def _desk(self) -> Desk:
        turn = self._turn
        return Desk(
            port=self._port,
            attempt=self._task.attempt,
            place=Place(turn.node, turn.item, turn.iteration),
            tools=self._task.tools,
            wait=self._signal,
            timeout_seconds=self._left(),
            admitted=self._admitted,
        )

    @asynccontextmanager
    async def _admitted(self) -> AsyncIterator[None]:
        """Let a call through unless the run is suspended."""
        await self._going.wait()
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            self._look_quiet()

    async def _save(self, output: Any) -> None:
        """Commit what a checkpointer wrote."""
        await self._ledger.commit([Entry(kind=Kind.CHECKPOINT, at=self._now(), output=output)])

    async def _signal(self, wait: Wait) -> Mapping[str, Any]:
        if wait.key not in self._inbox and wait.key not in self._waited:
            await self._ledger.commit([Entry(kind=Kind.WAITING, at=self._now(), node=self._turn.node, wait=wait)])
            self._waited.add(wait.key)
        while wait.key not in self._inbox:
            if (await self._park(wait.key, WaitFor.APPROVAL.value)).parked:
                raise _Away
        return await self._inbox.get(wait.key)

    async def _park(self, key: str, reason: str) -> Parked:
        """Give the task back until a signal comes; nobody does it twice."""
        async with self._parking:
            if not self._parked.parked:
                await self._port.flush()
                park = Park(attempt=self._task.attempt, keys=(key,), wake_seconds=self._left(), reason=reason)
                self._parked = await self._port.park(park)
                for signal in self._parked.signals:
                    self._inbox.put(signal)
            return self._parked


def bounded(output: Any) -> Any:
    """Return an answer that can be kept.

    Raises:
        NodeFailure: ``OutputInvalid``, ``OutputTooLarge``.
    """
    try:
        size = output_size(output)
    except ValueError as error:
        raise failure("OutputInvalid", f"the answer cannot be kept: {error}") from None
    if size > MAX_OUTPUT:
        raise failure("OutputTooLarge", f"the answer takes {size} bytes, at most {MAX_OUTPUT} are kept")
    return output
