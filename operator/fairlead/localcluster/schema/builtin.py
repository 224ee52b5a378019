"""Schemas of Kubernetes' own kinds, from the types of the installed Python client."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

from fairlead.localcluster.schema import builtin_tables as tables
from fairlead.localcluster.schema.tree import INT_OR_STRING, MISSING, Bounds, Json, Schema

_SCALARS = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
_CONTAINER = re.compile(r"(list\[|dict\(str, |dict\[str, )(.*)[\])]")
_INT_OR_STRING = frozenset({"targetPort", "port", "maxSurge", "maxUnavailable", "minAvailable"})
_EVENTS = {"": "CoreV1Event", "events.k8s.io": "EventsV1Event"}
_PREFIXED = {
    ("authentication.k8s.io", "TokenRequest"): "AuthenticationV1TokenRequest",
    ("", "TokenRequest"): "AuthenticationV1TokenRequest",
}


@cache
def builtin_schema(api_version: str, kind: str) -> Schema | None:
    """Return the schema of a built-in kind, or None when the client has no type for it."""
    group, _, version = api_version.rpartition("/")
    prefix = version[:1].upper() + version[1:]
    name = _EVENTS[group] if kind == "Event" and group in _EVENTS else f"{prefix}{kind}"
    name = _PREFIXED.get((group, kind), name)
    model = _model(name)
    if model is None or "metadata" not in model.openapi_types:
        return None
    return _compiled(name)


def object_meta() -> Schema:
    """Return the schema of ``metadata``."""
    return _compiled("V1ObjectMeta")


def compiled_model(name: str) -> Schema:
    """Return the schema of a client model."""
    return _compiled(name)


def describe(component: str) -> dict[str, str]:
    """Return the documentation of each field of a client model, by wire name."""
    model = _model(component)
    if model is None:
        return {}
    found = {}
    for attribute, wire in model.attribute_map.items():
        lines = (getattr(model, attribute).__doc__ or "").split("\n\n")
        found[wire] = lines[1].strip().removesuffix("# noqa: E501").strip() if len(lines) > 1 else ""
    return found


def _model(name: str) -> Any:
    from kubernetes.client import models  # type: ignore[import-untyped]

    return getattr(models, name, None)


@cache
def _registry() -> dict[str, Schema]:
    return {}


def _compiled(name: str) -> Schema:
    """Compile a client model once. It is registered before its fields are, because some kinds are recursive."""
    registry = _registry()
    if name in registry:
        return registry[name]
    model = _model(name)
    properties: dict[str, Schema] = {}
    registry[name] = schema = Schema(
        type="" if name in tables.OPAQUE else "object",
        preserve=name in tables.OPAQUE,
        properties=properties,
        required=_required(name, model),
        map_type="atomic" if name in tables.ATOMIC_MAPS else "granular",
        lenient=True,
        has_defaults=True,
        component=name,
    )
    for attribute, wire in model.attribute_map.items():
        properties[wire] = _field(name, wire, model.openapi_types[attribute])
    return schema


def _required(name: str, model: Any) -> tuple[str, ...]:
    """The client's setters refuse None for what is required: ask them."""
    if name.endswith("Status"):
        return ()
    probe = model.__new__(model)
    probe.local_vars_configuration = SimpleNamespace(client_side_validation=True)
    found = []
    for attribute, wire in model.attribute_map.items():
        try:
            getattr(model, attribute).fset(probe, None)
        except ValueError:
            found.append(wire)
    return tuple(wire for wire in found if (name, wire) not in tables.IGNORED_REQUIRED)


def _field(model: str, wire: str, kind: str) -> Schema:
    return _typed(kind, wire, _extras(model, wire))


def _extras(model: str, wire: str) -> Json:
    extras: Json = {"default": tables.DEFAULTS.get(model, {}).get(wire, MISSING)}
    keys = tables.LIST_MAPS.get(model, {}).get(wire, "").split()
    if keys:
        extras |= {"list_type": "map", "list_keys": tuple(keys), "merge_key": keys[0]}
    if wire in tables.LIST_SETS.get(model, ()):
        extras |= {"list_type": "set", "merge_strategy": frozenset({"merge"})}
    merge_key = tables.MERGE_ONLY.get(model, {}).get(wire)
    if merge_key:
        extras["merge_key"] = merge_key
    if extras.get("merge_key"):
        extras["merge_strategy"] = frozenset({"merge"})
    if wire in tables.RETAIN_KEYS.get(model, ()):
        extras["merge_strategy"] = extras.get("merge_strategy", frozenset()) | {"retainKeys"}
    if (model, wire) in tables.ENUMS:
        extras["bounds"] = Bounds(enum=tables.ENUMS[model, wire])
    if (model, wire) in tables.ATOMIC_MAP_FIELDS:
        extras["map_type"] = "atomic"
    return extras


def _typed(kind: str, wire: str, extras: Json) -> Schema:
    container = _CONTAINER.fullmatch(kind)
    if container and kind.startswith("list"):
        return Schema(type="array", items=_typed(container[2], wire, {}), lenient=True, has_defaults=True, **extras)
    if container:
        return Schema(type="object", additional=_value(container[2], wire), lenient=True, has_defaults=True, **extras)
    if kind in _SCALARS:
        return Schema(type=_SCALARS[kind], lenient=True, **extras)
    if kind == "datetime":
        return Schema(type="string", format="date-time", nullable=True, lenient=True, **extras)
    if kind == "object":
        wanted = INT_OR_STRING if wire in _INT_OR_STRING else ""
        return Schema(type=wanted, preserve=True, lenient=True, **extras)
    return _nested(kind, extras)


def _value(kind: str, wire: str) -> Schema:
    """The values of a map: quantities may be written as numbers."""
    if kind == "str" and wire in tables.ANY_KEYS:
        return Schema(type="string", format="quantity", lenient=True, has_defaults=True)
    return _typed(kind, "", {})


def _nested(kind: str, extras: Json) -> Schema:
    if _model(kind) is None:
        return Schema(preserve=True, lenient=True, **extras)
    schema = _compiled(kind)
    changed = {key: value for key, value in extras.items() if key != "default" or value is not MISSING}
    return replace(schema, **changed) if changed else schema
