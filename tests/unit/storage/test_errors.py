from __future__ import annotations

import sqlite3

import pytest

from fairlead.errors import FairleadError, TerminalError, Unavailable
from fairlead.storage.sql.errors import translate


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        pytest.param(sqlite3.OperationalError("database is locked"), Unavailable, id="locked"),
        pytest.param(sqlite3.OperationalError("database or disk is full"), Unavailable, id="full"),
        pytest.param(sqlite3.OperationalError("disk I/O error"), Unavailable, id="disk"),
        pytest.param(sqlite3.OperationalError("interrupted"), Unavailable, id="interrupted"),
        pytest.param(sqlite3.OperationalError("unable to open database file"), TerminalError, id="no-folder"),
        pytest.param(sqlite3.DatabaseError("file is not a database"), TerminalError, id="something-else"),
    ],
)
def test_translate_says_whether_it_may_pass(error: sqlite3.Error, kind: type[FairleadError]) -> None:
    assert isinstance(translate(error, "/x/fairlead.db"), kind)


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("no such column: runs.parked"),
        sqlite3.OperationalError('near "SELEC": syntax error'),
        sqlite3.IntegrityError("UNIQUE constraint failed: tasks.id"),
        KeyError("x"),
    ],
)
def test_translate_leaves_a_bug_what_it_is(error: Exception) -> None:
    assert translate(error, "/x/fairlead.db") is None
