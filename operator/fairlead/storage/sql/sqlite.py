"""SQLite: one thread writes, a few read, one looks for what other processes announced.

A transaction runs as a whole in its thread, so it costs one hop; what waits while one is being committed is committed
together afterwards, with one fsync.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from sqlalchemy import URL, Connection, Engine, create_engine, event

from fairlead.errors import FairleadError, TerminalError, Unavailable
from fairlead.storage.base import Event
from fairlead.storage.sql.bus import Hub
from fairlead.storage.sql.direct import DirectTransaction, Statements
from fairlead.storage.sql.errors import translated
from fairlead.storage.sql.outbox import Outbox
from fairlead.storage.sql.transaction import T, Transaction

_READERS = 4
_MAX_GROUP = 64
_PRAGMAS = (
    "PRAGMA busy_timeout = 10000",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA journal_size_limit = 67108864",
)


class _Job(NamedTuple):
    body: Callable[[Transaction], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class SqliteDatabase:
    """One file. Any number of processes of one machine may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._engine = _engine(path)
        self._statements = Statements()
        self._hub = Hub()
        self._outbox = Outbox(path, uuid.uuid4().hex)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._writer: threading.Thread | None = None
        self._connection: Connection | None = None
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="fairlead-read")
        self._closed = False

    async def read(self, body: Callable[[Transaction], T]) -> T:
        """Run *body* on a connection of its own."""
        self._require_open()
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, body)

    async def write(self, body: Callable[[Transaction], T]) -> T:
        """Run *body* in the thread that writes."""
        self._require_open()
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_jobs, name="fairlead-write", daemon=True)
            self._writer.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(body, future, loop))
        return await future

    async def migrate(self, body: Callable[[Connection], None]) -> None:
        """Run *body* while no other process can write."""

        def joined(tx: Transaction) -> None:
            tx.connection.begin()  # so that Alembic knows that it is in a transaction, and begins and ends none
            body(tx.connection)

        await self.write(joined)

    def subscribe(self, *topics: str) -> AsyncIterator[Event]:
        """Yield events from now on."""
        self._require_open()
        loop = asyncio.get_running_loop()
        with translated(str(self._path)):
            self._outbox.start(partial(_call_soon, loop, self._hub.tell))
        return self._hub.subscribe(topics)

    async def aclose(self) -> None:
        """Write what waits, then close every connection."""
        if self._closed:
            return
        self._closed = True
        self._hub.close()
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        if self._writer is not None:
            self._jobs.put(None)
            self._writer.join()
        self._outbox.stop()
        self._readers.shutdown()
        self._engine.dispose()

    def _require_open(self) -> None:
        if self._closed:
            raise Unavailable("the storage was closed: the process is ending")

    def _read(self, body: Callable[[Transaction], T]) -> T:
        with translated(str(self._path)), self._engine.connect() as connection, self._begun(connection, "BEGIN") as tx:
            return body(tx)

    def _write_jobs(self) -> None:
        while group := self._next_group():
            self._commit(group)
        self._disconnect()

    def _next_group(self) -> list[_Job]:
        """Wait for a job and take what else waits; nothing: it is time to end."""
        group: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if len(group) == _MAX_GROUP:
                return group
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return group
        if group:
            self._jobs.put(None)
        return group

    def _commit(self, group: list[_Job]) -> None:
        """Commit a group together or, when one of it fails, each by itself."""
        try:
            results, events = self._transact([job.body for job in group])
        except Exception as error:  # noqa: BLE001 - it goes to whoever asked
            if len(group) == 1:
                _call_soon(group[0].loop, _fail, group[0].future, error)
            else:
                for job in group:
                    self._commit([job])
            return
        for loop in dict.fromkeys(job.loop for job in group):
            mine = [(job.future, result) for job, result in zip(group, results, strict=True) if job.loop is loop]
            _call_soon(loop, self._settle, events if loop is group[0].loop else (), mine)

    def _settle(self, events: Collection[Event], answers: Iterable[tuple[asyncio.Future[Any], Any]]) -> None:
        """Announce, then answer: all of it at once, as it costs more to wake an event loop than what it does then."""
        self._hub.tell(events)
        for future, result in answers:
            _succeed(future, result)

    def _transact(self, bodies: list[Callable[[Transaction], Any]]) -> tuple[list[Any], Collection[Event]]:
        with translated(str(self._path)):
            try:
                if self._connection is None:
                    self._connection = self._engine.connect()
                with self._begun(self._connection, "BEGIN IMMEDIATE") as tx:
                    results = [body(tx) for body in bodies]
                    self._outbox.add(tx)
            except FairleadError:
                raise
            except Exception:
                self._disconnect()
                raise
            return results, tx.events

    @contextmanager
    def _begun(self, connection: Connection, begin: str) -> Iterator[Transaction]:
        """Run a transaction on the driver; SQLAlchemy joins it where it is needed."""
        driver = _driver(connection)
        driver.execute(begin)
        try:
            yield DirectTransaction(connection, driver, self._statements)
            driver.commit()
        finally:
            if driver.in_transaction:
                driver.rollback()
            connection.rollback()  # ends what SQLAlchemy took part in, if it did: the driver's own end decided

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
        self._connection = None


def _succeed(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: Any) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits for it
        loop.call_soon_threadsafe(function, *arguments)


def _engine(path: Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"check_same_thread": False, "isolation_level": None},
        pool_size=_READERS + 1,
        max_overflow=0,
    )
    event.listen(engine, "connect", lambda connection, _record: _prepare(connection, path))
    event.listen(engine, "do_connect", lambda *_: _create(path))
    return engine


def _create(path: Path) -> None:
    """Make the file, for its owner's eyes only."""
    if not path.exists():
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise TerminalError(f"the database {path} cannot be made: {error.strerror}") from error


def _prepare(connection: Any, path: Path) -> None:
    for pragma in _PRAGMAS:
        connection.execute(pragma)
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise TerminalError(f"the database {path} cannot use a write-ahead log there: put it on a local disk")


def _driver(connection: Connection) -> sqlite3.Connection:
    driver: Any = connection.connection.dbapi_connection
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - the engine is SQLite's, and connected
    return driver
