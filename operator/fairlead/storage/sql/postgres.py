"""PostgreSQL over asyncpg: a pool of connections, and one that listens."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import orjson
from sqlalchemy import URL, Connection, bindparam, func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from fairlead.errors import FairleadError, Unavailable
from fairlead.logs import get_logger
from fairlead.storage.base import Event
from fairlead.storage.sql.bus import Hub
from fairlead.storage.sql.errors import RETRIED, sqlstate, translated
from fairlead.storage.sql.transaction import T, Transaction

_CHANNEL = "fairlead"
_TRIES = 5
_CONNECT_SECONDS = 10.0
_STATEMENT_SECONDS = 30.0
_CHECK_SECONDS = 30.0
_MAX_BACKOFF_SECONDS = 5.0
_MIGRATION_LOCK = 0x6661_6972_6C65_6164  # "fairlead" in ASCII
_NOTIFY = select(func.pg_notify(_CHANNEL, bindparam("payload")))
_log = get_logger(__name__)


class PostgresDatabase:
    """One database on a server. Any number of processes of any number of machines may share it."""

    def __init__(self, url: URL) -> None:
        self._where = f"{url.host or url.query.get('host', 'localhost')}/{url.database}"
        self._engine = _engine(url)
        self._listening_engine = _engine(url, poolclass=NullPool)
        self._origin = uuid.uuid4().hex
        self._hub = Hub()
        self._listener: asyncio.Task[None] | None = None
        self._closed = False

    async def read(self, body: Callable[[Transaction], T]) -> T:
        """Run *body* in a transaction."""
        return await self._run(body)

    async def write(self, body: Callable[[Transaction], T]) -> T:
        """Run *body* in a transaction, again if it came into conflict with another one."""
        return await self._run(body)

    async def migrate(self, body: Callable[[Connection], None]) -> None:
        """Run *body* while it holds a lock on migrations."""

        def locked(tx: Transaction) -> None:
            tx.run(text("SET LOCAL statement_timeout = 0"))
            tx.first(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            body(tx.connection)

        await self._run(locked)

    def subscribe(self, *topics: str) -> AsyncIterator[Event]:
        """Yield events from now on."""
        self._require_open()
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen(), name="fairlead-bus")
        return self._hub.subscribe(topics)

    async def aclose(self) -> None:
        """Close every connection."""
        self._closed = True
        self._hub.close()
        if self._listener is not None:
            self._listener.cancel()
            with suppress(asyncio.CancelledError):
                await self._listener
        await self._listening_engine.dispose()
        await self._engine.dispose()

    def _require_open(self) -> None:
        if self._closed:
            raise Unavailable("the storage was closed: the process is ending")

    async def _run(self, body: Callable[[Transaction], T]) -> T:
        self._require_open()
        with translated(self._where):
            for _ in range(_TRIES - 1):
                try:
                    return await self._once(body)
                except FairleadError:
                    raise
                except Exception as error:
                    if sqlstate(error) not in RETRIED:
                        raise
            return await self._once(body)

    async def _once(self, body: Callable[[Transaction], T]) -> T:
        async with self._engine.begin() as connection:
            result, events = await connection.run_sync(self._body, body)
        self._hub.tell(events)
        return result

    def _body(self, connection: Connection, body: Callable[[Transaction], T]) -> tuple[T, tuple[Event, ...]]:
        tx = Transaction(connection)
        result = body(tx)
        for event in tx.events:
            tx.run(_NOTIFY, {"payload": orjson.dumps([self._origin, event.topic, event.key]).decode()})
        return result, tuple(tx.events)

    async def _listen(self) -> None:
        """Listen for as long as the storage is open, over as many connections as that takes."""
        pause = 0.1
        while True:
            try:
                async with self._listening_engine.connect() as connection:
                    raw = await connection.get_raw_connection()
                    pause = 0.1
                    await self._listen_on(raw.driver_connection)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next connection may do
                _log.warning("event_bus_lost", error=type(error).__name__, where=self._where)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _MAX_BACKOFF_SECONDS)

    async def _listen_on(self, driver: Any) -> None:
        ended = asyncio.Event()
        driver.add_termination_listener(lambda _: ended.set())
        await driver.add_listener(_CHANNEL, self._take)
        while not ended.is_set():
            try:
                await asyncio.wait_for(ended.wait(), _CHECK_SECONDS)
            except TimeoutError:
                await driver.execute("SELECT 1", timeout=_CONNECT_SECONDS)

    def _take(self, _driver: Any, _pid: int, _channel: str, payload: str) -> None:
        origin, topic, key = orjson.loads(payload)
        if origin != self._origin:
            self._hub.tell([Event(topic, key)])


def _engine(url: URL, **options: Any) -> AsyncEngine:
    query = dict(url.query)
    if "sslmode" in query:  # libpq's name; asyncpg calls it ssl
        query["ssl"] = query.pop("sslmode")
    settings = {"application_name": "fairlead", "statement_timeout": str(int(_STATEMENT_SECONDS * 1000)), "jit": "off"}
    if not options:
        options = {"pool_size": 5, "max_overflow": 5, "pool_timeout": _CONNECT_SECONDS, "pool_pre_ping": True}
    return create_async_engine(
        url.set(drivername="postgresql+asyncpg", query=query),
        connect_args={"timeout": _CONNECT_SECONDS, "server_settings": settings},
        **options,
    )
