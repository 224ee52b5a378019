"""Appends to journals: what the agent says becomes durable together with what it means for nodes, spans and the run."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Any, Final

import orjson

from fairlead.clock import Clock
from fairlead.errors import TerminalError
from fairlead.logs import redact
from fairlead.services.effects import View, fold
from fairlead.services.tasks import TaskContext, Tasks
from fairlead.storage.base import Effects, Fence, LogRecord, RunState, Storage
from fairlead_agent.protocol import Append, Entry, Kind, Logs

MAX_OUTPUT_BYTES: Final = 1 << 20
MAX_LOG_TEXT: Final = 16 << 10
_KEPT: Final = 1024


class TooLarge(TerminalError):
    """What was sent is over a limit."""

    reason = "TooLarge"


class Journal:
    """Writes journals and logs for the pods that hold the tasks."""

    def __init__(self, storage: Storage, tasks: Tasks, clock: Clock) -> None:
        self._storage = storage
        self._tasks = tasks
        self._clock = clock
        self._views: OrderedDict[str, View] = OrderedDict()

    async def append(self, fence: Fence, request: Append, *, size: int) -> int:
        """Commit entries with their effects; return the journal's length.

        *size* is that of the request in bytes: nothing in it can be larger.

        Raises:
            Fenced: the claim is over.
            TooLarge: an output is over 1 MiB.
        """
        if size > MAX_OUTPUT_BYTES:
            _check_outputs(request.entries)
        context = await self._tasks.context(fence)
        before = await self._view(context, request.first)
        after, effects = fold(before, request.entries, attempt=request.attempt, progress=request.progress)
        effects = await self._with_cancel_reason(context, effects)
        length = await self._storage.append(
            fence,
            first=request.first,
            entries=[_wire(entry) for entry in request.entries],
            effects=effects,
            at=self._clock.now(),
        )
        self._keep(fence.task_id, after, ended=effects.end is not None)
        return length

    async def log(self, fence: Fence, request: Logs) -> None:
        """Keep lines of a run's log.

        Raises:
            Fenced: the claim is over.
        """
        task = await self._storage.check_fence(fence)
        await self._storage.add_logs(
            [
                LogRecord(task.run_uid, line.at, line.level, line.node, request.attempt, _log_text(line.text))
                for line in request.lines
            ]
        )

    async def _view(self, context: TaskContext, first: int) -> View:
        known = self._views.get(context.task_id)
        if known is not None and known.length == first:
            return known
        empty = View(context.run_uid, context.name, started_at=context.started_at)
        if first == 0:
            return empty
        stored = await self._storage.journal(context.task_id)  # written through another gateway, or before a restart
        view = empty
        for raw in stored[:first]:
            view, _ = fold(view, (Entry.model_validate(raw),), attempt=int(raw.get("attempt", 1)))
        return view

    def _keep(self, task_id: str, view: View, *, ended: bool) -> None:
        self._views.pop(task_id, None)
        if not ended:
            self._views[task_id] = view
        while len(self._views) > _KEPT:
            self._views.popitem(last=False)

    async def _with_cancel_reason(self, context: TaskContext, effects: Effects) -> Effects:
        """The agent knows that its run was cancelled, storage knows why."""
        if effects.end is None or effects.end.state is not RunState.CANCELLED:
            return effects
        run = await self._storage.get_run(context.run_uid)
        if run is None or not run.cancel_reason:
            return effects
        return replace(effects, end=replace(effects.end, reason=run.cancel_reason))


def _wire(entry: Entry) -> dict[str, Any]:
    return entry.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def _log_text(text: str) -> str:
    safe = redact(text)
    return safe if len(safe) <= MAX_LOG_TEXT else safe[:MAX_LOG_TEXT] + " … (cut)"


def _check_outputs(entries: tuple[Entry, ...]) -> None:
    for entry in entries:
        size = 0 if entry.output is None else len(orjson.dumps(entry.output))
        if size > MAX_OUTPUT_BYTES:
            what = "run" if entry.kind is Kind.RUN_FINISHED else f"node {entry.node}"
            raise TooLarge(f"the output of the {what} has {size} bytes; at most {MAX_OUTPUT_BYTES} are kept")
