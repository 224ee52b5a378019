"""From a call to the function that answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fairlead.localcluster.apiserver import discovery
from fairlead.localcluster.apiserver.cluster import Cluster
from fairlead.localcluster.apiserver.errors import Json, bad_request, method_not_allowed, no_such_path
from fairlead.localcluster.apiserver.negotiation import Form, negotiate
from fairlead.localcluster.apiserver.output import Response, json_response
from fairlead.localcluster.apiserver.reading import get, list_resource, watch_resource
from fairlead.localcluster.apiserver.requests import Call
from fairlead.localcluster.apiserver.resources import Registry, Resource
from fairlead.localcluster.apiserver.reviews import review
from fairlead.localcluster.apiserver.subresources import handle_subresource
from fairlead.localcluster.apiserver.writing import (
    create_resource,
    delete_collection,
    delete_resource,
    patch_resource,
    update_resource,
)
from fairlead.localcluster.schema import openapi_document, openapi_index
from fairlead.localcluster.schema.openapi import OPENAPI_V2, OPENAPI_V2_TYPE

Handler = Callable[[Cluster, Call, Resource], Awaitable[Response]]

_DISCOVERY = frozenset({"APIGroupDiscoveryList"})
_HEALTH = ("/healthz", "/livez", "/readyz")
_MANY = frozenset({"list", "watch", "deletecollection"})
_VERBS: Mapping[str, Handler] = {
    "get": get,
    "list": list_resource,
    "watch": watch_resource,
    "create": create_resource,
    "update": update_resource,
    "patch": patch_resource,
    "delete": delete_resource,
    "deletecollection": delete_collection,
}


async def route(cluster: Cluster, call: Call) -> Response:
    """Answer the call.

    Raises:
        ApiError: anything but success.
    """
    asked = call.attributes
    if not asked.is_resource:
        return _plain(cluster, call)
    resource = cluster.registry.find(asked.group, asked.version, asked.resource)
    if resource is None:
        raise no_such_path()
    if resource.deprecation:
        call.warnings.append(resource.deprecation)
    if asked.verb != "create" or asked.name or not resource.namespaced:
        _check_scope(call, resource)
    elif not asked.namespace:
        raise bad_request("an empty namespace may not be set during creation")
    if asked.subresource:
        return await handle_subresource(cluster, call, resource)
    if asked.verb not in resource.verbs or (asked.verb not in _MANY and bool(asked.name) is (asked.verb == "create")):
        raise method_not_allowed()
    if resource.verbs == ("create",):
        return await review(cluster, call, resource)
    return await _VERBS[asked.verb](cluster, call, resource)


def _check_scope(call: Call, resource: Resource) -> None:
    asked = call.attributes
    if not resource.namespaced and asked.namespace and resource.table != ("", "namespaces"):
        raise no_such_path()
    if resource.namespaced and not asked.namespace and asked.name and asked.verb not in {"list", "watch"}:
        raise no_such_path()


def _plain(cluster: Cluster, call: Call) -> Response:
    """Answer about the server itself."""
    path = call.path.rstrip("/")
    if path.startswith(_HEALTH):
        return Response(body=b"ok", content_type="text/plain; charset=utf-8")
    if call.method not in {"GET", "HEAD"}:
        raise method_not_allowed()
    if path == "/openapi/v2":
        return Response(body=OPENAPI_V2, content_type=OPENAPI_V2_TYPE)
    form = negotiate(call.headers.get("accept", ""), kinds=_DISCOVERY)
    document = _document(cluster, path, form)
    if document is None:
        raise no_such_path()
    answer = json_response(document)
    return Response(body=answer.body, content_type=form.content_type) if form.kind else answer


def _document(cluster: Cluster, path: str, form: Form) -> Json | None:
    registry = cluster.registry
    parts = path.strip("/").split("/")
    match parts:
        case ["version"]:
            return discovery.version_info()
        case ["openapi", "v3", *rest]:
            return _openapi(cluster, "/".join(rest[1:])) if rest else openapi_index(registry)
        case ["api" | "apis" as root] if form.kind:
            return discovery.aggregated(registry, core=root == "api")
        case ["api" | "apis", *_]:
            return _plain_discovery(registry, parts)
        case [""]:
            return {"paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]}
        case _:
            return None


def _plain_discovery(registry: Registry, parts: list[str]) -> Json | None:
    match parts:
        case ["api"]:
            return discovery.api_versions()
        case ["apis"]:
            return discovery.api_groups(registry)
        case ["api", version]:
            return discovery.api_resources(registry, "", version)
        case ["apis", group]:
            return discovery.api_group(registry, group)
        case ["apis", group, version]:
            return discovery.api_resources(registry, group, version)
        case _:
            return None


def _openapi(cluster: Cluster, group_version: str) -> Json | None:
    resources = [each for each in cluster.registry if each.api_version == group_version]
    return openapi_document(group_version, resources) if resources else None
