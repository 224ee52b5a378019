"""What journal entries mean for the records that people read. Pure: a fold over the journal, one batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from fairlead.errors import InvalidObject
from fairlead.storage.base import Effects, NodeRecord, RunEnd, RunState, Span
from fairlead.tracing.attributes import attributes, bounded, failure
from fairlead.tracing.ids import node_span_id, span_id
from fairlead_agent.protocol import Entry, Kind, Progress, State

MAX_MESSAGE: Final = 4096
_END_STATES: Final = {
    State.SUCCEEDED: RunState.SUCCEEDED,
    State.FAILED: RunState.FAILED,
    State.CANCELLED: RunState.CANCELLED,
}
_SPAN_STATUS: Final = {State.SUCCEEDED: "ok", State.FAILED: "error"}
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
    return item or ("" if item is None else '""')


def fold(
    view: View, entries: Iterable[Entry], *, attempt: int, progress: Progress | None = None
) -> tuple[View, Effects]:
    """Return the view after *entries* and what they change."""
    state = _Fold(view, attempt)
    for entry in entries:
        state.add(entry)
    return state.result(progress)


class _Fold:
    def __init__(self, view: View, attempt: int) -> None:
        self._view = view
        self._attempt = attempt
        self._length = view.length
        self._started_at = view.started_at
        self._open = dict(view.open)
        self._records: dict[_Key, NodeRecord] = {}
        self._spans: dict[str, Span] = {}
        self._end: RunEnd | None = None

    def add(self, entry: Entry) -> None:
        if self._length == 0:
            self._started_at = min(self._started_at or entry.at, entry.at)
            self._root(finished_at=None, status="unset", extra={})
        self._length += 1
        match entry.kind:
            case Kind.NODE_STARTED | Kind.ITEM_STARTED:
                self._start(entry)
            case Kind.TRY_FAILED:
                self._try_failed(entry)
            case Kind.NODE_FINISHED | Kind.ITEM_FINISHED:
                self._finish(entry)
            case Kind.RUN_FINISHED:
                self._end_run(entry)

    def result(self, progress: Progress | None) -> tuple[View, Effects]:
        view = replace(self._view, length=self._length, started_at=self._started_at, open=self._open)
        return view, Effects(
            nodes=tuple(self._records.values()),
            spans=tuple(self._spans.values()),
            done=None if progress is None else progress.done,
            total=None if progress is None else progress.total,
            current=None if progress is None else tuple(progress.current[:10]),
            end=self._end,
        )

    def _start(self, entry: Entry) -> None:
        key = (entry.node, entry.item, entry.iteration)
        known = self._open.get(key)  # a later attempt starts again what was not finished
        began = entry.at if known is None or known.started_at is None else known.started_at
        self._put(key, self._record(entry, state="Running", started_at=began, tries=entry.try_number))

    def _try_failed(self, entry: Entry) -> None:
        key = (entry.node, entry.item, entry.iteration)
        known = self._open.get(key)
        reason, message = _why(entry)
        self._put(
            key,
            self._record(
                entry,
                state="Retrying",
                started_at=entry.at if known is None else known.started_at,
                tries=entry.try_number,
                reason=reason,
                message=message,
            ),
        )

    def _finish(self, entry: Entry) -> None:
        key = (entry.node, entry.item, entry.iteration)
        known = self._open.pop(key, None)
        reason, message = _why(entry)
        record = self._record(
            entry,
            state=_needed_state(entry).value,
            started_at=None if known is None else known.started_at,
            tries=entry.try_number,
            reason=reason,
            message=message,
        )
        self._records[key] = replace(record, output=entry.output, finished_at=entry.at)
        self._span(key, self._records[key], _SPAN_STATUS.get(_needed_state(entry), "unset"))

    def _record(
        self,
        entry: Entry,
        *,
        state: str,
        started_at: datetime | None,
        tries: int,
        reason: str = "",
        message: str = "",
    ) -> NodeRecord:
        return NodeRecord(
            run_uid=self._view.run_uid,
            node=entry.node,
            item=item_label(entry.item),
            iteration=entry.iteration,
            state=state,
            reason=reason,
            message=message,
            tries=tries,
            attempt=self._attempt,
            started_at=started_at,
        )

    def _put(self, key: _Key, record: NodeRecord) -> None:
        self._open[key] = self._records[key] = record
        self._span(key, record, "unset")

    def _span(self, key: _Key, record: NodeRecord, status: str) -> None:
        node, item, iteration = key
        uid = self._view.run_uid
        began = record.started_at or record.finished_at
        if began is None:
            return
        own = node_span_id(uid, node, item, iteration)
        self._spans[own] = Span(
            run_uid=uid,
            span_id=own,
            parent_id=span_id(uid) if item is None else node_span_id(uid, node, None, iteration),
            name=node if item is None else f"{node}[{bounded(item, 64)}]",
            kind="node" if item is None else "item",
            started_at=began,
            finished_at=record.finished_at,
            status=status,
            attributes=_node_attributes(record, item, iteration),
        )

    def _root(self, *, finished_at: datetime | None, status: str, extra: Mapping[str, Any]) -> None:
        uid = self._view.run_uid
        if self._started_at is None:
            return
        self._spans[span_id(uid)] = Span(
            run_uid=uid,
            span_id=span_id(uid),
            parent_id="",
            name=self._view.run_name,
            kind="run",
            started_at=self._started_at,
            finished_at=finished_at,
            status=status,
            attributes={**attributes(fairlead__attempt=self._attempt), **extra},
        )

    def _end_run(self, entry: Entry) -> None:
        state = _END_STATES.get(_needed_state(entry))
        if state is None:
            raise InvalidObject(f"a run cannot end as {entry.state}", field="entries")
        reason, message = _why(entry)
        self._end = RunEnd(state, reason or state.value, message, entry.output, entry.at)
        extra = {} if state is RunState.SUCCEEDED else failure(self._end.reason, message)
        self._root(finished_at=entry.at, status=_SPAN_STATUS.get(_needed_state(entry), "unset"), extra=extra)


def _needed_state(entry: Entry) -> State:
    if entry.state is None:
        raise InvalidObject(f"a {entry.kind} entry says how it ended", field="entries")
    return entry.state


def _why(entry: Entry) -> tuple[str, str]:
    if entry.error is None:
        return entry.reason, ""
    return entry.reason or entry.error.reason, entry.error.message[:MAX_MESSAGE]


def _node_attributes(record: NodeRecord, item: str | None, iteration: int) -> Mapping[str, Any]:
    known = attributes(
        fairlead__node=record.node,
        fairlead__item=item,
        fairlead__iteration=iteration if iteration > 1 else None,
        fairlead__tries=record.tries if record.tries > 1 else None,
        fairlead__attempt=record.attempt,
        fairlead__state=record.state,
        fairlead__reason=record.reason if record.state == "Skipped" else None,
    )
    failed = record.state in {"Failed", "Retrying", "Cancelled"}
    return {**known, **(failure(record.reason, record.message) if failed else {})}
