"""Appends to journals: what the agent says becomes durable together with what it means for nodes, spans and the run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import orjson

from fairlead.clock import Clock
from fairlead.errors import InvalidObject, Refused, TooLarge
from fairlead.logs import get_logger
from fairlead.redaction import redact
from fairlead.services.effects import View, fold
from fairlead.services.gates import check_approvals, concerns_approval
from fairlead.services.tasks import TaskContext, Tasks
from fairlead.services.turns import TurnView, fold_turn
from fairlead.storage.base import Effects, Fence, Grown, LogRecord, Storage
from fairlead_agent.protocol import Append, Entry, Kind, Logs, Progress

_log = get_logger(__name__)
MAX_OUTPUT_BYTES: Final = 1 << 20
MAX_LOG_TEXT: Final = 16 << 10
_KEPT: Final = 1024
_CACHE_SECONDS: Final = 86_400
"""The API's default of `cache.ttlSeconds`, which has none on the wire inside nodes."""


class Journal:
    """Writes journals and logs for the pods that hold the tasks."""

    def __init__(self, storage: Storage, tasks: Tasks, clock: Clock) -> None:
        self._storage = storage
        self._tasks = tasks
        self._clock = clock
        self._views: OrderedDict[str, View | TurnView] = OrderedDict()

    async def append(self, fence: Fence, request: Append, *, size: int) -> Grown:
        """Commit entries with their effects.

        *size* is that of the request in bytes: nothing in it can be larger.

        Raises:
            Fenced: the claim is over.
            InvalidObject: the task has no such node, or writes no such entries.
            Refused: nobody has decided what the entries say is decided, nor does the graph lead there.
            TooLarge: an output is over 1 MiB, or the journal would get too large.
        """
        if size > MAX_OUTPUT_BYTES:
            _check_outputs(request.entries)
        context = await self._tasks.context(fence)
        entries = [_checked(context, entry) for entry in request.entries]
        if context.turn is None and any(concerns_approval(context, entry) for entry in entries):
            entries = await self._gated(fence, context, entries, first=request.first)
        before = await self._view(context, request.first)
        now = self._clock.now()
        after, effects = _fold(context, before, entries, attempt=request.attempt, at=now, progress=request.progress)
        wire = [_wire(entry) for entry in entries]
        grown = await self._storage.append(fence, first=request.first, entries=wire, effects=effects, at=now, size=size)
        self._keep(fence.task_id, after, ended=effects.end is not None or effects.turn is not None)
        return grown

    async def log(self, fence: Fence, request: Logs) -> None:
        """Keep lines of a run's log.

        Raises:
            Fenced: the claim is over.
        """
        task = await self._storage.check_fence(fence)
        records = [
            LogRecord(task.run_uid, line.at, line.level, line.node, request.attempt, _log_text(line.text))
            for line in request.lines
        ]
        await self._storage.add_logs(fence, first=request.first, records=records)

    async def _gated(self, fence: Fence, context: TaskContext, entries: list[Entry], *, first: int) -> list[Entry]:
        try:
            return await check_approvals(self._storage, context, entries, first=first)
        except Refused as refusal:
            await self._storage.check_fence(fence)  # a late writer is told that it is late, not that it lies
            _log.warning("approval_claim_refused", run=context.run_uid, task=fence.task_id, error=str(refusal))
            raise

    async def _view(self, context: TaskContext, first: int) -> View | TurnView:
        known = self._views.get(context.task_id)
        if known is not None and known.length == first:
            return known
        view = _empty(context)
        if first == 0:
            return view
        stored = await self._storage.journal(context.task_id)  # written through another gateway, or before a restart
        now = self._clock.now()
        for raw in stored[:first]:
            entry = Entry.model_validate(raw)
            view, _ = _fold(context, view, [entry], attempt=int(raw.get("attempt", 1)), at=now)
        return view

    def _keep(self, task_id: str, view: View | TurnView, *, ended: bool) -> None:
        self._views.pop(task_id, None)
        if not ended:
            self._views[task_id] = view
        while len(self._views) > _KEPT:
            self._views.popitem(last=False)


def _empty(context: TaskContext) -> View | TurnView:
    if context.turn is not None:
        return TurnView()
    return View(context.run_uid, context.name, started_at=context.started_at)


def _fold(
    context: TaskContext,
    view: View | TurnView,
    entries: Sequence[Entry],
    *,
    attempt: int,
    at: datetime,
    progress: Progress | None = None,
) -> tuple[View | TurnView, Effects]:
    if isinstance(view, TurnView):
        return fold_turn(context, view, entries, attempt=attempt)

    def cache_key(entry: Entry) -> str:
        return context.cache_key(entry.node, entry.digest)

    return fold(view, entries, attempt=attempt, at=at, progress=progress, cache_key=cache_key)


def _checked(context: TaskContext, entry: Entry) -> Entry:
    """Return an entry if it is about a node of the frozen document, and keeps no more than that allows."""
    if not entry.node:
        return entry
    node = context.node(entry.node)
    if node is None:
        raise InvalidObject(f"the workflow has no node {entry.node[:200]}", field="entries", reason="InvalidRequest")
    if entry.cache_seconds is None:
        return entry
    cache = node.get("cache")
    seconds = 0 if cache is None else min(entry.cache_seconds, cache.get("ttlSeconds") or _CACHE_SECONDS)
    return entry.model_copy(update={"cache_seconds": seconds or None})


def _wire(entry: Entry) -> dict[str, Any]:
    return entry.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def _log_text(text: str) -> str:
    safe = redact(text[: 4 * MAX_LOG_TEXT])
    return safe if len(safe) <= MAX_LOG_TEXT else safe[:MAX_LOG_TEXT] + " … (cut)"


def _check_outputs(entries: tuple[Entry, ...]) -> None:
    for entry in entries:
        size = 0 if entry.output is None else len(orjson.dumps(entry.output))
        if size > MAX_OUTPUT_BYTES:
            what = "run" if entry.kind is Kind.RUN_FINISHED else f"node {entry.node}"
            raise TooLarge(f"the output of the {what} has {size} bytes; at most {MAX_OUTPUT_BYTES} are kept")
