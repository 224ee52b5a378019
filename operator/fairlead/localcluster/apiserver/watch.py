"""Watching: every watcher is a cursor into the table's history.

So a slow one costs no memory and, at worst, is told to start again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson

from fairlead.localcluster.apiserver.cluster import Cluster
from fairlead.localcluster.apiserver.errors import ApiError, Json, invalid
from fairlead.localcluster.apiserver.output import Style
from fairlead.localcluster.apiserver.requests import Call
from fairlead.localcluster.apiserver.resources import Resource
from fairlead.localcluster.apiserver.selectors import Selection
from fairlead.localcluster.apiserver.store import Change, Stored, Table, check_version
from fairlead.localcluster.schema.errors import forbidden as forbidden_field

DEFAULT_TIMEOUT = 2_700.0
BOOKMARK_SECONDS = 60.0
_LAST_BOOKMARK_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRequest:
    """What a client wants to see."""

    namespace: str
    selection: Selection
    style: Style
    revision: int | None
    """Start after this one; None or 0: with what is there."""
    bookmarks: bool
    initial_events: bool
    timeout: float


def parse_watch(call: Call, resource: Resource, *, selection: Selection, style: Style) -> WatchRequest:
    """Return what *call* asks to watch.

    Raises:
        ApiError: the options do not go together.
    """
    initial, match = call.arg("sendInitialEvents"), call.arg("resourceVersionMatch")
    if match and not initial:
        text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        raise _invalid_options("resourceVersionMatch", text)
    if initial and match != "NotOlderThan":
        text = 'sendInitialEvents requires setting resourceVersionMatch to "NotOlderThan"'
        raise _invalid_options("resourceVersionMatch", text)
    return WatchRequest(
        namespace=call.attributes.namespace if resource.namespaced else "",
        selection=selection,
        style=style,
        revision=call.revision(),
        bookmarks=call.flag("allowWatchBookmarks"),
        initial_events=call.flag("sendInitialEvents"),
        timeout=float(call.number("timeoutSeconds") or DEFAULT_TIMEOUT),
    )


@dataclass(frozen=True, slots=True)
class _ListOptions:
    group: str = "meta.k8s.io"
    plural: str = "listoptions"
    kind: str = "ListOptions"


def _invalid_options(path: str, text: str) -> ApiError:
    return invalid(_ListOptions(), "", [forbidden_field(path, text)])


async def watch(cluster: Cluster, request: WatchRequest) -> AsyncIterator[bytes]:
    """Start watching, and return the stream of events.

    Raises:
        ApiError: 410 or 504 when it cannot start where the client wants.
    """
    check_version(request.revision or 0, cluster.store)
    await cluster.store.settled()
    table = cluster.store.table(request.style.resource.table)
    start = request.revision
    if start and not request.initial_events:
        table.since(start, until=start)
        return _Watcher(cluster, request, table).stream((), start)
    current = tuple(table.select(request.namespace))
    # What is already in the table but not yet on disk is not shown: the cursor stands before it.
    durable = cluster.store.durable
    if cluster.store.head != durable:
        current = tuple(table.at(durable).select(request.namespace))
    with_initial = request.initial_events or not start
    return _Watcher(cluster, request, table).stream(current if with_initial else (), durable)


class _Watcher:
    """One stream."""

    def __init__(self, cluster: Cluster, request: WatchRequest, table: Table) -> None:
        self._cluster = cluster
        self._request = request
        self._table = table
        self._style = request.style
        self._described = False
        self._wake = asyncio.Event()

    async def stream(self, current: tuple[Stored, ...], cursor: int) -> AsyncIterator[bytes]:
        """Yield what is there, then what changes, until time is up or the server stops."""
        clock = self._cluster.clock
        end = clock.monotonic() + self._request.timeout
        self._table.waiters.add(self._wake)
        try:
            for stored in current:
                if self._selected(stored):
                    yield self._event("ADDED", stored)
            if self._request.initial_events and self._request.bookmarks:
                yield self._bookmark(cursor, initial=True)
            marked = False
            while (left := end - clock.monotonic()) > 0 and self._serving():
                self._wake.clear()
                until = self._cluster.store.durable
                try:
                    changes = self._table.since(cursor, until=until)
                except ApiError as error:
                    yield _line("ERROR", error.status())
                    return
                cursor = max(cursor, until)
                for event in self._shown(changes):
                    yield event
                pause = min(left, BOOKMARK_SECONDS)
                if left > _LAST_BOOKMARK_SECONDS:
                    pause = min(pause, left - _LAST_BOOKMARK_SECONDS)
                if not await self._woken(pause) and self._request.bookmarks and not marked:
                    yield self._bookmark(self._cluster.store.durable if self._caught_up(cursor) else cursor)
                    marked = left <= _LAST_BOOKMARK_SECONDS + pause
        finally:
            self._table.waiters.discard(self._wake)

    def _serving(self) -> bool:
        """Tell whether to go on: the server is not closing, and the resource is still there."""
        resource = self._style.resource
        known = self._cluster.registry.find(resource.group, resource.version, resource.plural)
        return known is not None and not self._cluster.closing.is_set()

    def _caught_up(self, cursor: int) -> bool:
        return not self._wake.is_set() and cursor <= self._cluster.store.durable

    async def _woken(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _selected(self, stored: Stored) -> bool:
        selection = self._request.selection
        return not selection or selection.matches(self._style.view(stored))

    def _shown(self, changes: list[Change]) -> Iterator[bytes]:
        """Yield the changes as somebody sees them who knows only selected objects."""
        namespace = self._request.namespace
        for change in changes:
            if namespace and change.new.key[0] != namespace:
                continue
            was = change.old is not None and self._selected(change.old)
            now = change.type != "DELETED" and self._selected(change.new)
            if now:
                yield self._event("MODIFIED" if was else "ADDED", change.new)
            elif was:
                yield self._event("DELETED", change.new if change.type == "DELETED" else _left(change))

    def _event(self, kind: str, stored: Stored) -> bytes:
        if self._style.form.kind == "Table":
            style = replace(self._style, now=self._cluster.now())  # ages go on while the watch lasts
            table = style.table([style.view(stored)], {"resourceVersion": str(stored.rv)})
            if self._described:
                table = {**table, "columnDefinitions": None}
            self._described = True
            return _line(kind, table)
        return b"".join((b'{"type":"', kind.encode(), b'","object":', self._style.one(stored), b"}\n"))

    def _bookmark(self, revision: int, *, initial: bool = False) -> bytes:
        resource = self._style.resource
        metadata: Json = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        if self._style.form.kind == "Table":
            return _line("BOOKMARK", self._style.table([], metadata))
        kind, version = resource.kind, resource.api_version
        if self._style.form.kind:
            kind, version = self._style.form.kind, "meta.k8s.io/v1"
        return _line("BOOKMARK", {"kind": kind, "apiVersion": version, "metadata": metadata})


def _left(change: Change) -> Stored:
    """Return the old state, under the version in which the object left the selection."""
    old = change.old or change.new
    obj = {**old.obj, "metadata": {**old.obj["metadata"], "resourceVersion": str(change.rv)}}
    return Stored(old.key, change.rv, obj, orjson.dumps(obj))


def _line(kind: str, obj: Any) -> bytes:
    return orjson.dumps({"type": kind, "object": obj}) + b"\n"
