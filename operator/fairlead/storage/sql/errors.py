"""Turns the databases' errors into ours, each with what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from fairlead.errors import FairleadError, TerminalError, Unavailable

_SQLITE: tuple[tuple[str, type[FairleadError], str], ...] = (
    ("not a database", TerminalError, "is not a SQLite database: give another path, or restore a backup"),
    ("malformed", TerminalError, "is damaged: restore a backup (`fairlead backup` makes them)"),
    ("readonly", TerminalError, "cannot be written: give this user the right to write the file and its folder"),
    ("unable to open", TerminalError, "cannot be opened: its folder must exist and this user must have rights to it"),
    ("disk is full", Unavailable, "did not fit: free some space on its disk; nothing that was acknowledged is lost"),
    ("locked", Unavailable, "is busy: another process has been writing for long"),
    ("interrupted", Unavailable, "did not get to an end: it was interrupted"),
    ("out of memory", Unavailable, "did not get the memory that it needs: give this process more"),
    ("disk i/o", Unavailable, "could not be read or written: look at the disk (space, quota, kernel log)"),
)
_POSTGRES_TERMINAL = {
    "28000": "the user is not let in: check the user and pg_hba.conf",
    "28P01": "the password is wrong: check the storage URL",
    "3D000": "the database does not exist: create it",
    "42501": "the user lacks a right: make it the owner of the database",
    "25006": "the server is read-only (a replica?): give the primary's address",
    "22021": "the database is not in UTF8: create it with ENCODING 'UTF8'",
}
RETRIED = {"40001", "40P01", "23503"}
"""Serialization failure, deadlock, and a row that another transaction deleted in between: run it again."""


def sqlstate(error: BaseException) -> str:
    """Return PostgreSQL's code for what happened, or nothing."""
    seen: BaseException | None = error
    while seen is not None:
        code = getattr(seen, "sqlstate", None)
        if isinstance(code, str):
            return code
        seen = getattr(seen, "orig", None) or seen.__cause__
    return ""


def _from_sqlite(error: sqlite3.Error, where: str) -> FairleadError | None:
    text = str(error).lower()
    for mark, kind, advice in _SQLITE:
        if mark in text:
            return kind(f"the database {where} {advice} (SQLite: {error})")
    return None


def _from_postgres(error: BaseException, where: str) -> FairleadError | None:
    code = sqlstate(error)
    if code in _POSTGRES_TERMINAL:
        return TerminalError(f"PostgreSQL at {where}: {_POSTGRES_TERMINAL[code]}")
    transient = code[:2] in {"08", "53", "57", "58", "40", "55", "XX"} or code in RETRIED
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    if transient or lost or isinstance(error, OSError | TimeoutError | PoolTimeout):
        return Unavailable(f"PostgreSQL at {where} did not answer: {_first_line(error)}")
    return None


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return next(iter(str(cause).splitlines()), "") or type(cause).__name__


def translate(error: BaseException, where: str) -> FairleadError | None:
    """Return our error for a database's, or None if it is a bug."""
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, FairleadError):
        return cause  # of a column that does not take a value
    return _from_sqlite(cause, where) if isinstance(cause, sqlite3.Error) else _from_postgres(error, where)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise our errors in place of the database's."""
    try:
        yield
    except FairleadError:
        raise
    except Exception as error:
        ours = translate(error, where)
        if ours is None:
            raise
        raise ours from error
