"""How values are kept in columns, the same way in both databases."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import orjson
from sqlalchemy import BigInteger, Dialect, Integer, Text
from sqlalchemy.types import TypeDecorator

from fairlead.errors import InvalidObject
from fairlead.storage.money import BudgetLine, Payment, Reservation

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _mapping(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


class Json(TypeDecorator[Any]):
    """Any JSON value, as text: PostgreSQL's own type refuses NUL characters, and nothing here is searched inside."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Write it."""
        try:
            return None if value is None else orjson.dumps(value, default=_mapping).decode()
        except orjson.JSONEncodeError as error:
            raise InvalidObject(f"a value cannot be kept as JSON: {error}", reason="InvalidRequest") from error

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002
        """Read it."""
        return None if value is None else orjson.loads(value)


class JsonTuple(Json):
    """A list that is a tuple inside."""

    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002
        """Read it."""
        return tuple(orjson.loads(value))


class ReservationJson(Json):
    """A `Reservation`."""

    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> Reservation | None:  # noqa: ARG002
        """Read it."""
        if value is None:
            return None
        fields = orjson.loads(value)
        return Reservation(**fields | {"lines": tuple(BudgetLine(**line) for line in fields["lines"])})


class PaymentsJson(Json):
    """A tuple of `Payment`."""

    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[Payment, ...]:  # noqa: ARG002
        """Read it."""
        return tuple(Payment(**fields) for fields in orjson.loads(value))


class Instant(TypeDecorator[datetime]):
    """A time, as whole microseconds since 1970 in UTC."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Write it."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Read it."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class Prose(TypeDecorator[str]):
    """Text from outside: what no database takes (NUL, halves of surrogate pairs) is replaced."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Write it."""
        return None if value is None else value.replace("\0", "\ufffd").encode(errors="replace").decode()


class Word(TypeDecorator[StrEnum]):
    """A member of an enumeration, as its value."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: type[StrEnum]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: StrEnum | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Write it."""
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> StrEnum:  # noqa: ARG002
        """Read it."""
        return self.kind(value)


Serial = BigInteger().with_variant(Integer, "sqlite")
"""A key that the database counts up."""
