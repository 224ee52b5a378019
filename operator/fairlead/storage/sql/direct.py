"""A transaction that hands SQLite's driver what it runs again and again: text, and values in the form that it takes.

Of a short statement that is used all the time, what SQLAlchemy does costs many times what SQLite does. So it says once
how a statement reads and how its values are kept. What it sees for the first time, or cannot say once for all (lists
that expand), it runs itself, in the same transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Column, Connection, Dialect, Executable
from sqlalchemy.engine import result_tuple
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.schema import ScalarElementColumnDefault
from sqlalchemy.types import TypeEngine

from fairlead.storage.sql.transaction import Transaction, Values

_Process = Callable[[Any], Any] | None
_Names = tuple[str, ...]


class Prepared:
    """A statement as the driver takes it."""

    def __init__(self, statement: Any, compiled: SQLCompiler, given: _Names) -> None:
        dialect = compiled.dialect
        self.text = str(compiled)
        self._constants = {name: value for name, value in _constants(compiled).items() if name not in given}
        self._binds = [(name, _writing(compiled.binds[name].type, dialect)) for name in compiled.positiontup or ()]
        columns = getattr(statement, "exported_columns", ())
        reading = [_reading(column.type, dialect) for column in columns]
        self._width = len(reading)
        self._reading = [(at, process) for at, process in enumerate(reading) if process is not None]
        self._row: Callable[[Sequence[Any]], Any] | None = None

    def bind(self, values: Values) -> list[Any]:
        """Return values in the order and form in which the driver takes them."""
        if self._constants:
            values = {**self._constants, **values}
        return [values[name] if process is None else process(values[name]) for name, process in self._binds]

    def row(self, cursor: sqlite3.Cursor, raw: Sequence[Any]) -> Any:
        """Return a row as SQLAlchemy would."""
        if self._row is None:
            self._row = _rows_of(cursor, self._width)
        found = list(raw)
        for at, process in self._reading:
            found[at] = process(found[at])
        return self._row(found)


def _writing(kind: TypeEngine[Any], dialect: Dialect) -> _Process:
    return kind.dialect_impl(dialect).bind_processor(dialect)


def _reading(kind: TypeEngine[Any], dialect: Dialect) -> _Process:
    return kind.dialect_impl(dialect).result_processor(dialect, None)


def _constants(compiled: SQLCompiler) -> dict[str, Any]:
    """Return the values that a statement has of itself, columns' defaults among them."""
    written = {name: bind.effective_value for name, bind in compiled.binds.items() if not bind.required}
    defaults = {
        column.key: column.default.arg
        for column in _prefetched(compiled)
        if isinstance(column.default, ScalarElementColumnDefault)
    }
    return written | defaults


def _prefetched(compiled: SQLCompiler) -> tuple[Column[Any], ...]:
    return *compiled.insert_prefetch, *compiled.update_prefetch


def _rows_of(cursor: sqlite3.Cursor, width: int) -> Callable[[Sequence[Any]], Any]:
    names = [column[0] for column in cursor.description]
    if len(names) != width:
        raise TypeError(f"the statement has {len(names)} columns ({', '.join(names)}), not {width}")
    return result_tuple(names)


class Statements:
    """The statements of one database that were prepared, for as long as somebody has them."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Executable, dict[_Names, Prepared | None]] = WeakKeyDictionary()

    def get(self, statement: Executable, given: _Names, dialect: Dialect) -> Prepared | None:
        """Return a statement that is used once more with values of these names, or None: it is SQLAlchemy's."""
        known = self._known.get(statement)
        if known is None:
            self._known[statement] = {}
            return None
        try:
            return known[given]
        except KeyError:
            return known.setdefault(given, _prepare(statement, given, dialect))


def _prepare(statement: Any, given: _Names, dialect: Dialect) -> Prepared | None:
    compiled = statement.compile(dialect=dialect, column_keys=list(given) or None)
    if not isinstance(compiled, SQLCompiler) or not _is_plain(statement, compiled):
        return None
    return Prepared(statement, compiled, given)


def _is_plain(statement: Any, compiled: SQLCompiler) -> bool:
    """Return whether the text is the same whatever the values are, and all that it needs is known."""
    expands = compiled.post_compile_params or compiled.literal_execute_params
    known = all(isinstance(column.default, ScalarElementColumnDefault) for column in _prefetched(compiled))
    return hasattr(statement, "exported_columns") and not expands and known


class DirectTransaction(Transaction):
    """A transaction of SQLite's, which may be under way on the driver's own connection."""

    def __init__(self, connection: Connection, driver: sqlite3.Connection, statements: Statements) -> None:
        super().__init__(connection)
        self._driver = driver
        self._statements = statements

    def run(self, statement: Executable, values: Values | Sequence[Values] | None = None) -> int:
        """Execute a statement and return how many rows it touched."""
        if values is None or isinstance(values, Mapping):
            return self._run_one(statement, values)
        prepared = self._prepared(statement, values[0]) if values else None
        if prepared is None:
            return super().run(statement, values)
        return self._driver.executemany(prepared.text, [prepared.bind(one) for one in values]).rowcount

    def all(self, statement: Executable, values: Values | None = None) -> Sequence[Any]:
        """Return the rows of a query."""
        prepared = self._prepared(statement, values)
        if prepared is None:
            return super().all(statement, values)
        cursor = self._driver.execute(prepared.text, prepared.bind(values or {}))
        return [prepared.row(cursor, raw) for raw in cursor]

    def first(self, statement: Executable, values: Values | None = None) -> Any:
        """Return the only row of a query, or None."""
        prepared = self._prepared(statement, values)
        if prepared is None:
            return super().first(statement, values)
        cursor = self._driver.execute(prepared.text, prepared.bind(values or {}))
        raw = cursor.fetchone()
        found = None if raw is None else prepared.row(cursor, raw)
        cursor.close()
        return found

    def _run_one(self, statement: Executable, values: Values | None) -> int:
        prepared = self._prepared(statement, values)
        if prepared is None:
            return super().run(statement, values)
        cursor = self._driver.execute(prepared.text, prepared.bind(values or {}))
        cursor.close()
        return cursor.rowcount

    def _prepared(self, statement: Executable, values: Values | None) -> Prepared | None:
        return self._statements.get(statement, tuple(values or ()), self.connection.dialect)
