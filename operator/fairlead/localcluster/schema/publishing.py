"""Component schemas of the OpenAPI documents, named as Kubernetes names them."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

from fairlead.localcluster.schema.builtin import compiled_model, describe
from fairlead.localcluster.schema.tree import INT_OR_STRING, MISSING, Json, Schema

META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1"
OBJECT_META: Final = f"{META}.ObjectMeta"
LIST_META: Final = f"{META}.ListMeta"

_META_TYPES: Final = frozenset(
    {
        "Condition",
        "FieldSelectorRequirement",
        "LabelSelector",
        "LabelSelectorRequirement",
        "ListMeta",
        "ManagedFieldsEntry",
        "ObjectMeta",
        "OwnerReference",
        "Preconditions",
        "Status",
        "StatusCause",
        "StatusDetails",
    }
)
_CORE_ROOTS: Final = (
    "V1PodTemplateSpec",
    "V1ObjectReference",
    "V1PersistentVolumeClaim",
    "V1PersistentVolumeSpec",
    "V1TopologySelectorTerm",
    "V1TypedLocalObjectReference",
    "V1SecretReference",
    "V1EventSource",
)
_PREFIX = re.compile(r"(?:[A-Z][a-z]+)?(V\d+(?:alpha\d+|beta\d+)?)(?=[A-Z])")
_SPECIAL_GROUPS: Final = {
    "apiextensions.k8s.io": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
    "apiregistration.k8s.io": "io.k8s.kube-aggregator.pkg.apis.apiregistration",
}
_CRD_FIELDS: Final = {
    "apiVersion": {
        "type": "string",
        "description": "APIVersion defines the versioned schema of this representation of an object. Servers should "
        "convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: "
        "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
    },
    "kind": {
        "type": "string",
        "description": "Kind is a string value representing the REST resource this object represents. Servers may "
        "infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: "
        "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
    },
}
_METADATA_TEXT: Final = (
    "Standard object's metadata. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
)


def custom_name(group: str, version: str, kind: str) -> str:
    """Return a custom kind's component: ``dev.fairlead.v1alpha1.Workflow``."""
    return ".".join([*reversed(group.split(".")), version, kind])


def builtin_name(model: str, group: str) -> str:
    """Return the component of a client model that is used in *group*."""
    hit = _PREFIX.match(model)
    short, version = (model[hit.end() :], hit[1].lower()) if hit else (model, "v1")
    if short in _META_TYPES:
        return f"{META}.{short}"
    if group and model in _core_models():
        group = ""
    package = _SPECIAL_GROUPS.get(group) or f"io.k8s.api.{group.partition('.')[0] or 'core'}"
    return f"{package}.{version}.{short}"


@cache
def _core_models() -> frozenset[str]:
    found: set[str] = set()
    for root in _CORE_ROOTS:
        _reach(compiled_model(root), found)
    return frozenset(found)


def _reach(schema: Schema, found: set[str]) -> None:
    if schema.component:
        if schema.component in found:
            return
        found.add(schema.component)
    for child in (*schema.properties.values(), schema.items, schema.additional):
        if child is not None:
            _reach(child, found)


def reference(name: str) -> Json:
    """Return a reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def add_builtin(schema: Schema, group: str, components: Json) -> str:
    """Add a client model and all it refers to; return the component's name."""
    name = builtin_name(schema.component, group)
    if name in components:
        return name
    components[name] = body = _kind_of_map(schema)
    texts = describe(schema.component)
    for wire, child in schema.properties.items():
        published = _published(child, group, components)
        if texts.get(wire):
            published = {"description": texts[wire]} | _wrapped(published)
        body["properties"][wire] = published
    return name


def _kind_of_map(schema: Schema) -> Json:
    return {
        "type": "object",
        **({"properties": {}} if schema.properties else {}),
        **({"required": list(schema.required)} if schema.required else {}),
        **({"x-kubernetes-map-type": "atomic"} if schema.map_type == "atomic" else {}),
    }


def _wrapped(published: Json) -> Json:
    """A reference stands alone: what is said besides goes next to an ``allOf``."""
    return {"allOf": [published]} if "$ref" in published else published


def _published(schema: Schema, group: str, components: Json) -> Json:
    if schema.component:
        named = reference(add_builtin(schema, group, components))
        return named if schema.default is MISSING else _wrapped(named) | {"default": schema.default}
    body: Json = {"type": schema.type} if schema.type and schema.type != INT_OR_STRING else {}
    if schema.type == INT_OR_STRING:
        body |= {"oneOf": [{"type": "integer"}, {"type": "string"}], "format": INT_OR_STRING}
    elif schema.format:
        body["format"] = schema.format
    if schema.items is not None:
        body["items"] = _published(schema.items, group, components)
    if schema.additional is not None:
        body["additionalProperties"] = _published(schema.additional, group, components)
    if schema.default is not MISSING:
        body["default"] = schema.default
    if schema.bounds is not None and schema.bounds.enum:
        body["enum"] = list(schema.bounds.enum)
    return body | _markers(schema)


def _markers(schema: Schema) -> Json:
    found: Json = {}
    if schema.type == "array":
        found["x-kubernetes-list-type"] = schema.list_type
        if schema.list_keys:
            found["x-kubernetes-list-map-keys"] = list(schema.list_keys)
    if schema.merge_key:
        found["x-kubernetes-patch-merge-key"] = schema.merge_key
    if schema.merge_strategy:
        found["x-kubernetes-patch-strategy"] = ",".join(sorted(schema.merge_strategy))
    if schema.map_type == "atomic":
        found["x-kubernetes-map-type"] = "atomic"
    return found


def add_custom(raw: Json, name: str, components: Json) -> None:
    """Add a CRD version's schema, completed by what every object has."""
    if OBJECT_META not in components:
        add_builtin(compiled_model("V1ObjectMeta"), "", components)
    properties: Json = dict(raw.get("properties") or {})
    metadata: Any = {"allOf": [reference(OBJECT_META)], "description": _METADATA_TEXT}
    components[name] = raw | {"properties": properties | _CRD_FIELDS | {"metadata": metadata}, "type": "object"}
