from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite
from sqlalchemy.types import TypeDecorator

from fairlead.errors import InvalidObject
from fairlead.storage.base import RunState
from fairlead.storage.sql.types import Instant, Json, JsonTuple, Prose, Word

DIALECT = sqlite.dialect()
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def there_and_back(kind: TypeDecorator[Any], value: Any) -> Any:
    return kind.process_result_value(kind.process_bind_param(value, DIALECT), DIALECT)


@given(JSON)
def test_json_comes_back(value: Any) -> None:
    assert there_and_back(Json(), value) == value


def test_json_of_a_frozen_mapping_and_a_tuple() -> None:
    assert there_and_back(Json(), MappingProxyType({"a": (1, 2)})) == {"a": [1, 2]}
    assert there_and_back(JsonTuple(), ("a", "b")) == ("a", "b")


@pytest.mark.parametrize("value", [object(), "half a pair \ud800", 2**70, {1: "a key that is no text"}])
def test_json_of_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(InvalidObject, match="cannot be kept as JSON"):
        Json().process_bind_param(value, DIALECT)


@given(st.datetimes(timezones=st.timezones()))
def test_instant_comes_back_to_the_microsecond_in_utc(value: datetime) -> None:
    back = there_and_back(Instant(), value)

    assert back == value.astimezone(UTC)
    assert back.tzinfo is UTC


def test_instants_compare_as_times_do() -> None:
    east = datetime(2026, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=2)))
    numbers = [Instant().process_bind_param(value, DIALECT) for value in (east, datetime(2026, 1, 1, tzinfo=UTC))]

    assert numbers == sorted(numbers, key=lambda number: number or 0)


@given(st.text(st.characters()))
def test_prose_is_always_text_that_a_database_takes(value: str) -> None:
    kept = Prose().process_bind_param(value, DIALECT)

    assert kept is not None
    assert "\0" not in kept
    assert kept.encode().decode() == kept


def test_word_is_a_member_again() -> None:
    assert there_and_back(Word(RunState), RunState.FAILED) is RunState.FAILED
