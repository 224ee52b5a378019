"""From a URL to a storage."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from fairlead.errors import TerminalError
from fairlead.storage.sql.store import SqlStorage

_FORMS = "give sqlite:///path (four slashes: absolute) or postgresql://user:password@host/database"


def open_sql_storage(url: str) -> SqlStorage:
    """Return the storage behind *url*, which is never shown: it may hold a password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise TerminalError(f"the storage URL cannot be read: {_FORMS}") from None
    kind = parsed.drivername.partition("+")[0]
    if kind == "sqlite":
        return _sqlite(parsed)
    if kind in {"postgresql", "postgres"}:
        from fairlead.storage.sql.postgres import PostgresDatabase

        return SqlStorage(PostgresDatabase(parsed))
    raise TerminalError(f"storage {kind!r} is not known: {_FORMS}")


def _sqlite(url: URL) -> SqlStorage:
    from fairlead.storage.sql.sqlite import SqliteDatabase

    if not url.database or url.database == ":memory:" or url.host:
        raise TerminalError(f"the storage has to be a file that processes can share: {_FORMS}")
    return SqlStorage(SqliteDatabase(Path(url.database)))
