"""A transaction as the functions of this package see it, and who runs one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Executable, Table
from sqlalchemy.dialects import postgresql, sqlite

from fairlead.storage.base import Event

T = TypeVar("T")
Values = Mapping[str, Any]


class Transaction:
    """What happens through it is committed together, and announced afterwards."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.events: dict[Event, None] = {}

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self.connection.dialect.name

    def run(self, statement: Executable, values: Values | Sequence[Values] | None = None) -> int:
        """Execute a statement and return how many rows it touched."""
        return int(self.connection.execute(statement, values).rowcount)

    def all(self, statement: Executable, values: Values | None = None) -> Sequence[Any]:
        """Return the rows of a query."""
        return self.connection.execute(statement, values).all()

    def first(self, statement: Executable, values: Values | None = None) -> Any:
        """Return the only row of a query, or None."""
        return self.connection.execute(statement, values).first()

    def upsert(self, table: Table, rows: Sequence[Values]) -> None:
        """Add rows; one whose primary key is there replaces what was there."""
        if rows:
            self.run(_upsert(self.dialect, table, tuple(rows[0])), rows)

    def add_if_new(self, table: Table, row: Values) -> bool:
        """Add a row, unless one with its key is there; return whether it was added."""
        return self.run(_insert_if_new(self.dialect, table), row) == 1

    def add_up(self, table: Table, row: Values, sums: tuple[str, ...]) -> None:
        """Add a row; if its primary key is there, add its *sums* to what was there instead."""
        self.run(_add_up(self.dialect, table, sums), row)

    def announce(self, topic: str, key: str) -> None:
        """Say on the bus, once this is committed, that something changed."""
        self.events[Event(topic, key)] = None


def _insert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


@cache
def _insert_if_new(dialect: str, table: Table) -> Executable:
    return _insert(dialect, table).on_conflict_do_nothing()


@cache
def _upsert(dialect: str, table: Table, names: tuple[str, ...]) -> Executable:
    insert = _insert(dialect, table)
    key = [column.name for column in table.primary_key]
    changes = {name: insert.excluded[name] for name in names if name not in key}
    return insert.on_conflict_do_update(index_elements=key, set_=changes)


@cache
def _add_up(dialect: str, table: Table, sums: tuple[str, ...]) -> Executable:
    insert = _insert(dialect, table)
    changes = {name: table.c[name] + insert.excluded[name] for name in sums}
    return insert.on_conflict_do_update(index_elements=[column.name for column in table.primary_key], set_=changes)


class Database(Protocol):
    """Runs functions in transactions, and carries events between processes."""

    async def read(self, body: Callable[[Transaction], T]) -> T:
        """Run *body*, which changes nothing."""

    async def write(self, body: Callable[[Transaction], T]) -> T:
        """Run *body*; it is durable when this returns. It may be run again if the transaction did not come through."""

    async def migrate(self, body: Callable[[Connection], None]) -> None:
        """Run *body* in one transaction that no other process runs at the same time."""

    def subscribe(self, *topics: str) -> AsyncIterator[Event]:
        """Yield events from now on."""

    async def aclose(self) -> None:
        """Close every connection."""
