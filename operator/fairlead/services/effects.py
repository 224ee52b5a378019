"""What journal entries mean for the records that people read. Pure: a fold over the journal, one batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Final

from fairlead.errors import InvalidObject
from fairlead.services.nodespans import SPAN_STATUS
from fairlead.storage.base import EMPTY_ITEM, CacheEntry, Effects, NodeRecord, RunEnd, RunState, Span
from fairlead.tracing.attributes import attributes, failure
from fairlead.tracing.ids import span_id
from fairlead_agent.protocol import Entry, Kind, Progress, State, WaitFor

MAX_MESSAGE: Final = 4096
REUSED: Final = "Reused"
WAITING: Final = "Waiting"
"""The state of a node that waits; its reason is the `fairlead_agent.protocol.WaitFor`."""
_END_STATES: Final = {
    State.SUCCEEDED: RunState.SUCCEEDED,
    State.FAILED: RunState.FAILED,
    State.CANCELLED: RunState.CANCELLED,
}
_Key = tuple[str, str | None, int]


@dataclass(frozen=True, slots=True)
class View:
    """What later entries need to know of earlier ones."""

    run_uid: str
    run_name: str
    length: int = 0
    started_at: datetime | None = None
    open: Mapping[_Key, NodeRecord] = field(default_factory=dict)
    """The records of what has started and not finished."""


def item_label(item: str | None) -> str:
    """Return how a record names an item; the node itself is the empty string."""
    return item or ("" if item is None else EMPTY_ITEM)


def fold(
    view: View,
    entries: Iterable[Entry],
    *,
    attempt: int,
    at: datetime,
    progress: Progress | None = None,
    cache_key: Callable[[Entry], str] = attrgetter("digest"),
) -> tuple[View, Effects]:
    """Return the view after *entries* of a run's journal and what they change; *at* is now, by our own clock.

    *cache_key* says under what a result that may be used again is kept.
    """
    state = _Fold(view, attempt, at, cache_key)
    for entry in entries:
        state.add(entry)
    return state.result(progress)


class _Fold:
    def __init__(self, view: View, attempt: int, at: datetime, cache_key: Callable[[Entry], str]) -> None:
        self._view = view
        self._cache_key = cache_key
        self._attempt = attempt
        self._at = at
        self._length = view.length
        self._started_at = view.started_at
        self._open = dict(view.open)
        self._records: dict[_Key, NodeRecord] = {}
        self._root: Span | None = None
        self._end: RunEnd | None = None
        self._cached: dict[str, CacheEntry] = {}
        self._reused = 0
        self._withdrawn: list[tuple[str, str]] = []

    def add(self, entry: Entry) -> None:
        if self._length == 0:
            self._started_at = min(self._started_at or entry.at, entry.at)
            self._root = self._build_root(self._started_at)
        self._length += 1
        match entry.kind:
            case Kind.NODE_STARTED | Kind.ITEM_STARTED:
                self._put(entry, "Running")
            case Kind.TRY_FAILED:
                self._withdraw(entry)
                self._put(entry, "Retrying")
            case Kind.WAITING:
                self._put(entry, WAITING)
            case Kind.NODE_FINISHED | Kind.ITEM_FINISHED:
                self._finish(entry)
            case Kind.RUN_FINISHED:
                self._end_run(entry)
            case Kind.TURN_FINISHED:
                raise InvalidObject("a run does not end as a turn does", field="entries", reason="InvalidRequest")
            case Kind.REPEATED | Kind.WORKFLOW_ENDING | Kind.RUN_ENDING | Kind.CHECKPOINT:
                pass  # what follows from them is said by later entries

    def result(self, progress: Progress | None) -> tuple[View, Effects]:
        view = View(self._view.run_uid, self._view.run_name, self._length, self._started_at, self._open)
        return view, Effects(
            nodes=tuple(self._records.values()),
            spans=() if self._root is None else (self._root,),
            done=None if progress is None else progress.done,
            total=None if progress is None else progress.total,
            current=None if progress is None else tuple(progress.current[:10]),
            end=self._end,
            cached=tuple(self._cached.values()),
            reused=self._reused,
            withdrawn=tuple(self._withdrawn),
        )

    def _withdraw(self, entry: Entry) -> None:
        """Note that a try is over that asked people, or was about to: it may not have got to say that it waits."""
        known = self._open.get((entry.node, entry.item, entry.iteration))
        if known is None:
            return
        asked = (known.state, known.reason) == (WAITING, WaitFor.APPROVAL.value)
        if asked or entry.state is not State.SUCCEEDED:
            self._withdrawn.append((known.node, known.item))

    def _put(self, entry: Entry, state: str) -> None:
        """Note that something began, or goes on in another way. A later attempt starts again what was not finished."""
        key = (entry.node, entry.item, entry.iteration)
        known = self._open.get(key)
        began = entry.at if known is None or known.started_at is None else known.started_at
        self._open[key] = self._records[key] = self._record(entry, state=state, started_at=began)

    def _finish(self, entry: Entry) -> None:
        self._withdraw(entry)
        key = (entry.node, entry.item, entry.iteration)
        known = self._open.pop(key, None)
        state = _needed_state(entry)
        began = None if known is None else known.started_at
        self._records[key] = self._record(entry, state=state.value, started_at=began, finished_at=entry.at)
        self._reused += entry.reason == REUSED and entry.kind is Kind.NODE_FINISHED
        if entry.cache_seconds and entry.digest and state is State.SUCCEEDED and not entry.reused:
            until = self._at + timedelta(seconds=entry.cache_seconds)
            kept = self._cache_key(entry)
            self._cached[kept] = CacheEntry(kept, entry.output, self._view.run_uid, self._at, until)

    def _record(
        self, entry: Entry, *, state: str, started_at: datetime | None, finished_at: datetime | None = None
    ) -> NodeRecord:
        reason, message = _why(entry)
        return NodeRecord(
            run_uid=self._view.run_uid,
            node=entry.node,
            item=item_label(entry.item),
            iteration=entry.iteration,
            state=state,
            reason=reason,
            message=message,
            output=None if finished_at is None else entry.output,
            tries=entry.try_number,
            attempt=self._attempt,
            started_at=started_at,
            finished_at=finished_at,
            reused=entry.reused,
        )

    def _build_root(
        self,
        started_at: datetime,
        *,
        finished_at: datetime | None = None,
        status: str = "unset",
        extra: Mapping[str, Any] | None = None,
    ) -> Span:
        uid = self._view.run_uid
        return Span(
            run_uid=uid,
            span_id=span_id(uid),
            parent_id="",
            name=self._view.run_name,
            kind="run",
            started_at=started_at,
            finished_at=finished_at,
            status=status,
            attributes={**attributes(fairlead__attempt=self._attempt), **(extra or {})},
        )

    def _end_run(self, entry: Entry) -> None:
        state = _END_STATES.get(_needed_state(entry))
        if state is None:
            raise InvalidObject(f"a run cannot end as {entry.state}", field="entries")
        reason, message = _why(entry)
        self._end = RunEnd(state, reason or state.value, message, entry.output, entry.at)
        extra = {} if state is RunState.SUCCEEDED else failure(self._end.reason, message)
        status = SPAN_STATUS.get(_needed_state(entry), "unset")
        began = self._started_at or entry.at
        self._root = self._build_root(began, finished_at=entry.at, status=status, extra=extra)


def _needed_state(entry: Entry) -> State:
    if entry.state is None:
        raise InvalidObject(f"a {entry.kind} entry says how it ended", field="entries")
    return entry.state


def _why(entry: Entry) -> tuple[str, str]:
    if entry.kind is Kind.WAITING:
        return ("" if entry.wait is None else entry.wait.kind.value), ""
    if entry.error is None:
        return entry.reason, ""
    return entry.reason or entry.error.reason, entry.error.message[:MAX_MESSAGE]
