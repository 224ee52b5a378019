"""Objects as a ``meta.k8s.io/v1`` Table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from fairlead.localcluster.printing.durations import age
from fairlead.localcluster.printing.jsonpath import find

Json = dict[str, Any]
Cell = Callable[[Json, str], Any]
"""Object and now (RFC 3339) to the cell."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column. *priority* above 0 is shown by ``-o wide`` only."""

    name: str
    cell: Cell
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0


Columns = tuple[Column, ...]


def name_of(obj: Json, _now: str) -> str:
    """Return the object's name."""
    return str(obj.get("metadata", {}).get("name", ""))


def age_of(obj: Json, now: str) -> str:
    """Return how old the object is."""
    created = obj.get("metadata", {}).get("creationTimestamp")
    return age(created, now) if created else "<unknown>"


NAME: Final = Column(
    "Name",
    name_of,
    format="name",
    description="Name must be unique within a namespace.",
)
AGE: Final = Column(
    "Age",
    age_of,
    description="CreationTimestamp is a timestamp representing the server time when this object was created.",
)
CREATED: Final = Column(
    "Created At",
    lambda obj, _now: obj.get("metadata", {}).get("creationTimestamp"),
    type="date",
    description="CreationTimestamp is a timestamp representing the server time when this object was created.",
)


def crd_columns(printer_columns: Sequence[Json] | None) -> Columns:
    """Return the columns of a CRD version's ``additionalPrinterColumns``; without any, name and age."""
    wanted = printer_columns or [{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]
    return (NAME, *(_crd_column(item) for item in wanted))


def _crd_column(raw: Json) -> Column:
    kind = raw.get("type", "string")
    path = raw.get("jsonPath", "")

    def cell(obj: Json, now: str) -> Any:
        values = find(path, obj)
        return crd_cell(kind, values[0], now) if values else None

    return Column(
        name=raw.get("name", ""),
        cell=cell,
        type=kind,
        format=raw.get("format", ""),
        description=raw.get("description", "") or f"Custom resource definition column (in JSONPath format): {path}",
        priority=raw.get("priority", 0),
    )


def crd_cell(kind: str, value: Any, now: str) -> Any:
    """Return a cell by the column's declared type, None where the value has another one."""
    match kind:
        case "integer":
            return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
        case "number":
            return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
        case "boolean":
            return value if isinstance(value, bool) else None
        case "date":
            return age(value, now) if isinstance(value, str) else None
        case _:
            return value if isinstance(value, str) else _shown(value)


def _shown(value: Any) -> str:
    return "" if value is None else orjson.dumps(value).decode()


def to_table(columns: Columns | Sequence[Json], objects: Iterable[Json], *, include_object: str, now: str) -> Json:
    """Return the Table.

    Args:
        objects: the rows.
        columns: of `builtin_columns`, or a CRD version's ``additionalPrinterColumns`` as they are.
        include_object: ``None``, ``Metadata`` or ``Object``.
        now: RFC 3339.
    """
    chosen = _chosen(columns)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": [_definition(column) for column in chosen],
        "rows": [
            {"cells": [column.cell(obj, now) for column in chosen], "object": _object(obj, include_object)}
            for obj in objects
        ],
    }


def _chosen(columns: Columns | Sequence[Json]) -> Columns:
    own = tuple(column for column in columns if isinstance(column, Column))
    if own:
        return own
    return crd_columns([column for column in columns if isinstance(column, dict)])


def _definition(column: Column) -> Json:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    }


def _object(obj: Json, include: str) -> Json | None:
    if include == "None":
        return None
    if include == "Object":
        return obj
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj.get("metadata", {})}
