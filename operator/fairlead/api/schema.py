"""The structural schema of a kind, as Kubernetes wants it, from pydantic's JSON Schema of its model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from fairlead.api.meta import Resource, rule
from fairlead.api.v1alpha1 import RESOURCES

Json = dict[str, Any]

_NAME_RULE: Final = rule(
    "size(self.metadata.name) <= 63",
    "the name is over 63 characters, and labels and pods are named after it: choose a shorter one",
)
_KEPT: Final = frozenset(
    (
        *("type", "format", "description", "default", "enum", "pattern", "required", "multipleOf", "nullable"),
        *("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    )
)
_UNTYPED: Final = ("x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string")
_OMITTED_DEFAULTS: Final[tuple[Any, ...]] = (None, "", [], {})


def structural(schema: Json, definitions: Mapping[str, Json]) -> Json:
    """Return *schema* as a structural schema: no references, no titles, no unions.

    Raises:
        ValueError: when it holds something that a structural schema cannot say.
    """
    schema = _resolved(schema, definitions)
    found = {key: value for key, value in schema.items() if key in _KEPT or key.startswith("x-kubernetes-")}
    if schema.get("properties"):
        found["properties"] = {name: structural(child, definitions) for name, child in schema["properties"].items()}
    if schema.get("type") == "object" and "properties" not in schema:
        found |= _map(schema, definitions)
    if "items" in schema:
        found["items"] = _explained(structural(schema["items"], definitions))
    for bound in ("Minimum", "Maximum"):
        if f"exclusive{bound}" in schema:
            found |= {bound.lower(): schema[f"exclusive{bound}"], f"exclusive{bound}": True}
    if "const" in schema:
        found["enum"] = [schema["const"]]
    if "default" in found:
        _put_default(found)
    if "type" not in found and not any(key in found for key in _UNTYPED):
        raise ValueError(f"not structural: {schema}")
    return _described(found)


def _described(schema: Json) -> Json:
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    return schema


def _resolved(schema: Json, definitions: Mapping[str, Json]) -> Json:
    """Replace a reference by what it names, and an optional type by the type; what stands beside them wins."""
    beside = {key: value for key, value in schema.items() if key not in {"$ref", "anyOf", "allOf"}}
    if "$ref" in schema:
        return _resolved(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions) | beside
    choices: list[Json] = schema.get("anyOf") or schema.get("allOf") or []
    options = [option for option in choices if option != {"type": "null"}]
    if not options:
        return beside
    if len(options) > 1:
        raise ValueError(f"a structural schema has one type: {schema}")
    return _resolved(options[0], definitions) | beside


def _map(schema: Json, definitions: Mapping[str, Json]) -> Json:
    values = schema.get("additionalProperties", True)
    if values is True:
        return {"x-kubernetes-preserve-unknown-fields": True}
    return {"additionalProperties": structural(values, definitions)}


def _put_default(schema: Json) -> None:
    """Keep a default that says something; an object's is empty when its fields have the same defaults."""
    default = schema.pop("default")
    if isinstance(default, dict):
        default = _beyond(default, schema)
        if default or any("default" in child for child in schema.get("properties", {}).values()):
            schema["default"] = default
    elif default not in _OMITTED_DEFAULTS:
        schema["default"] = default


def _beyond(default: Json, schema: Json) -> Json:
    """Return what *default* says beyond the defaults of the fields."""
    children: Json = schema.get("properties", {})
    found = {}
    for name, value in default.items():
        child = children.get(name, {})
        said = _beyond(value, child) if isinstance(value, dict) else value
        if said not in _OMITTED_DEFAULTS and said != child.get("default"):
            found[name] = said
    return found


def _explained(schema: Json) -> Json:
    """Return the schema of a list's entry with its defaults in words.

    `kubectl apply` replaces a list of a custom resource as a whole. If the server filled in fields of an entry, every
    further apply of the same file would find a difference. Whoever reads the entry fills them in.
    """
    found = {key: value for key, value in schema.items() if key != "default"}
    if schema.get("default", {}) != {}:
        found["description"] = f"{schema['description']} Defaults to {json.dumps(schema['default'])}."
    if "properties" in found:
        found["properties"] = {name: _explained(child) for name, child in found["properties"].items()}
    return found


def _without_defaults(schema: Json) -> Json:
    """Return the schema of a status: its defaults say nothing, the operator writes what it knows."""
    found = {key: value for key, value in schema.items() if key != "default"}
    if "properties" in found:
        found["properties"] = {name: _without_defaults(child) for name, child in found["properties"].items()}
    if "items" in found:
        found["items"] = _without_defaults(found["items"])
    return found


def build_schema(resource: Resource) -> Json:
    """Return the structural schema of one kind."""
    raw = resource.model.model_json_schema(by_alias=True)
    schema = structural(raw, raw.get("$defs", {}))
    status = _without_defaults(schema["properties"]["status"])
    status["properties"]["observedGeneration"]["default"] = -1
    # kstatus reads -1 as "not looked at yet"; a default inside status needs a status to be in
    status["default"] = {"observedGeneration": -1}
    spec = schema["properties"]["spec"]
    return {
        "type": "object",
        "description": schema["description"],
        "required": ["spec"],
        "x-kubernetes-validations": [_NAME_RULE],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }


@cache
def schema_of(kind: str) -> Json:
    """Return the structural schema of a kind, made once. Not to be changed."""
    return build_schema(RESOURCES[kind])
