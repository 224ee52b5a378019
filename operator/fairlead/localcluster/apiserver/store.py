"""Objects in memory, each acknowledged write in SQLite, and what happened lately for those who watch.

Everything happens on one event loop, so a read followed by a write is atomic. A write is visible at once to the code
that decides about the next one, but nobody outside hears of it (no answer, no watch event) before its transaction is
on disk: callers await `Store.settled`. Writes that arrive while a transaction is under way share the next one.
"""

from __future__ import annotations

import asyncio
import sqlite3
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import orjson

from fairlead.errors import Refused
from fairlead.localcluster.apiserver.errors import ApiError, Json, expired, version_too_new

TableKey = tuple[str, str]
"""Group and plural."""
Key = tuple[str, str]
"""Namespace (empty when there is none) and name."""
ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]
Listener = Callable[[TableKey, "Change"], None]

SCHEMA_VERSION = 1
MAX_OBJECT_BYTES = 1_572_864
HISTORY_LENGTH = 4_096
HISTORY_BYTES = 64 * 1024 * 1024

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    api_group TEXT NOT NULL, plural TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (api_group, plural, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revision (id INTEGER PRIMARY KEY CHECK (id = 1), value INTEGER NOT NULL);
INSERT OR IGNORE INTO revision VALUES (1, 1);
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of one object; `obj` is never changed."""

    key: Key
    rv: int
    obj: Json
    raw: bytes

    @property
    def uid(self) -> str:
        """The object's uid."""
        return str(self.obj["metadata"]["uid"])


@dataclass(frozen=True, slots=True)
class Change:
    """One write. `new` of a deletion is the object's last state under the deletion's resourceVersion."""

    rv: int
    type: ChangeType
    old: Stored | None
    new: Stored


@dataclass(slots=True)
class Table:
    """All objects of one resource, by namespace and name, and its latest changes, oldest first."""

    rows: dict[Key, Stored] = field(default_factory=dict)
    order: list[Key] = field(default_factory=list)
    history: list[Change] = field(default_factory=list)
    history_bytes: int = 0
    floor: int = 0
    waiters: set[asyncio.Event] = field(default_factory=set)

    def record(self, change: Change) -> None:
        """Make *change* part of the table."""
        key = change.new.key
        if change.type == "DELETED":
            del self.rows[key]
            del self.order[bisect_left(self.order, key)]
        else:
            if key not in self.rows:
                insort(self.order, key)
            self.rows[key] = change.new
        self.history.append(change)
        self.history_bytes += len(change.new.raw)
        if len(self.history) > 2 * HISTORY_LENGTH or self.history_bytes > HISTORY_BYTES:
            self._forget()

    def _forget(self) -> None:
        dropped, self.history = self.history[: len(self.history) // 2], self.history[len(self.history) // 2 :]
        self.history_bytes -= sum(len(change.new.raw) for change in dropped)
        if dropped:
            self.floor = dropped[-1].rv

    def since(self, rv: int, *, until: int) -> list[Change]:
        """Return the changes after *rv* up to *until*.

        Raises:
            ApiError: 410 when some of them are no longer known.
        """
        if rv < self.floor:
            raise expired(f"too old resource version: {rv} ({self.floor})")
        start = bisect_right(self.history, rv, key=_change_rv)
        stop = bisect_right(self.history, until, lo=start, key=_change_rv)
        return self.history[start:stop]

    def select(self, namespace: str, *, after: Key | None = None) -> Iterator[Stored]:
        """Yield the objects in order; of one namespace, unless it is empty."""
        start = bisect_right(self.order, after) if after is not None else bisect_left(self.order, (namespace, ""))
        for key in self.order[start:]:
            if namespace and key[0] != namespace:
                return
            yield self.rows[key]

    def holds(self, namespace: str) -> bool:
        """Tell whether anything of *namespace* is in the table."""
        return next(self.select(namespace), None) is not None

    def at(self, rv: int) -> Table:
        """Return the table as it was at *rv*, by taking back what came later.

        Raises:
            ApiError: 410 when that is no longer known.
        """
        later = self.since(rv, until=self.history[-1].rv if self.history else rv)
        if not later:
            return self
        rows = dict(self.rows)
        for change in reversed(later):
            if change.old is None:
                rows.pop(change.new.key, None)
            else:
                rows[change.new.key] = change.old
        return Table(rows=rows, order=sorted(rows))


def _change_rv(change: Change) -> int:
    return change.rv


class Store:
    """Tables of objects over one SQLite file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="commit")
        self._tables: dict[TableKey, Table] = {}
        self._listeners: list[Listener] = []
        self._pending: list[tuple[TableKey, Change]] = []
        self._tail: asyncio.Future[None] | None = None
        self._wake = asyncio.Event()
        self.head = self.durable = self._load()

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open or create the data file.

        Raises:
            Refused: a newer version wrote it.
        """
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            connection.close()
            message = f"{path} was written by a newer version (format {version}, this one reads {SCHEMA_VERSION})."
            raise Refused(f"{message} Update Fairlead, or use another folder.", reason="NewerDataFile")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION:d}")
        path.chmod(0o600)
        return cls(connection)

    def _load(self) -> int:
        revision = int(self._connection.execute("SELECT value FROM revision").fetchone()[0])
        rows = self._connection.execute("SELECT * FROM objects ORDER BY api_group, plural, namespace, name")
        for group, plural, namespace, name, raw in rows:
            obj = orjson.loads(raw)
            stored = Stored((namespace, name), int(obj["metadata"]["resourceVersion"]), obj, raw)
            table = self._tables.setdefault((group, plural), Table(floor=revision))
            table.rows[stored.key] = stored
            table.order.append(stored.key)
        self._floor = revision
        return revision

    def listen(self, listener: Listener) -> None:
        """Call *listener* on every write, before it is durable; it must not fail."""
        self._listeners.append(listener)

    def table(self, table: TableKey) -> Table:
        """Return the table, which may be empty."""
        return self._tables.setdefault(table, Table(floor=self._floor))

    def tables(self) -> list[tuple[TableKey, Table]]:
        """Return all tables that were ever asked for or written."""
        return list(self._tables.items())

    def get(self, table: TableKey, namespace: str, name: str) -> Stored | None:
        """Return the object, or None."""
        return self.table(table).rows.get((namespace, name))

    def put(self, table: TableKey, obj: Json) -> Stored:
        """Write *obj*, whose metadata has name and, if it has one, namespace; the store owns it from here.

        Raises:
            ApiError: the object is larger than an object may be.
        """
        metadata = obj["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        old = self.table(table).rows.get(key)
        new = self._stored(key, obj)
        self._write(table, Change(new.rv, "MODIFIED" if old else "ADDED", old, new))
        return new

    def delete(self, table: TableKey, stored: Stored) -> Stored:
        """Remove the object and return its last state."""
        obj = {**stored.obj, "metadata": dict(stored.obj["metadata"])}
        last = self._stored(stored.key, obj)
        self._write(table, Change(last.rv, "DELETED", stored, last))
        return last

    def _stored(self, key: Key, obj: Json) -> Stored:
        rv = self.head + 1
        obj["metadata"]["resourceVersion"] = str(rv)
        raw = orjson.dumps(obj)
        if len(raw) > MAX_OBJECT_BYTES:
            raise ApiError(500, "", "etcdserver: request is too large")
        return Stored(key, rv, obj, raw)

    def _write(self, table: TableKey, change: Change) -> None:
        self.head = change.rv
        self.table(table).record(change)
        if not self._pending:
            self._tail = asyncio.get_running_loop().create_future()
        self._pending.append((table, change))
        self._wake.set()
        for listener in self._listeners:
            listener(table, change)

    async def settled(self, rv: int | None = None) -> None:
        """Wait until everything up to *rv* (default: all so far) is on disk.

        Raises:
            sqlite3.Error: the disk refused.
        """
        if self._tail is not None and (rv or self.head) > self.durable:
            await asyncio.shield(self._tail)

    async def run(self) -> None:
        """Commit what is pending until cancelled.

        Raises:
            sqlite3.Error: the disk refused; what is in memory is then ahead of it, and the process must end.
        """
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._pending, done = self._pending, [], self._tail
            if not batch or done is None:
                continue
            try:
                await loop.run_in_executor(self._executor, self._commit, batch)
            except sqlite3.Error as error:
                done.set_exception(error)
                done.exception()
                raise
            self._announce(batch, done)

    def _announce(self, batch: list[tuple[TableKey, Change]], done: asyncio.Future[None]) -> None:
        self.durable = batch[-1][1].rv
        done.set_result(None)
        for table in {table for table, _ in batch}:
            for waiter in self.table(table).waiters:
                waiter.set()

    def _commit(self, batch: list[tuple[TableKey, Change]]) -> None:
        final = {(*table, *change.new.key): change for table, change in batch}
        gone = [row for row, change in final.items() if change.type == "DELETED"]
        kept = [(*row, change.new.raw) for row, change in final.items() if change.type != "DELETED"]
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", kept)
            where = "api_group = ? AND plural = ? AND namespace = ? AND name = ?"
            connection.executemany(f"DELETE FROM objects WHERE {where}", gone)  # noqa: S608 - a constant
            connection.execute("UPDATE revision SET value = ?", (batch[-1][1].rv,))
            connection.execute("COMMIT")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def wake_all(self) -> None:
        """Make every watcher look up: the server is closing, or a resource is gone."""
        for table in self._tables.values():
            for waiter in table.waiters:
                waiter.set()

    async def close(self) -> None:
        """Wait for what is pending, and close the file."""
        try:
            await self.settled()
        finally:
            self._executor.shutdown()
            self._connection.close()


def check_version(asked: int, store: Store) -> None:
    """Refuse a resourceVersion from the future.

    Raises:
        ApiError: 504, as a real server answers when it does not catch up in time.
    """
    if asked > store.head:
        raise version_too_new(asked, store.head)
