"""Compares a value with a structural schema, CEL rules included, in words that say how to mend it.

The same schema is the CRD that the API server enforces, so nothing is said twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import cel

from fairlead.core.mistakes import Path, Problem, did_you_mean, to_text

Json = Mapping[str, Any]

_MANY: Final = 12
_WORDS: Final = {
    "object": "a mapping",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}
_TESTS: Final[dict[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list | tuple),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool) and value == math.floor(value)
    ),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
}
_SHAPES: Final = {
    r"^[a-z][a-z0-9_]{0,62}$": "begin with a lower-case letter and use lower-case letters, digits and underscores",
    r"^https?://[^\s]+$": "write an address that begins with https:// or http://",
    r"^[0-9]{1,12}(\.[0-9]{1,12})?$": 'write a decimal in quotes, such as "0.50"',
}
_NAME_WORDS: Final = "use lower-case letters, digits and hyphens"


def check_shape(schema: Json, value: Any, path: Path = (), *, written: Callable[[Path], str]) -> Iterator[Problem]:
    """Yield what is wrong with *value*. *written* gives the plain word of the file (``on``) that is no text."""
    if "x-kubernetes-int-or-string" in schema:
        yield from _int_or_string(schema, value, path)
        return
    kind = schema.get("type")
    if kind is None:
        return
    if not _TESTS[kind](value):
        yield _wrong_type(kind, value, path, written(path))
        return
    yield from _bounds(schema, value, path)
    if kind == "object":
        yield from _object(schema, value, path, written)
        yield from _rules(schema, value, path)
    elif kind == "array":
        yield from _array(schema, value, path, written)


def _wrong_type(kind: str, value: Any, path: Path, plain: str) -> Problem:
    if value is None:
        return Problem(to_text(path), "there is no value", f"write {_WORDS[kind]}, or remove the field")
    if plain and kind == "string":
        fix = f'write it in quotes: "{plain}"'
        return Problem(to_text(path), f"must be a text, and {plain} without quotes is {_what(value)}", fix)
    return Problem(to_text(path), f"must be {_WORDS[kind]}, not {_what(value)}", f"write {_WORDS[kind]}")


def _what(value: Any) -> str:
    """Return in words what kind of value this is."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    return next(
        (_WORDS[kind] for kind in ("object", "array", "string", "integer", "number") if _TESTS[kind](value)), "?"
    )


def _int_or_string(schema: Json, value: Any, path: Path) -> Iterator[Problem]:
    pattern = schema.get("pattern", "")
    if isinstance(value, bool) or not isinstance(value, int | str):
        yield Problem(to_text(path), f"must be a number or a text, not {_what(value)}", "write a quantity such as 500m")
    elif isinstance(value, str) and not re.search(pattern, value):
        yield Problem(to_text(path), f'"{value}" is not a quantity', "write for example 500m, 1, 256Mi or 1Gi")


def _object(schema: Json, value: Json, path: Path, written: Callable[[Path], str]) -> Iterator[Problem]:
    properties: Json = schema.get("properties", {})
    extra = schema.get("additionalProperties")
    for name in schema.get("required", ()):
        if name not in value and "default" not in properties.get(name, {}):
            about = properties.get(name, {}).get("description", "").partition(". ")[0]
            fix = f"set {name}: {about}" if about else f"set {name}"
            yield Problem(to_text((*path, name)), f'"{name}" is missing', fix)
    for name, item in value.items():
        child = properties.get(name, extra)
        if child is not None:
            yield from check_shape(child, item, (*path, name), written=written)
        elif properties and "x-kubernetes-preserve-unknown-fields" not in schema:
            yield _unknown(name, properties, path)


def _unknown(name: str, properties: Json, path: Path) -> Problem:
    fix = did_you_mean(name, properties)
    if not fix:
        names = sorted(properties)
        shown = ", ".join(names[:_MANY]) + (" …" if len(names) > _MANY else "")
        fix = f"remove it; there are {shown}"
    return Problem(to_text((*path, name)), f'unknown field "{name}"', fix)


def _array(schema: Json, value: list[Any], path: Path, written: Callable[[Path], str]) -> Iterator[Problem]:
    for index, item in enumerate(value):
        yield from check_shape(schema["items"], item, (*path, index), written=written)
    list_type = schema.get("x-kubernetes-list-type")
    if list_type == "map":
        key = schema["x-kubernetes-list-map-keys"][0]
        yield from _doubles([item.get(key) if isinstance(item, dict) else None for item in value], path, key)
    elif list_type == "set":
        yield from _doubles(value, path, "")


def _doubles(names: list[Any], path: Path, key: str) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        if not isinstance(name, str):
            continue
        if name in seen:
            where = to_text((*path, index, key) if key else (*path, index))
            fix = "choose another name" if key else "remove one of them"
            yield Problem(where, f'"{name}" is there twice: also at [{seen[name]}]', fix)
        seen.setdefault(name, index)


def _bounds(schema: Json, value: Any, path: Path) -> Iterator[Problem]:
    where = to_text(path)
    if "enum" in schema and value not in schema["enum"]:
        choices = ", ".join(str(choice) for choice in schema["enum"])
        hint = did_you_mean(value, schema["enum"]) if isinstance(value, str) else ""
        yield Problem(where, f'"{value}" is not one of its values', hint or f"use one of {choices}")
    if isinstance(value, str):
        yield from _text_bounds(schema, value, where)
    elif isinstance(value, list | dict):
        many = {"list": ("minItems", "maxItems", "entries"), "dict": ("minProperties", "maxProperties", "fields")}
        least, most, unit = many[type(value).__name__]
        yield from _size(schema, len(value), (least, most, unit), where)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if value < schema.get("minimum", value):
            yield Problem(where, f"{value} is too small", f"use at least {schema['minimum']}")
        if value > schema.get("maximum", value):
            yield Problem(where, f"{value} is too large", f"use at most {schema['maximum']}")


def _text_bounds(schema: Json, value: str, where: str) -> Iterator[Problem]:
    if not value and schema.get("minLength"):
        yield Problem(where, "the text is empty", "write something, or remove the field")
    elif len(value) > schema.get("maxLength", len(value)):
        fix = f"use at most {schema['maxLength']} characters"
        yield Problem(where, f"the text has {len(value)} characters", fix)
    elif "pattern" in schema and not re.search(schema["pattern"], value):
        pattern = schema["pattern"]
        words = "write each name out: there are no wildcards" if "*" in value else _NAME_WORDS
        fix = _SHAPES.get(pattern) or (words if "[-a-z0-9" in pattern else f"it must match {pattern}")
        yield Problem(where, f'"{value}" cannot be used here', fix)


def _size(schema: Json, size: int, words: tuple[str, str, str], where: str) -> Iterator[Problem]:
    least, most, unit = words
    if size < schema.get(least, 0):
        yield Problem(where, f"there are {size} {unit}, too few", f"set at least {schema[least]}")
    if size > schema.get(most, size):
        yield Problem(where, f"there are {size} {unit}, too many", f"use at most {schema[most]}")


@lru_cache(maxsize=256)
def _program(expression: str) -> cel.Program:
    return cel.compile(expression)


def _rules(schema: Json, value: Any, path: Path) -> Iterator[Problem]:
    """Yield the CEL rules that do not hold, as the API server sees the value: with defaults."""
    entries = [entry for entry in schema.get("x-kubernetes-validations", ()) if "oldSelf" not in entry["rule"]]
    if not entries:
        return
    defaults = {name: child["default"] for name, child in schema.get("properties", {}).items() if "default" in child}
    context = cel.Context()
    context.add_variable("self", defaults | value)
    for entry in entries:
        if _evaluated(entry["rule"], context) is False:
            said = _evaluated(entry.get("messageExpression", ""), context)
            message = said if isinstance(said, str) else entry["message"]
            what, _, fix = message.rpartition(": ")
            yield Problem(to_text(path) + entry.get("fieldPath", ""), what or message, fix if what else "")


def _evaluated(expression: str, context: cel.Context) -> Any:
    """Return what *expression* gives, or None when it fails: a wrong type, which is a problem already."""
    try:
        return _program(expression).execute(context) if expression else None
    except Exception:  # noqa: BLE001  (the library raises whatever it likes)
        return None
