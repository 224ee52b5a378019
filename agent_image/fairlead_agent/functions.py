"""What an expression can call: the published list, and those functions that the CEL library lacks.

`FUNCTIONS` is what the reference page shows; each example in it is tested. A function works as ``f(x)`` and ``x.f()``.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

MAX_TEXT: Final = 1 << 20
"""The longest text that a function gives, in characters."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function or macro of the language. *result* is what *example* gives, as JSON."""

    name: str
    example: str
    result: str
    description: str


FUNCTIONS: Final = tuple(
    Function(*row)
    for row in (
        ("size", "size([1, 2])", "2", "length of a list, map or bytes; of a text, its characters"),
        ("has", 'has({"a": 1}.b)', "false", "whether an object has a field; null is no object"),
        ("all", "[1, 2].all(x, x > 0)", "true", "whether it holds for every element"),
        ("exists", "[1, 2].exists(x, x > 1)", "true", "whether it holds for some element"),
        ("exists_one", "[1, 2].exists_one(x, x > 1)", "true", "whether it holds for exactly one element"),
        ("map", "[1, 2].map(x, x * 2)", "[2, 4]", "every element changed; with three arguments only those that match"),
        ("filter", "[1, 2].filter(x, x > 1)", "[2]", "the elements for which it holds"),
        ("contains", '"abc".contains("b")', "true", "whether a text holds another"),
        ("startsWith", '"abc".startsWith("a")', "true", "whether a text begins so"),
        ("endsWith", '"abc".endsWith("c")', "true", "whether a text ends so"),
        ("matches", '"abc".matches("^a.c$")', "true", "whether a regular expression (RE2) is found in a text"),
        ("string", "string(true)", '"true"', "any value as text; lists, maps and null as in {{ }}"),
        ("int", 'int("5")', "5", "a number or text as whole number"),
        ("uint", "uint(5)", "5", "a number or text as unsigned whole number"),
        ("double", "double(5) / 2.0", "2.5", "a number or text as floating-point number"),
        ("bytes", 'bytes("abc").size()', "3", "a text as bytes"),
        ("bool", 'bool("true")', "true", "a text as boolean"),
        ("type", "type(1) == int", "true", "the type of a value"),
        ("dyn", "dyn(1)", "1", "the value itself, of unknown type"),
        ("timestamp", 'timestamp("2026-01-01T00:00:00Z") < timestamp("2027-01-01T00:00:00Z")', "true", "a time"),
        ("duration", 'duration("90s")', '"90s"', "a span of time"),
        ("getFullYear", 'timestamp("2026-01-02T03:04:05Z").getFullYear()', "2026", "the year of a time"),
        ("getMonth", 'timestamp("2026-01-02T03:04:05Z").getMonth()', "0", "the month of a time, from 0"),
        ("getDate", 'timestamp("2026-01-02T03:04:05Z").getDate()', "2", "the day of the month, from 1"),
        ("getDayOfMonth", 'timestamp("2026-01-02T03:04:05Z").getDayOfMonth()', "1", "the day of the month, from 0"),
        ("getDayOfWeek", 'timestamp("2026-01-02T03:04:05Z").getDayOfWeek()', "5", "the day of the week, Sunday is 0"),
        ("getDayOfYear", 'timestamp("2026-01-02T03:04:05Z").getDayOfYear()', "1", "the day of the year, from 0"),
        ("getHours", 'timestamp("2026-01-02T03:04:05Z").getHours()', "3", "the hours of a time or span"),
        ("getMinutes", 'timestamp("2026-01-02T03:04:05Z").getMinutes()', "4", "the minutes of a time or span"),
        ("getSeconds", 'duration("90s").getSeconds()', "90", "the seconds of a time or span"),
        ("min", "min(3, 1, 2)", "1", "the smallest; also of a list"),
        ("max", "max([3, 1, 2])", "3", "the largest; also of a list"),
        ("sum", "sum([1, 2, 3])", "6", "the sum of a list of numbers"),
        ("join", '["a", "b"].join(", ")', '"a, b"', "a list of texts as one"),
        ("split", '"a,b".split(",")', '["a", "b"]', "a text cut at a separator"),
        ("lowerAscii", '"ABC".lowerAscii()', '"abc"', "a text in lower case (A to Z)"),
        ("upperAscii", '"abc".upperAscii()', '"ABC"', "a text in upper case (a to z)"),
        ("trim", '"  a ".trim()', '"a"', "a text without spaces at its ends"),
        ("replace", '"a-b".replace("-", "+")', '"a+b"', "a text with one text for another"),
        ("substring", '"abcd".substring(1, 3)', '"bc"', "a part of a text; without the end: to its end"),
        ("indexOf", '"abc".indexOf("c")', "2", "where a text is in another, or -1"),
        ("toJson", 'toJson({"a": [1]})', r'"{\"a\":[1]}"', "a value as JSON text"),
        ("fromJson", "fromJson('[1, 2]')[1]", "2", "the value of a JSON text"),
    )
)
NAMES: Final = frozenset(function.name for function in FUNCTIONS)
MACROS: Final = frozenset({"all", "exists", "exists_one", "map", "filter"})


def to_text(value: Any) -> str:
    """Return *value* as text puts it: null is empty, lists and maps are JSON, the rest as CEL prints it."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() if math.isfinite(value):
            return format(Decimal(repr(value)), "f").removesuffix(".0")
        case _:
            return _json(value)


def _json(value: Any) -> str:
    """Return *value* as JSON, sorted by key: the order of a map must not depend on where it was kept."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def to_json(value: Any) -> Any:
    """Return what CEL gave as JSON: times, spans and bytes become text, maps are sorted by key.

    Raises:
        ValueError: there is no JSON for it (infinity, a number that is none).
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float() if math.isfinite(value):
            return value
        case list():
            return [to_json(one) for one in value]
        case dict():
            return dict(sorted((to_text(key), to_json(one)) for key, one in value.items()))
        case datetime() | timedelta() | bytes():
            return _as_text(value)
        case _:
            raise ValueError(f"{value} is no JSON value")


def _as_text(value: datetime | timedelta | bytes) -> str:
    match value:
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case timedelta():
            seconds = Decimal(value // timedelta(microseconds=1)).scaleb(-6)
            return f"{seconds.normalize():f}s"
        case _:
            return base64.b64encode(value).decode()


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} wants text")
    return value


def _bounded(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise ValueError(f"the text would be longer than {MAX_TEXT} characters")
    return text


def _size(value: Any) -> int:
    """Count the characters of a text, as ``substring`` does: the library counts its bytes."""
    if not isinstance(value, str | bytes | list | dict):
        raise TypeError("size wants a text, bytes, a list or a map")
    return len(value)


def _numbers(values: tuple[Any, ...], name: str) -> list[Any]:
    found = values[0] if len(values) == 1 and isinstance(values[0], list) else list(values)
    if not found and name != "sum":
        raise ValueError(f"{name} of nothing")
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in found):
        raise TypeError(f"{name} wants numbers")
    return list(found)


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    known = {"true": True, "false": False}
    if not isinstance(value, str) or value not in known:
        raise ValueError('bool wants "true" or "false"')
    return known[value]


def _join(values: Any, separator: str = "") -> str:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("join wants a list of texts")
    return _bounded(separator.join(values))


def _replace(text: Any, old: str, new: str) -> str:
    found = _text(text, "replace")
    if len(found) + found.count(old) * len(new) > MAX_TEXT * 2:
        raise ValueError(f"the text would be longer than {MAX_TEXT} characters")
    return _bounded(found.replace(old, new))


def _split(text: Any, separator: str) -> list[str]:
    return _text(text, "split").split(separator) if separator else list(_text(text, "split"))


def _substring(text: Any, start: int, end: int | None = None) -> str:
    found = _text(text, "substring")
    last = len(found) if end is None else end
    if not 0 <= start <= last <= len(found):
        raise ValueError(f"substring({start}, {last}) of a text of {len(found)} characters")
    return found[start:last]


_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_UPPER: Final = {lower: upper for upper, lower in _LOWER.items()}

IMPLEMENTED: Final[Mapping[str, Callable[..., Any]]] = {
    "size": _size,
    "string": lambda value: to_text(to_json(value)),
    "bool": _bool,
    "min": lambda *values: min(_numbers(values, "min")),
    "max": lambda *values: max(_numbers(values, "max")),
    "sum": lambda *values: sum(_numbers(values, "sum")),
    "join": _join,
    "split": _split,
    "lowerAscii": lambda text: _text(text, "lowerAscii").translate(_LOWER),
    "upperAscii": lambda text: _text(text, "upperAscii").translate(_UPPER),
    "trim": lambda text: _text(text, "trim").strip(),
    "replace": _replace,
    "substring": _substring,
    "indexOf": lambda text, part: _text(text, "indexOf").find(part),
    "toJson": lambda value: _json(to_json(value)),
    "fromJson": lambda text: json.loads(_text(text, "fromJson")),
}
"""What the CEL library lacks, or does only for some types (``string``), or in another way (`RENAMED`)."""
RENAMED: Final[Mapping[str, str]] = {"size": "size__"}
"""The library's own would win: expressions are compiled with these names instead."""
