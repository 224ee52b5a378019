"""Defaulting and pruning."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson

from fairlead.localcluster.schema.tree import MISSING, Json, Schema

_Value = TypeVar("_Value")


def copied(value: _Value) -> _Value:
    """Return a deep copy of a JSON value."""
    if isinstance(value, dict | list):
        copy: _Value = orjson.loads(orjson.dumps(value))
        return copy
    return value


def with_defaults(schema: Schema, obj: Json) -> Json:
    """Return *obj* with the schema's defaults where fields are absent (or null and not nullable)."""
    filled: Json = _filled(schema, obj)
    return filled


def _filled(schema: Schema, value: Any) -> Any:
    if not schema.has_defaults:
        return value
    if isinstance(value, dict):
        return _filled_map(schema, value)
    if isinstance(value, list) and schema.items is not None:
        return [_filled(schema.items, item) for item in value]
    if schema.format == "quantity" and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


def _filled_map(schema: Schema, value: Json) -> Json:
    result = {}
    for key, item in value.items():
        child = schema.child(key)
        if item is None and child is not None and _is_absent(child):
            continue
        result[key] = item if child is None else _filled(child, item)
    for key, child in schema.properties.items():
        if key not in result and child.default is not MISSING:
            result[key] = _filled(child, copied(child.default))
    return result


def _is_absent(schema: Schema) -> bool:
    """Return whether null means nothing: always in Go's types, elsewhere when a default takes its place."""
    return schema.lenient or (not schema.nullable and schema.default is not MISSING)


def pruned(schema: Schema, obj: Json) -> tuple[Json, list[str]]:
    """Return *obj* without the fields the schema does not know, and their paths (for ``fieldValidation``)."""
    unknown: list[str] = []
    return _pruned(schema, obj, "", unknown), unknown


def _pruned(schema: Schema, value: Any, path: str, unknown: list[str]) -> Any:
    if isinstance(value, dict):
        return _pruned_map(schema, value, path, unknown)
    if isinstance(value, list) and schema.items is not None:
        return [_pruned(schema.items, item, f"{path}[{index}]", unknown) for index, item in enumerate(value)]
    return value


def _pruned_map(schema: Schema, value: Json, path: str, unknown: list[str]) -> Json:
    if schema.preserve and not schema.properties and schema.additional is None:
        return value
    result = {}
    for key, item in value.items():
        child = schema.child(key)
        where = f"{path}.{key}" if path else key
        if child is not None:
            result[key] = _pruned(child, item, where, unknown)
        elif schema.preserve:
            result[key] = item
        else:
            unknown.append(where)
    return result
