"""Schemas as CEL types, with the sizes that cost is estimated from.

Source: Kubernetes' documentation of validation rules and of their resource limits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from fairlead.localcluster.schema.names import escaped
from fairlead.localcluster.schema.tree import INT_OR_STRING, MISSING, Schema

MAX_REQUEST: Final = 3 * 1024 * 1024
"""Bytes of the largest request: what has no bound of its own cannot be larger."""

_BYTES_PER_CHARACTER: Final = 4
_QUOTES: Final = 2
_FORMATS: Final = {"duration": ("duration", 32, 3), "date": ("timestamp", 12, 12), "date-time": ("timestamp", 32, 21)}


@dataclass(frozen=True, slots=True)
class CelType:
    """A type.

    Args:
        size: the most elements, characters or bytes that a value can have; 0 for scalars and objects.
        smallest: bytes of the smallest value in JSON.
    """

    kind: str
    size: int = 0
    smallest: int = 1
    fields: dict[str, CelType] = field(default_factory=dict)
    items: CelType | None = None


DYN: Final = CelType("dyn")
BOOL: Final = CelType("bool", smallest=4)
INT: Final = CelType("int")
DOUBLE: Final = CelType("double")
STRING: Final = CelType("string", smallest=2)
TYPE: Final = CelType("type")
_SIMPLE: Final = {"boolean": BOOL, "number": DOUBLE, "integer": INT}


def cel_type(schema: Schema, *, root: bool = False) -> CelType | None:
    """Return the CEL type of a schema; None when rules cannot see the value because nothing is known of it."""
    if schema.type == "object":
        return _map(schema) if schema.additional is not None else _object(schema, root=root or schema.embedded)
    if schema.type == INT_OR_STRING:
        longest = _length(schema)
        return CelType("dyn", size=MAX_REQUEST - _QUOTES if longest is None else longest * _BYTES_PER_CHARACTER)
    if schema.type == "string":
        return _text(schema)
    return _list(schema) if schema.type == "array" else _SIMPLE.get(schema.type)


def _length(schema: Schema) -> int | None:
    return schema.bounds.max_length if schema.bounds is not None else None


def _text(schema: Schema) -> CelType:
    longest = _length(schema)
    if schema.format == "byte":
        return CelType("bytes", size=MAX_REQUEST - _QUOTES if longest is None else longest, smallest=2)
    if schema.format in _FORMATS:
        kind, size, smallest = _FORMATS[schema.format]
        return CelType(kind, size=size, smallest=smallest)
    if longest is not None:
        return CelType("string", size=longest * _BYTES_PER_CHARACTER, smallest=2)
    enum = schema.bounds.enum if schema.bounds is not None else ()
    size = max((len(item.encode()) for item in enum if isinstance(item, str)), default=0)
    return CelType("string", size=size if enum else MAX_REQUEST - _QUOTES, smallest=2)


def _list(schema: Schema) -> CelType | None:
    items = cel_type(schema.items) if schema.items is not None else None
    if items is None:
        return None
    most = schema.bounds.max_items if schema.bounds is not None else None
    size = (MAX_REQUEST - _QUOTES) // (items.smallest + 1) if most is None else most
    return CelType("list", size=size, smallest=2, items=items)


def _map(schema: Schema) -> CelType | None:
    values = cel_type(schema.additional) if schema.additional is not None else None
    if values is None:
        return None
    most = schema.bounds.max_properties if schema.bounds is not None else None
    size = (MAX_REQUEST - _QUOTES) // (values.smallest + 6) if most is None else most
    return CelType("map", size=size, smallest=2, items=values)


def _object(schema: Schema, *, root: bool) -> CelType:
    fields: dict[str, CelType] = {}
    smallest = 2
    for name, child in schema.properties.items():
        if root and name in {"apiVersion", "kind", "metadata"}:
            continue
        known = cel_type(child)
        if known is None:
            continue
        if escaped(name):
            fields[escaped(name)] = known
        if name in schema.required and child.default is MISSING:
            smallest += len(name) + known.smallest + 4
    if root:
        unbounded = CelType("string", size=MAX_REQUEST - _QUOTES, smallest=2)
        meta = CelType("object", smallest=2, fields={"name": unbounded, "generateName": unbounded})
        fields |= {"apiVersion": unbounded, "kind": unbounded, "metadata": meta}
    return CelType("object", smallest=smallest, fields=fields)
