"""Between rows and what they hold. Columns are named like fields, so one function serves every kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

from sqlalchemy import RowMapping, Table
from sqlalchemy.sql import ColumnElement

from fairlead.storage.base import CallAnswer, CallIntent, CallRecord, CallState

T = TypeVar("T")


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


@cache
def _reader(kind: Any) -> Callable[[Any], tuple[Any, ...]]:
    reader: Callable[[Any], tuple[Any, ...]] = attrgetter(*_names(kind))
    return reader


@cache
def columns(table: Table, kind: Any) -> tuple[ColumnElement[Any], ...]:
    """Return the columns of *table* that are fields of *kind*, in the order of its fields."""
    return tuple(table.c[name] for name in _names(kind))


def build(kind: type[T], row: Sequence[Any]) -> T:
    """Return what a row holds that was selected with `columns`."""
    return kind(*row)


def values(item: Any) -> dict[str, Any]:
    """Return the values of a row for *item*."""
    kind: Any = type(item)
    return dict(zip(_names(kind), _reader(kind)(item), strict=True))


def build_call(row: RowMapping) -> CallRecord:
    """Return a call from a row of all columns."""
    answer = None
    if row["state"] is CallState.DONE:
        answer = CallAnswer(**{name: row[name] for name in _names(CallAnswer)})
    intent = CallIntent(**{name: row[name] for name in _names(CallIntent)})
    granted = row["granted_output_tokens"]
    return CallRecord(intent, row["state"], answer, row["repeats"], granted_output_tokens=granted)
