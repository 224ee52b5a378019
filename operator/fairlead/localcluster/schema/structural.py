"""The rules of structural schemas.

Source: Kubernetes' documentation of CustomResourceDefinitions ("Specifying a structural schema").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from fairlead.localcluster.schema import errors
from fairlead.localcluster.schema.compiling import compile_fragment, go_pattern
from fairlead.localcluster.schema.errors import FieldError
from fairlead.localcluster.schema.filling import pruned
from fairlead.localcluster.schema.tree import Json
from fairlead.localcluster.schema.validating import value_errors

TYPES: Final = ("array", "boolean", "integer", "number", "object", "string")
_SCALARS: Final = frozenset({"boolean", "integer", "number", "string"})
_UNSUPPORTED: Final = ("$ref", "additionalItems", "definitions", "dependencies", "id", "patternProperties", "$schema")
_NESTED_EMPTY: Final = ("type", "title", "description", "additionalProperties", "default")
_NESTED_FALSE: Final = ("nullable",)
_EXTENSIONS: Final = (
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
)
_INT_OR_STRING: Final = [{"type": "integer"}, {"type": "string"}]
_JUNCTIONS: Final = ("allOf", "anyOf", "oneOf")


def check_structure(raw: Json, path: str) -> Iterator[FieldError]:
    """Yield what keeps a version's schema from being structural."""
    if not raw.get("type"):
        yield errors.required(f"{path}.type", "must not be empty at the root")
    elif raw["type"] != "object":
        yield errors.invalid(f"{path}.type", raw["type"], "must be object at the root")
    yield from _check(raw, path, root=True)


def children(raw: Json) -> Iterator[tuple[str, Json]]:
    """Yield the schemas below this one on the structural spine, with their place."""
    for name, child in (raw.get("properties") or {}).items():
        if isinstance(child, dict):
            yield f"properties[{name}]", child
    for keyword in ("items", "additionalProperties"):
        if isinstance(raw.get(keyword), dict):
            yield keyword, raw[keyword]


def _check(raw: Json, path: str, *, root: bool) -> Iterator[FieldError]:
    yield from _check_keywords(raw, path)
    yield from _check_type(raw, path)
    yield from _check_extensions(raw, path)
    yield from _check_lists(raw, path)
    if root or raw.get("x-kubernetes-embedded-resource"):
        yield from _check_metadata(raw, path)
    yield from _check_pattern(raw, path)
    for keyword in _JUNCTIONS:
        for index, part in enumerate(raw.get(keyword) or ()):
            yield from _check_nested(part, raw, f"{path}.{keyword}[{index}]", keyword)
    if isinstance(raw.get("not"), dict):
        yield from _check_nested(raw["not"], raw, f"{path}.not", "not")
    if "default" in raw:
        yield from _check_default(raw, path)
    for place, child in children(raw):
        if not child.get("type") and not child.get("x-kubernetes-int-or-string") and not _open(child):
            what = "array items" if place == "items" else "object fields"
            yield errors.required(f"{path}.{place}.type", f"must not be empty for specified {what}")
        yield from _check(child, f"{path}.{place}", root=False)


def _open(raw: Json) -> bool:
    """A field without a type has to keep what is in it."""
    return bool(raw.get("x-kubernetes-preserve-unknown-fields"))


def _check_keywords(raw: Json, path: str) -> Iterator[FieldError]:
    for keyword in _UNSUPPORTED:
        if raw.get(keyword):
            yield errors.forbidden(f"{path}.{keyword}", f"{keyword} is not supported")
    if raw.get("uniqueItems"):
        text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield errors.forbidden(f"{path}.uniqueItems", text)
    if raw.get("additionalProperties") is False:
        yield errors.forbidden(f"{path}.additionalProperties", "additionalProperties cannot be set to false")
    if isinstance(raw.get("additionalProperties"), dict) and raw.get("properties"):
        text = "additionalProperties and properties are mutual exclusive"
        yield errors.forbidden(f"{path}.additionalProperties", text)
    if isinstance(raw.get("items"), list):
        yield errors.forbidden(f"{path}.items", "items must be a schema object and not an array")


def _check_type(raw: Json, path: str) -> Iterator[FieldError]:
    kind = raw.get("type")
    if kind and kind not in TYPES:
        yield errors.unsupported(f"{path}.type", kind, TYPES)
    if kind == "array" and raw.get("items") is None:
        yield errors.required(f"{path}.items", "must be specified")
    if kind and raw.get("x-kubernetes-int-or-string"):
        yield errors.invalid(f"{path}.type", kind, "must be empty if x-kubernetes-int-or-string is true")
    if raw.get("x-kubernetes-embedded-resource"):
        if kind != "object":
            yield errors.invalid(f"{path}.type", kind or "", "must be object if x-kubernetes-embedded-resource is true")
        if not raw.get("properties") and not _open(raw):
            text = (
                "must not be empty if x-kubernetes-embedded-resource is true "
                "without x-kubernetes-preserve-unknown-fields"
            )
            yield errors.required(f"{path}.properties", text)


def _check_extensions(raw: Json, path: str) -> Iterator[FieldError]:
    for keyword in _EXTENSIONS[:3]:
        if raw.get(keyword) is False and keyword == _EXTENSIONS[0]:
            yield errors.invalid(f"{path}.{keyword}", value=False, detail="must be true or undefined")
    shape = raw.get("x-kubernetes-map-type")
    if shape is not None:
        if shape not in {"atomic", "granular"}:
            yield errors.unsupported(f"{path}.x-kubernetes-map-type", shape, ("atomic", "granular"))
        if raw.get("type") != "object":
            text = "must be object if x-kubernetes-map-type is specified"
            yield errors.invalid(f"{path}.type", raw.get("type", ""), text)


def _check_lists(raw: Json, path: str) -> Iterator[FieldError]:
    kind, keys = raw.get("x-kubernetes-list-type"), raw.get("x-kubernetes-list-map-keys") or []
    if kind is None:
        if keys:
            text = "must be map if x-kubernetes-list-map-keys is non-empty"
            yield errors.required(f"{path}.x-kubernetes-list-type", text)
        return
    if kind not in {"atomic", "map", "set"}:
        yield errors.unsupported(f"{path}.x-kubernetes-list-type", kind, ("atomic", "map", "set"))
    if raw.get("type") != "array":
        text = "must be array if x-kubernetes-list-type is specified"
        yield errors.invalid(f"{path}.type", raw.get("type", ""), text)
    items = raw.get("items")
    if not isinstance(items, dict):
        return
    if kind == "map":
        yield from _check_list_map(items, keys, path)
    elif keys:
        text = "must be map if x-kubernetes-list-map-keys is non-empty"
        yield errors.invalid(f"{path}.x-kubernetes-list-type", kind, text)
    if kind == "set":
        yield from _check_list_set(items, path)


def _check_list_map(items: Json, keys: list[str], path: str) -> Iterator[FieldError]:
    if not keys:
        text = "must not be empty if x-kubernetes-list-type is map"
        yield errors.required(f"{path}.x-kubernetes-list-map-keys", text)
    if items.get("type") != "object":
        text = "must be object if parent array's x-kubernetes-list-type is map"
        yield errors.invalid(f"{path}.items.type", items.get("type", ""), text)
    if items.get("nullable"):
        text = "cannot be nullable when x-kubernetes-list-type is map"
        yield errors.forbidden(f"{path}.items.nullable", text)
    properties = items.get("properties") or {}
    for index, key in enumerate(keys):
        child = properties.get(key)
        if child is None:
            where = f"{path}.x-kubernetes-list-map-keys[{index}]"
            yield errors.invalid(where, key, "entries must all be names of item properties")
            continue
        where = f"{path}.items.properties[{key}]"
        if child.get("type") not in _SCALARS:
            text = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            yield errors.invalid(f"{where}.type", child.get("type", ""), text)
        if "default" not in child and key not in (items.get("required") or ()):
            text = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            yield errors.required(f"{where}.default", text)
    if len(set(keys)) < len(keys):
        repeated = next(key for key in keys if keys.count(key) > 1)
        yield errors.duplicate(f"{path}.x-kubernetes-list-map-keys[{len(keys) - 1}]", repeated)


def _check_list_set(items: Json, path: str) -> Iterator[FieldError]:
    if items.get("nullable"):
        yield errors.forbidden(f"{path}.items.nullable", "cannot be nullable when x-kubernetes-list-type is set")
    text = "must be atomic as item of a list with x-kubernetes-list-type=set"
    marks = {"object": "x-kubernetes-map-type", "array": "x-kubernetes-list-type"}
    mark = marks.get(items.get("type", ""))
    if mark and items.get(mark, "atomic" if mark.endswith("list-type") else None) != "atomic":
        yield errors.invalid(f"{path}.items.{mark}", items.get(mark), text)


def _check_metadata(raw: Json, path: str) -> Iterator[FieldError]:
    metadata = (raw.get("properties") or {}).get("metadata")
    if not isinstance(metadata, dict):
        return
    where = f"{path}.properties[metadata]"
    if metadata.get("type") != "object":
        yield errors.invalid(f"{where}.type", metadata.get("type", ""), "must be object")
    if set(metadata) - {"type", "properties", "description"} or set(metadata.get("properties") or {}) - {
        "name",
        "generateName",
    }:
        text = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        yield errors.forbidden(where, text)


def _check_pattern(raw: Json, path: str) -> Iterator[FieldError]:
    pattern = raw.get("pattern")
    if not pattern:
        return
    try:
        go_pattern(pattern)
    except re.error as error:
        text = f"must be a valid regular expression, but isn't: {error}"
        yield errors.invalid(f"{path}.pattern", pattern, text)
        return
    if re.search(r"\(\?(?:[=!]|<[=!])|\\[1-9]", pattern):
        text = "must be a valid regular expression, but isn't: error parsing regexp: invalid or unsupported Perl syntax"
        yield errors.invalid(f"{path}.pattern", pattern, text)


def _check_nested(part: Json, spine: Json, path: str, keyword: str) -> Iterator[FieldError]:
    """Inside of junctions only values are described: the spine says what there is."""
    if spine.get("x-kubernetes-int-or-string") and keyword in {"anyOf", "allOf"} and _is_int_or_string(part):
        return
    for name in _NESTED_EMPTY:
        if name in part:
            yield errors.forbidden(f"{path}.{name}", "must be empty to be structural")
    for name in (*_NESTED_FALSE, *_EXTENSIONS):
        if part.get(name):
            yield errors.forbidden(f"{path}.{name}", "must be false to be structural")
    known = dict(children(spine))
    for place, child in children(part):
        if place not in known and not (place.startswith("properties[") and "additionalProperties" in known):
            where = f"{path.rsplit(f'.{keyword}', 1)[0]}.{place}"
            yield errors.required(where, f"because it is defined in {path}.{place}")
        else:
            yield from _check_nested(child, known.get(place) or {}, f"{path}.{place}", keyword)
    for inner in _JUNCTIONS:
        for index, deeper in enumerate(part.get(inner) or ()):
            yield from _check_nested(deeper, spine, f"{path}.{inner}[{index}]", inner)
    yield from _check_pattern(part, path)


def _is_int_or_string(part: Json) -> bool:
    return part in _INT_OR_STRING or part.get("anyOf") == _INT_OR_STRING


def _check_default(raw: Json, path: str) -> Iterator[FieldError]:
    default: Any = raw["default"]
    try:
        schema = compile_fragment(raw)
    except re.error:
        return
    if default is None and not raw.get("nullable"):
        yield errors.invalid(f"{path}.default", None, "must not be null for a schema that is not nullable")
        return
    yield from value_errors(schema, default, f"{path}.default")
    if isinstance(default, dict):
        _, unknown = pruned(schema, default)
        if unknown:
            yield errors.invalid(f"{path}.default", default, f"must not have unknown fields: {', '.join(unknown)}")
