"""Events between the processes that share a SQLite file: rows that are written with the change they announce."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from sqlalchemy import bindparam, delete, func, insert, select

from fairlead.logs import get_logger
from fairlead.storage.base import Event
from fairlead.storage.sql.tables import outbox
from fairlead.storage.sql.transaction import Transaction

_KEPT = 10_000
_PRUNE_EVERY = 500
_POLL_SECONDS = 0.02
_PAUSE_SECONDS = 1.0

_ADD = insert(outbox)
_PRUNE = delete(outbox).where(outbox.c.id <= select(func.max(outbox.c.id)).scalar_subquery() - bindparam("kept"))
_log = get_logger(__name__)


class Outbox:
    """The file's announcements: `add` writes them, a thread reads those of other processes.

    The thread asks every 20 ms whether the file changed (`PRAGMA data_version`, some microseconds) and reads only then.
    """

    def __init__(self, path: Path, origin: str) -> None:
        self._path = path
        self._origin = origin
        self._added = 0
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def add(self, tx: Transaction) -> None:
        """Write the events of a transaction; old ones go."""
        if not tx.events:
            return
        tx.run(_ADD, [{"origin": self._origin, "topic": event.topic, "key": event.key} for event in tx.events])
        self._added += len(tx.events)
        if self._added >= _PRUNE_EVERY:
            self._added = 0
            tx.run(_PRUNE, {"kept": _KEPT})

    def start(self, tell: Callable[[Iterable[Event]], None]) -> None:
        """Begin to listen, from here on. Does nothing the second time."""
        if self._thread is None:
            connection = self._connect()
            last = _last(connection)
            self._thread = threading.Thread(
                target=self._listen, args=(connection, last, tell), name="fairlead-bus", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)

    def _listen(self, connection: sqlite3.Connection, last: int, tell: Callable[[Iterable[Event]], None]) -> None:
        version = -1
        while not self._stopping.wait(_POLL_SECONDS):
            try:
                (now,) = connection.execute("PRAGMA data_version").fetchone()
                if now != version:
                    version = now
                    last = self._read(connection, last, tell)
            except sqlite3.Error as error:
                _log.warning("event_bus_failed", error=str(error))
                self._stopping.wait(_PAUSE_SECONDS)
                version = -1
        connection.close()

    def _read(self, connection: sqlite3.Connection, last: int, tell: Callable[[Iterable[Event]], None]) -> int:
        rows = connection.execute(
            "SELECT id, origin, topic, key FROM outbox WHERE id > ? ORDER BY id", (last,)
        ).fetchall()
        events = [Event(topic, key) for _, origin, topic, key in rows if origin != self._origin]
        if events:
            tell(events)
        return rows[-1][0] if rows else last


def _last(connection: sqlite3.Connection) -> int:
    (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM outbox").fetchone()
    return int(last)
