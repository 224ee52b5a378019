"""The OpenAPI v3 documents that kubectl explains and validates by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Any, Final, Protocol

import orjson

from fairlead.localcluster.schema.builtin import builtin_schema, compiled_model
from fairlead.localcluster.schema.publishing import LIST_META, add_builtin, add_custom, custom_name, reference
from fairlead.localcluster.schema.tree import Json

OPENAPI_V2: Final = b"\n\x032.0\x12\x15\n\nKubernetes\x12\x07v1.33.0"
"""An OpenAPI v2 document (protobuf) without definitions.

kubectl asks for it when no version of a kind is served, and finds that there is nothing to validate by.
"""
OPENAPI_V2_TYPE: Final = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"

_JSON: Final = "application/json"
_PATCHES: Final = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)


class Published(Protocol):
    """What a document says of a resource."""

    @property
    def group(self) -> str: ...  # noqa: D102
    @property
    def version(self) -> str: ...  # noqa: D102
    @property
    def plural(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def namespaced(self) -> bool: ...  # noqa: D102
    @property
    def subresources(self) -> AbstractSet[str]: ...  # noqa: D102
    @property
    def openapi(self) -> Json | None: ...  # noqa: D102


def openapi_index(resources: Iterable[Published]) -> Json:
    """Return ``/openapi/v3``: one document for each group and version, with a hash that changes when it does."""
    digests: dict[str, Any] = {}
    for resource in resources:
        said = [resource.plural, resource.kind, resource.namespaced, sorted(resource.subresources), resource.openapi]
        digests.setdefault(_root(resource), hashlib.sha256()).update(orjson.dumps(said, option=orjson.OPT_SORT_KEYS))
    return {
        "paths": {
            path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest.hexdigest().upper()}"}
            for path, digest in sorted(digests.items())
        }
    }


def _root(resource: Published) -> str:
    return f"apis/{resource.group}/{resource.version}" if resource.group else f"api/{resource.version}"


def openapi_document(group_version: str, resources: Iterable[Published]) -> Json:
    """Return ``/openapi/v3/apis/<group>/<version>``, or ``/openapi/v3/api/v1``.

    Args:
        group_version: ``v1`` or ``apps/v1``; resources of others are left out.
        resources: all that the server serves.
    """
    group, _, version = group_version.rpartition("/")
    components: Json = {}
    paths: Json = {}
    for resource in resources:
        if (resource.group, resource.version) == (group, version):
            name = _add_kind(resource, components)
            paths |= _paths(resource, name)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.33.0"},
        "paths": paths,
        "components": {"schemas": components},
    }


def _add_kind(resource: Published, components: Json) -> str:
    name = custom_name(resource.group, resource.version, resource.kind)
    schema = builtin_schema(_api_version(resource), resource.kind) if resource.openapi is None else None
    if schema is not None:
        name = add_builtin(schema, resource.group, components)
    else:
        add_custom(resource.openapi or {"x-kubernetes-preserve-unknown-fields": True}, name, components)
    components[name]["x-kubernetes-group-version-kind"] = [_gvk(resource)]
    if LIST_META not in components:
        add_builtin(compiled_model("V1ListMeta"), "", components)
    components[f"{name}List"] = {
        "type": "object",
        "description": f"{resource.kind}List is a list of {resource.kind}",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": reference(LIST_META),
            "items": {"type": "array", "items": reference(name)},
        },
        "x-kubernetes-group-version-kind": [_gvk(resource) | {"kind": f"{resource.kind}List"}],
    }
    return name


def _api_version(resource: Published) -> str:
    return f"{resource.group}/{resource.version}" if resource.group else resource.version


def _gvk(resource: Published) -> Json:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _paths(resource: Published, name: str) -> Json:
    scope = "/namespaces/{namespace}" if resource.namespaced else ""
    collection = f"/{_root(resource)}{scope}/{resource.plural}"
    item = collection + "/{name}"
    paths = {collection: _collection(resource, name), item: _item(resource, name)}
    if "status" in resource.subresources:
        paths[f"{item}/status"] = _item(resource, name, remove=False)
    for path, operations in paths.items():
        operations["parameters"] = [_parameter(part, "path") for part in ("namespace", "name") if f"{{{part}}}" in path]
    return paths


def _collection(resource: Published, name: str) -> Json:
    return {
        "get": _operation(resource, "list", f"{name}List"),
        "post": _operation(resource, "post", name, body=(_JSON,)),
    }


def _item(resource: Published, name: str, *, remove: bool = True) -> Json:
    patches = _PATCHES if resource.openapi is None else _PATCHES[:-1]
    found = {
        "get": _operation(resource, "get", name),
        "put": _operation(resource, "put", name, body=(_JSON,)),
        "patch": _operation(resource, "patch", name, body=patches),
    }
    return found | ({"delete": _operation(resource, "delete", name)} if remove else {})


def _operation(resource: Published, action: str, name: str, *, body: tuple[str, ...] = ()) -> Json:
    content = {_JSON: {"schema": reference(name)}}
    found: Json = {
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(resource),
        "responses": {"200": {"description": "OK", "content": content}},
    }
    if body:
        found["requestBody"] = {"required": True, "content": {kind: {"schema": reference(name)} for kind in body}}
        names = ["dryRun", "fieldManager", "fieldValidation", *(["force"] if action == "patch" else [])]
        found["parameters"] = [_parameter(item, "query") for item in names]
    if action == "delete":
        found["parameters"] = [_parameter(item, "query") for item in ("dryRun", "propagationPolicy")]
    return found


def _parameter(name: str, where: str) -> Json:
    kind = "boolean" if name == "force" else "string"
    return {
        "name": name,
        "in": where,
        "schema": {"type": kind, "uniqueItems": True},
        **({"required": True} if where == "path" else {}),
    }
