from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    Text,
    bindparam,
    create_engine,
    func,
    insert,
    select,
    update,
)

from fairlead.storage.sql.direct import DirectTransaction, Statements
from fairlead.storage.sql.types import Instant, Json, JsonTuple, Word

NOW = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)


class Mood(StrEnum):
    GOOD = "Good"
    BAD = "Bad"


THINGS = Table(
    "things",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("mood", Word(Mood), nullable=False, default=Mood.GOOD),
    Column("at", Instant),
    Column("facts", Json, nullable=False, default={}),
    Column("words", JsonTuple, nullable=False, default=()),
    Column("held", Boolean, nullable=False, default=False),
    Column("key", Text, nullable=False, default=""),
)
ADD = insert(THINGS)
ALL = select(THINGS).order_by(THINGS.c.id)
ONE = ALL.where(THINGS.c.id == bindparam("which"))
SOME = ALL.where(THINGS.c.id.in_(bindparam("ids", expanding=True)))
CHANGE = update(THINGS).where(THINGS.c.id == bindparam("which"))
WORSE = CHANGE.values(mood=Mood.BAD).returning(THINGS.c.id, THINGS.c.mood)
FULL = {"id": 1, "mood": Mood.BAD, "at": NOW, "facts": {"a": [1]}, "words": ("x", "y"), "held": True, "key": "k"}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    engine = create_engine(f"sqlite:///{tmp_path / 'things.db'}", connect_args={"isolation_level": None})
    with engine.connect() as connection:
        THINGS.metadata.create_all(connection)
        connection.commit()
        yield connection
    engine.dispose()


@pytest.fixture
def tx(connection: Connection) -> DirectTransaction:
    driver: Any = connection.connection.dbapi_connection
    return DirectTransaction(connection, driver, Statements())


def test_all_again_gives_the_rows_that_sqlalchemy_gives(tx: DirectTransaction) -> None:
    tx.run(ADD, FULL)
    tx.run(ADD, {"id": 2})
    tx.run(ADD, {"id": 3})  # the second time with these names: by the driver, with the columns' defaults

    first, again = tx.all(ALL), tx.all(ALL)

    assert list(first) == list(again)
    assert dict(again[0]._mapping) == FULL
    assert again[2][1:] == again[1][1:] == (Mood.GOOD, None, {}, (), False, "")
    assert again[0].mood is Mood.BAD
    assert again[0].held is True
    assert again[0]._fields == first[0]._fields


def test_first_again_of_nothing_is_none(tx: DirectTransaction) -> None:
    assert [tx.first(ONE, {"which": 7}) for _ in range(3)] == [None] * 3


def test_first_again_of_what_is_changed_and_returned(tx: DirectTransaction) -> None:
    tx.run(ADD, [{"id": 1}, {"id": 2}])

    changed = [tx.first(WORSE, {"which": which}) for which in (1, 2, 3)]

    assert changed == [(1, Mood.BAD), (2, Mood.BAD), None]


def test_run_again_with_other_names_sets_those(tx: DirectTransaction) -> None:
    tx.run(ADD, {"id": 1})
    for values in ({"key": "a"}, {"key": "b"}, {"held": True}, {"facts": {"c": 1}, "key": "d"}):
        assert tx.run(CHANGE, {"which": 1, **values}) == 1

    row = tx.first(ONE, {"which": 1})

    assert (row.key, row.held, row.facts) == ("d", True, {"c": 1})
    assert tx.run(CHANGE, {"which": 9, "key": "e"}) == 0


def test_run_again_counts_all_rows(tx: DirectTransaction) -> None:
    assert [tx.run(ADD, [{"id": at}, {"id": at + 1}]) for at in (1, 3, 5)] == [2, 2, 2]


def test_all_again_of_a_list_that_expands(tx: DirectTransaction) -> None:
    tx.run(ADD, [{"id": 1}, {"id": 2}, {"id": 3}])

    found = [[row.id for row in tx.all(SOME, {"ids": ids})] for ids in ([1], [1, 2], [1, 2, 3], [])]

    assert found == [[1], [1, 2], [1, 2, 3], []]


def test_first_again_of_a_column_without_a_name(tx: DirectTransaction) -> None:
    count = select(func.count()).select_from(THINGS)

    assert [tuple(tx.first(count)) for _ in range(3)] == [(0,)] * 3


def test_run_again_without_a_value_that_it_needs(tx: DirectTransaction) -> None:
    tx.first(ONE, {"which": 1})

    with pytest.raises(KeyError, match="which"):
        tx.first(ONE, {})


def test_run_again_raises_what_the_driver_raises(tx: DirectTransaction) -> None:
    tx.run(ADD, {"id": 1})

    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        tx.run(ADD, {"id": 1})
