"""Runs one task: what the scheduler wants is done here, and what came of it goes into the journal first.

Nothing is started before the entry that allows it is committed. Tries run side by side; whatever ended while an
append was on its way goes into the next one together.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any, Final, Literal, Protocol

from fairlead_agent.graph import (
    STOPPED,
    TIMEOUT,
    Graph,
    GraphError,
    Outcome,
    Schedule,
    Work,
    output_size,
    parse_graph,
)
from fairlead_agent.nodes import llm, tool
from fairlead_agent.nodes.base import NodeFailure, Request, Try
from fairlead_agent.protocol import (
    Call,
    CallReply,
    Entry,
    ErrorInfo,
    Kind,
    LlmRequest,
    LogLine,
    Progress,
    State,
    Task,
    ToolRequest,
    call_key,
)

ACTIONS: Final[Mapping[str, Callable[[Try], Awaitable[Any]]]] = {"llm": llm.run, "tool": tool.run}
"""What this agent can do, by the name of the node's action."""
MAX_BATCH: Final = 2 << 20
"""Bytes of outputs in one append; one entry may be larger."""
MAX_ENTRIES: Final = 500
DEFAULT_TIMEOUT: Final = 600.0
MAX_TIMEOUT: Final = 86_400.0
"""Seconds that the gateway waits for a call at most."""


class Fenced(Exception):
    """The task is no longer this pod's: drop it, write nothing more."""


class AppendRefused(Exception):
    """The journal does not take what was to be appended, and never will."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Port(Protocol):
    """The way out of the engine. `append` and `call` may raise `Fenced`."""

    async def append(self, first: int, entries: Sequence[Entry], progress: Progress | None) -> None:
        """Add entries to the journal; they are committed when this returns (`AppendRefused`: they will never be)."""

    async def call(self, call: Call) -> CallReply:
        """Have the gateway make a call."""

    def log(self, line: LogLine) -> None:
        """Add a line to the run's log, sooner or later."""

    async def flush(self) -> None:
        """Send the lines that wait, while the task is still ours."""


@dataclass(frozen=True, slots=True)
class _Done:
    """A try has ended."""

    work: Work
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class _End:
    """The run shall end, for this reason."""

    reason: str


_Event = _Done | _End | Fenced


class Execution:
    """One task on its way to its end.

    Args:
        now: the wall clock, in UTC.
    """

    def __init__(self, task: Task, *, port: Port, now: Callable[[], datetime]) -> None:
        self._task = task
        self._port = port
        self._now = now
        self._length = 0
        self._begun: set[str] = set()
        """Nodes that are started and not finished, by what is committed."""
        self._note(task.journal)
        self._events: asyncio.Queue[_Event] = asyncio.Queue()
        self._tries: dict[Work, asyncio.Task[None]] = {}

    def stop(self) -> None:
        """End the run as cancelled."""
        self._events.put_nowait(_End(STOPPED))

    async def run(self) -> Entry:
        """Do what is left of the task; return the entry that ended the run.

        Raises:
            Fenced: another attempt owns the task.
        """
        timer: asyncio.Task[None] | None = None
        try:
            schedule = self._replay(parse_graph(self._task.spec))
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
        except Exception as error:  # noqa: BLE001 - a bug must end the run, not hang it
            return await self._give_up("InternalError", "".join(traceback.format_exception_only(error)).strip())
        finally:
            await _cancel([*self._tries.values(), *([timer] if timer else [])])

    def _replay(self, graph: Graph) -> Schedule:
        run = self._task.run.model_dump(by_alias=True)
        schedule = Schedule(graph, inputs=self._task.inputs, run=run)
        for entry in self._task.journal:
            schedule.apply(entry)
        return schedule

    def _start_timer(self) -> asyncio.Task[None] | None:
        """Watch the run's deadline."""
        remaining = self._task.remaining_seconds
        if remaining is None:
            return None

        async def expire() -> None:
            await asyncio.sleep(max(0.0, remaining))
            self._events.put_nowait(_End(TIMEOUT))

        return asyncio.create_task(expire())

    async def _drive(self, schedule: Schedule) -> Entry:
        entries = schedule.advance(self._now())
        while True:
            await self._commit(entries, schedule)
            if schedule.ended is not None:
                return schedule.ended
            await self._follow(schedule)
            entries = []
            for event in await self._next_events():
                entries += self._react(schedule, event)
            entries += schedule.advance(self._now())

    def _react(self, schedule: Schedule, event: _Event) -> list[Entry]:
        match event:
            case _Done(work, outcome):
                self._tries.pop(work, None)
                return schedule.outcome(work, outcome, self._now())
            case _End(reason):
                return schedule.end(reason, self._now())
            case Fenced():
                raise event

    async def _next_events(self) -> list[_Event]:
        """Wait for an event; return it with all that happened meanwhile."""
        events = [await self._events.get()]
        while not self._events.empty():
            events.append(self._events.get_nowait())
        return events

    async def _follow(self, schedule: Schedule) -> None:
        """Start what should be under way, end what should not."""
        wanted = set(schedule.open.values())
        await _cancel([self._tries.pop(work) for work in list(self._tries) if work not in wanted])
        for work in schedule.open.values():
            if work not in self._tries:
                self._tries[work] = asyncio.create_task(self._try(schedule, work))

    async def _try(self, schedule: Schedule, work: Work) -> None:
        """Do one try and report how it ended."""
        if work.not_before is not None:
            await asyncio.sleep(max(0.0, (work.not_before - self._now()).total_seconds()))
        node = schedule.graph.nodes[work.node]
        limit = asyncio.timeout(node.timeout_seconds)
        try:
            async with limit:
                outcome = Outcome(await self._act(schedule, work))
        except NodeFailure as failure:
            outcome = Outcome(error=failure.error)
        except Fenced as fenced:
            self._events.put_nowait(fenced)
            return
        except Exception as error:  # noqa: BLE001 - a bug must fail the node, not hang the run
            if limit.expired():
                text = f"it took longer than its timeoutSeconds ({node.timeout_seconds})"
                outcome = Outcome(error=ErrorInfo(reason="Timeout", message=text))
            else:
                text = f"{type(error).__name__}: {error}"
                outcome = Outcome(error=ErrorInfo(reason="InternalError", message=text, retryable=False))
        self._events.put_nowait(_Done(work, outcome))

    async def _act(self, schedule: Schedule, work: Work) -> Any:
        node = schedule.graph.nodes[work.node]
        action = ACTIONS.get(node.action)
        if action is None:
            text = f'this agent cannot run the action "{node.action}"'
            raise NodeFailure(ErrorInfo(reason="NotSupported", message=text, retryable=False))
        sequence = count()

        async def send(request: Request) -> CallReply:
            return await self._port.call(self._call(work, request, next(sequence), node.timeout_seconds))

        return await action(Try(node, schedule.graph.model, schedule.scope(work.node, work.item), send))

    def _call(self, work: Work, request: Request, sequence: int, timeout: float | None) -> Call:
        is_llm = isinstance(request, LlmRequest)
        return Call(
            attempt=self._task.attempt,
            key=call_key(work.node, work.item, 1, work.try_number, sequence),
            digest=digest(request),
            action="llm" if is_llm else "tool",
            node=work.node,
            item=work.item,
            timeout_seconds=min(timeout or DEFAULT_TIMEOUT, MAX_TIMEOUT),
            llm=request if isinstance(request, LlmRequest) else None,
            tool=request if isinstance(request, ToolRequest) else None,
        )

    async def _commit(self, entries: Sequence[Entry], schedule: Schedule) -> None:
        for batch in batches(entries):
            ends = batch[-1].kind is Kind.RUN_FINISHED
            if ends:  # afterwards the task is nobody's, and its log takes no more lines
                self._report(batch)
                await self._port.flush()
            await self._port.append(self._length, batch, schedule.progress())
            self._note(batch)
            if not ends:
                self._report(batch)

    def _note(self, committed: Sequence[Entry]) -> None:
        self._length += len(committed)
        for entry in committed:
            if entry.kind is Kind.NODE_STARTED:
                self._begun.add(entry.node)
            elif entry.kind is Kind.NODE_FINISHED:
                self._begun.discard(entry.node)

    async def _give_up(self, reason: str, message: str) -> Entry:
        """End a run that cannot be run on, with every node that is not finished."""
        at, info = self._now(), ErrorInfo(reason=reason, message=message, retryable=False)
        entries = [
            Entry(kind=Kind.NODE_FINISHED, node=name, at=at, state=State.CANCELLED, reason=reason)
            for name in sorted(self._begun)
        ]
        entries.append(Entry(kind=Kind.RUN_FINISHED, at=at, state=State.FAILED, reason=reason, error=info))
        self._report(entries)
        await self._port.flush()
        await self._port.append(self._length, entries, None)
        return entries[-1]

    def _report(self, entries: Sequence[Entry]) -> None:
        """Tell people what was committed. The starts and good ends of items would be too many lines."""
        for entry in entries:
            text = describe(entry)
            if text:
                bad = entry.state is State.FAILED or entry.kind is Kind.TRY_FAILED
                level: Literal["info", "warning"] = "warning" if bad else "info"
                self._port.log(LogLine(at=entry.at, level=level, node=entry.node, text=text))


def describe(entry: Entry) -> str:
    """Return an entry as a line of the run's log, or nothing."""
    what = "" if entry.item is None else f"item {entry.item}: "
    why = f": {entry.error.message}" if entry.error else f" ({entry.reason})" if entry.reason else ""
    state = (entry.state or State.SUCCEEDED).value.lower()
    match entry.kind:
        case Kind.NODE_STARTED:
            return "started"
        case Kind.TRY_FAILED:
            return f"{what}try {entry.try_number} failed, there will be another{why}"
        case Kind.ITEM_FINISHED if entry.state is State.FAILED:
            return f"{what}{state}{why}"
        case Kind.NODE_FINISHED:
            return f"{state}{why}"
        case Kind.RUN_FINISHED:
            return f"run {state}{'' if entry.state is State.SUCCEEDED else why}"
        case _:
            return ""


def digest(request: Request) -> str:
    """Return the SHA-256 of a request as canonical JSON, in hexadecimal."""
    text = json.dumps(request.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def batches(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Cut *entries* into appends of bounded size."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        bytes_of_output = output_size(entry.output)
        if batch and (size + bytes_of_output > MAX_BATCH or len(batch) == MAX_ENTRIES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += bytes_of_output
    if batch:
        yield batch


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
