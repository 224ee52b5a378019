"""The one compiled form of a schema: what validation, defaulting, pruning, patching and apply walk over."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]

MISSING: Final[Any] = object()
"""There is no value, which is not the same as null."""

INT_OR_STRING: Final = "int-or-string"


@dataclass(frozen=True, slots=True)
class Rule:
    """One ``x-kubernetes-validations`` entry."""

    rule: str
    message: str = ""
    message_expression: str = ""
    reason: str = ""
    field_path: str = ""
    optional_old_self: bool = False


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a value has to keep besides its type."""

    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: bool = False
    exclusive_maximum: bool = False
    multiple_of: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: re.Pattern[str] | None = None
    pattern_text: str = ""
    min_items: int | None = None
    max_items: int | None = None
    unique_items: bool = False
    min_properties: int | None = None
    max_properties: int | None = None
    enum: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Schema:
    """A node of the tree. Built-in kinds may be recursive, so nothing here walks it eagerly.

    Args:
        type: object, array, string, integer, number, boolean, int-or-string, or empty for anything.
        additional: the schema of a map's values.
        preserve: unknown fields stay.
        list_type: atomic, set or map; `list_keys` are the keys of a map.
        merge_key: the strategic merge patch's key, with its `merge_strategy` (merge, retainKeys).
        lenient: a built-in type, decoded as Go does: null is absent, numbers become quantities where text is wanted.
        converts: CEL sees another form of some value below (times, escaped names).
        raw: the OpenAPI text it was compiled from, where there is one.
    """

    type: str = ""
    properties: dict[str, Schema] = field(default_factory=dict)
    additional: Schema | None = None
    items: Schema | None = None
    required: tuple[str, ...] = ()
    default: Any = MISSING
    nullable: bool = False
    preserve: bool = False
    embedded: bool = False
    format: str = ""
    bounds: Bounds | None = None
    list_type: str = "atomic"
    list_keys: tuple[str, ...] = ()
    map_type: str = "granular"
    merge_key: str = ""
    merge_strategy: frozenset[str] = frozenset()
    all_of: tuple[Schema, ...] = ()
    any_of: tuple[Schema, ...] = ()
    one_of: tuple[Schema, ...] = ()
    negated: Schema | None = None
    rules: tuple[Rule, ...] = ()
    lenient: bool = False
    has_defaults: bool = False
    has_rules: bool = False
    converts: bool = False
    component: str = ""
    raw: Json = field(default_factory=dict)

    def child(self, name: str) -> Schema | None:
        """Return the schema of field *name*, or None when the schema does not know it."""
        return self.properties.get(name) or self.additional


ANYTHING: Final = Schema(preserve=True)
