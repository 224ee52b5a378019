"""Storage in memory whose transactions run at once, in whoever asks: for tests in simulated time, without threads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from sqlalchemy import Connection, create_engine, delete, event
from sqlalchemy.pool import StaticPool

from fairlead.storage.base import Event
from fairlead.storage.sql.bus import Hub
from fairlead.storage.sql.errors import translated
from fairlead.storage.sql.store import SqlStorage
from fairlead.storage.sql.tables import metadata
from fairlead.storage.sql.transaction import T, Transaction

_WHERE = "the database in memory"


class InlineDatabase:
    """A `fairlead.storage.sql.transaction.Database` with the statements of the real one and nothing to wait for."""

    def __init__(self) -> None:
        self._engine = create_engine(
            "sqlite://",
            connect_args={"check_same_thread": False, "isolation_level": None},
            poolclass=StaticPool,
        )
        event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        self._hub = Hub()

    async def read(self, body: Callable[[Transaction], T]) -> T:
        """Run *body*."""
        return self._run(body)

    async def write(self, body: Callable[[Transaction], T]) -> T:
        """Run *body* and announce what it changed."""
        return self._run(body)

    def _run(self, body: Callable[[Transaction], T]) -> T:
        with translated(_WHERE), self._engine.begin() as connection:
            tx = Transaction(connection)
            result = body(tx)
        self._hub.tell(tx.events)
        return result

    async def migrate(self, body: Callable[[Connection], None]) -> None:
        """Run *body*."""
        with translated(_WHERE), self._engine.begin() as connection:
            body(connection)

    def subscribe(self, *topics: str) -> AsyncIterator[Event]:
        """Yield events from now on."""
        return self._hub.subscribe(topics)

    def wipe(self) -> None:
        """Forget every row; tables and prepared statements stay."""
        with self._engine.begin() as connection:
            for table in reversed(metadata.sorted_tables):
                if "only" not in table.info:
                    connection.execute(delete(table))

    async def aclose(self) -> None:
        """Forget everything."""
        self._hub.close()
        self._engine.dispose()


class InlineStorage(SqlStorage):
    """A storage in memory that can be used again."""

    def __init__(self) -> None:
        self._inline = InlineDatabase()
        super().__init__(self._inline)

    def wipe(self) -> None:
        """Forget everything that is kept; the next test begins with it."""
        self._inline.wipe()
