"""Field errors, worded and classified as Kubernetes words and classifies them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

OMITTED: Any = object()
"""Stands for a value that the text does not show."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One cause of a refusal.

    Args:
        path: as Kubernetes prints it, ``spec.nodes[2].llm.prompt``; ``<nil>`` for the object as a whole.
        message: without the path: ``Invalid value: "x": must be …``.
        reason: the Status cause's reason, such as FieldValueInvalid.
    """

    path: str
    message: str
    reason: str


def text(value: Any) -> str:
    """Return *value* the way Kubernetes prints a bad value."""
    if value is None:
        return '"null"'
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _join(kind: str, value: Any, detail: str) -> str:
    parts = [kind] if value is OMITTED else [kind, text(value)]
    return ": ".join([*parts, detail] if detail else parts)


def _path(path: str) -> str:
    return path or "<nil>"


def invalid(path: str, value: Any, detail: str) -> FieldError:
    """The value breaks a rule."""
    return FieldError(_path(path), _join("Invalid value", value, detail), "FieldValueInvalid")


def type_invalid(path: str, value: Any, detail: str) -> FieldError:
    """The value has the wrong type or format."""
    return FieldError(_path(path), _join("Invalid value", value, detail), "FieldValueTypeInvalid")


def required(path: str, detail: str = "") -> FieldError:
    """The value is missing."""
    return FieldError(_path(path), _join("Required value", OMITTED, detail), "FieldValueRequired")


def forbidden(path: str, detail: str = "") -> FieldError:
    """The value may not be here."""
    return FieldError(_path(path), _join("Forbidden", OMITTED, detail), "FieldValueForbidden")


def duplicate(path: str, value: Any) -> FieldError:
    """The value is there twice."""
    return FieldError(_path(path), _join("Duplicate value", value, ""), "FieldValueDuplicate")


def unsupported(path: str, value: Any, supported: Iterable[Any]) -> FieldError:
    """The value is none of those allowed."""
    names = ", ".join(sorted(text(item if isinstance(item, str) else text(item)) for item in supported))
    return FieldError(
        _path(path), _join("Unsupported value", value, f"supported values: {names}"), "FieldValueNotSupported"
    )


def too_long(path: str, limit: int) -> FieldError:
    """The text is longer than *limit*."""
    unit = "byte" if limit == 1 else "bytes"
    return FieldError(_path(path), f"Too long: may not be more than {limit} {unit}", "FieldValueTooLong")


def too_many(path: str, count: int, limit: int) -> FieldError:
    """The list or map has more than *limit* entries."""
    unit = "item" if limit == 1 else "items"
    return FieldError(_path(path), f"Too many: {count}: must have at most {limit} {unit}", "FieldValueTooMany")
