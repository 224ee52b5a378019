"""Writes a task's journal: in order, in batches of bounded size, with a line of log for what people care about."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from fairlead_agent.graph import MAX_OUTPUT, output_size
from fairlead_agent.port import Port
from fairlead_agent.protocol import Entry, Kind, LogLine, Progress, State, WaitFor

MAX_BATCH: Final = 2 << 20
"""Bytes of outputs in one append; one entry may be larger."""
MAX_ENTRIES: Final = 500
_FEW: Final = MAX_BATCH // MAX_OUTPUT
_ENDS: Final = (Kind.RUN_FINISHED, Kind.TURN_FINISHED)


class Ledger:
    """The journal of one task.

    Args:
        journal: what is committed so far.
        node: what log lines without a node of their own are about.
    """

    def __init__(self, port: Port, journal: Sequence[Entry], *, node: str = "") -> None:
        self._port = port
        self._node = node
        self._length = len(journal)
        self._lock = asyncio.Lock()
        self._begun: dict[tuple[str, int], None] = {}
        self._note(journal)

    @property
    def begun(self) -> list[tuple[str, int]]:
        """Nodes, with their iteration, that are started and not finished, by what is committed."""
        return sorted(self._begun)

    async def commit(self, entries: Sequence[Entry], progress: Progress | None = None) -> bool:
        """Append *entries*, which are committed when this returns; return whether the run is to be cancelled."""
        cancel = False
        async with self._lock:
            for batch in batches(entries):
                cancel |= await self._append(batch, progress)
        return cancel

    async def _append(self, batch: Sequence[Entry], progress: Progress | None) -> bool:
        ends = batch[-1].kind in _ENDS
        if ends:  # afterwards the task is nobody's, and its log takes no more lines
            self._report(batch)
            await self._port.flush()
        cancel = await self._port.append(self._length, batch, progress)
        self._length += len(batch)
        self._note(batch)
        if not ends:
            self._report(batch)
        return cancel

    def _note(self, committed: Sequence[Entry]) -> None:
        for entry in committed:
            if entry.kind is Kind.NODE_STARTED:
                self._begun[entry.node, entry.iteration] = None
            elif entry.kind is Kind.NODE_FINISHED:
                self._begun.pop((entry.node, entry.iteration), None)

    def _report(self, entries: Sequence[Entry]) -> None:
        """Tell people what was committed. The starts and good ends of items would be too many lines."""
        for entry in entries:
            text = describe(entry)
            if text:
                bad = entry.state is State.FAILED or entry.kind is Kind.TRY_FAILED
                level: Literal["info", "warning"] = "warning" if bad else "info"
                self._port.log(LogLine(at=entry.at, level=level, node=entry.node or self._node, text=text))


def describe(entry: Entry) -> str:
    """Return an entry as a line of the run's log, or nothing."""
    match entry.kind:
        case Kind.NODE_STARTED:
            return "started" if entry.iteration == 1 else f"started, iteration {entry.iteration}"
        case Kind.ITEM_STARTED | Kind.CHECKPOINT:
            return ""
        case Kind.ITEM_FINISHED if entry.state is not State.FAILED:
            return ""
        case Kind.REPEATED:
            return "not good yet, once more"
        case _:
            what = "" if entry.item is None else f"item {entry.item}: "
            return f"{what}{_news(entry)}"


def _news(entry: Entry) -> str:
    why = f": {entry.error.message}" if entry.error else f" ({entry.reason})" if entry.reason else ""
    state = "" if entry.state is None else entry.state.value.lower()
    match entry.kind:
        case Kind.TRY_FAILED:
            return f"try {entry.try_number} failed, there will be another{why}"
        case Kind.WAITING:
            return _waits(entry)
        case Kind.WORKFLOW_ENDING | Kind.RUN_ENDING:
            return f"{'its workflow' if entry.node else 'run'} is ending{why}"
        case Kind.RUN_FINISHED:
            return f"run {state}{'' if entry.state is State.SUCCEEDED else why}"
        case Kind.TURN_FINISHED:
            return f"turn {state}{why}"
        case _:
            return f"{state}{why}"


def _waits(entry: Entry) -> str:
    wait = entry.wait
    match wait.kind if wait else None:
        case WaitFor.APPROVAL:
            return "waits for a person's decision"
        case WaitFor.TURN:
            return "waits for the agent's answer"
        case _:
            until = f" until {wait.until.isoformat(timespec='seconds')}" if wait and wait.until else ""
            return f"waits{until}"


def batches(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Cut *entries* into appends of bounded size."""
    if 0 < len(entries) <= _FEW:  # no output is larger than `MAX_OUTPUT`
        yield entries
        return
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        bytes_of_output = 0 if entry.output is None else output_size(entry.output)
        if batch and (size + bytes_of_output > MAX_BATCH or len(batch) == MAX_ENTRIES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += bytes_of_output
    if batch:
        yield batch
