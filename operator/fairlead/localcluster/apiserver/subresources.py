"""Subresources that are neither the object itself nor its status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

import orjson

from fairlead.localcluster.apiserver.cluster import Cluster
from fairlead.localcluster.apiserver.deletion import delete, parse_options
from fairlead.localcluster.apiserver.errors import (
    ApiError,
    Json,
    bad_request,
    conflict,
    invalid,
    method_not_allowed,
    no_such_path,
    not_found,
)
from fairlead.localcluster.apiserver.logs import pod_log
from fairlead.localcluster.apiserver.output import Response, json_response, success_status
from fairlead.localcluster.apiserver.reading import get
from fairlead.localcluster.apiserver.requests import Call, parse_json
from fairlead.localcluster.apiserver.resources import Resource
from fairlead.localcluster.apiserver.selectors import requirements_of
from fairlead.localcluster.apiserver.store import Stored
from fairlead.localcluster.apiserver.times import to_text
from fairlead.localcluster.apiserver.tokens import AUDIENCE
from fairlead.localcluster.apiserver.writes import check_types, update
from fairlead.localcluster.apiserver.writing import (
    existing,
    object_of,
    patch_failed,
    patch_resource,
    update_resource,
    write_options,
)
from fairlead.localcluster.patching import PatchError, json_patch, merge_patch
from fairlead.localcluster.schema.errors import FieldError
from fairlead.localcluster.schema.errors import invalid as invalid_field

Handler = Callable[[Cluster, Call, Resource], Awaitable[Response]]

MIN_TOKEN_SECONDS = 600
MAX_TOKEN_SECONDS = 2**32
_DEFAULT_TOKEN_SECONDS = 3_600
_BOUND = {("v1", "Pod"): "pods", ("v1", "Secret"): "secrets", ("v1", "Node"): "nodes"}


async def handle_subresource(cluster: Cluster, call: Call, resource: Resource) -> Response:
    """Answer a request for a subresource.

    Raises:
        ApiError: there is no such subresource, or it does not do this.
    """
    asked = call.attributes
    if asked.subresource not in resource.subresources:
        raise no_such_path()
    handler = _HANDLERS.get((asked.subresource, asked.verb))
    if handler is None:
        raise method_not_allowed()
    return await handler(cluster, call, resource)


async def _create_token(cluster: Cluster, call: Call, resource: Resource) -> Response:
    """Source: https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/."""
    account = existing(cluster, call, resource)
    body = call.json_body()
    check_types("authentication.k8s.io/v1", "TokenRequest", body)
    spec = body.get("spec") or {}
    lifetime = _lifetime(call, spec)
    bound = _bound_object(cluster, account, spec.get("boundObjectRef"))
    audiences = list(spec.get("audiences") or [AUDIENCE])
    token = cluster.tokens.issue(account, bound, audiences=audiences, lifetime=lifetime)
    expires = to_text(cluster.clock.now() + lifetime)
    filled = {"audiences": audiences, "expirationSeconds": int(lifetime.total_seconds()), "boundObjectRef": bound}
    namespace, name = account.key
    review = {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": cluster.now()},
        "spec": filled,
        "status": {"token": token, "expirationTimestamp": expires},
    }
    await cluster.store.settled()
    return json_response(review, code=201)


class _TokenRequest:
    group, plural, kind = "authentication.k8s.io", "tokenrequests", "TokenRequest"


def _lifetime(call: Call, spec: Json) -> timedelta:
    seconds = spec.get("expirationSeconds")
    seconds = _DEFAULT_TOKEN_SECONDS if seconds is None else seconds
    path, name = "spec.expirationSeconds", call.attributes.name
    if seconds < MIN_TOKEN_SECONDS:
        problem = invalid_field(path, seconds, "may not specify a duration less than 10 minutes")
        raise invalid(_TokenRequest, name, [problem])
    if seconds > MAX_TOKEN_SECONDS:
        problem = invalid_field(path, seconds, "may not specify a duration larger than 2^32 seconds")
        raise invalid(_TokenRequest, name, [problem])
    return timedelta(seconds=seconds)


def _bound_object(cluster: Cluster, account: Stored, reference: Json | None) -> Json | None:
    if not reference:
        return None
    plural = _BOUND.get((reference.get("apiVersion", "v1"), reference.get("kind", "")))
    if plural is None:
        raise bad_request(
            f"cannot bind token to object of type {reference.get('apiVersion')}, Kind={reference.get('kind')}"
        )
    namespace, name = "" if plural == "nodes" else account.key[0], reference.get("name", "")
    stored = cluster.store.get(("", plural), namespace, name)
    kind = cluster.registry.find("", "v1", plural)
    if stored is None or kind is None:
        message = f'{plural} "{name}" not found'
        raise ApiError(404, "NotFound", message, details={"name": name, "kind": plural})
    if reference.get("uid") and reference["uid"] != stored.uid:
        uids = f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record"
        raise conflict(kind, name, uids)
    if plural == "pods" and stored.obj["spec"].get("serviceAccountName") != account.key[1]:
        why = "cannot bind token for serviceaccount to pod running with different serviceaccount name"
        raise bad_request(f'{why} "{stored.obj["spec"].get("serviceAccountName")}"')
    return {"apiVersion": "v1", "kind": reference["kind"], "name": name, "uid": stored.uid}


async def _bind_pod(cluster: Cluster, call: Call, resource: Resource) -> Response:
    """Put a pod on a node, once."""
    old = existing(cluster, call, resource)
    body = call.json_body()
    check_types("v1", "Binding", body)
    target = (body.get("target") or {}).get("name", "")
    if not target:
        problem = FieldError("target.name", "Required value", "FieldValueRequired")
        raise invalid(resource, call.attributes.name, [problem])
    if old.obj["spec"].get("nodeName"):
        why = f'pod {call.attributes.name} is already assigned to node "{old.obj["spec"]["nodeName"]}"'
        raise conflict(resource, call.attributes.name, why)
    if old.obj["metadata"].get("deletionTimestamp"):
        raise conflict(
            resource, call.attributes.name, f"pod {call.attributes.name} is being deleted, cannot be assigned to a host"
        )
    if not call.dry_run:
        pod: Json = orjson.loads(old.raw)
        pod["spec"]["nodeName"] = target
        conditions = pod["status"].setdefault("conditions", [])
        conditions[:] = [each for each in conditions if each["type"] != "PodScheduled"]
        scheduled = {
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": cluster.now(),
        }
        conditions.append(scheduled)
        cluster.store.put(resource.table, pod)
    await cluster.store.settled()
    return json_response({**success_status({}), "code": 201}, code=201)


async def _evict_pod(cluster: Cluster, call: Call, resource: Resource) -> Response:
    """Delete a pod in the way that a drain asks for. Disruption budgets need a controller that is not here."""
    old = existing(cluster, call, resource)
    eviction = call.json_body()
    check_types("policy/v1", "Eviction", eviction)
    options = eviction.get("deleteOptions")
    inner = Call("DELETE", call.path, call.query, {}, call.attributes, orjson.dumps(options or {}), call.user)
    delete(cluster, resource, old, parse_options(inner, resource))
    await cluster.store.settled()
    return json_response({**success_status({}), "code": 201}, code=201)


async def _get_scale(cluster: Cluster, call: Call, resource: Resource) -> Response:
    stored = existing(cluster, call, resource)
    await cluster.store.settled(stored.rv)
    return json_response(_scale_of(resource, stored))


async def _put_scale(cluster: Cluster, call: Call, resource: Resource) -> Response:
    return await _scaled(cluster, call, resource, call.json_body())


async def _patch_scale(cluster: Cluster, call: Call, resource: Resource) -> Response:
    before = _scale_of(resource, existing(cluster, call, resource))
    patch = parse_json(call.body)
    try:
        after = json_patch(before, patch) if isinstance(patch, list) else merge_patch(before, patch)
    except PatchError as error:
        raise patch_failed(error) from None
    return await _scaled(cluster, call, resource, after)


async def _scaled(cluster: Cluster, call: Call, resource: Resource, scale: Json) -> Response:
    old, paths = existing(cluster, call, resource), resource.scale
    check_types("autoscaling/v1", "Scale", scale)
    replicas = (scale.get("spec") or {}).get("replicas") or 0
    if replicas < 0:
        problem = invalid_field("spec.replicas", replicas, "must be greater than or equal to 0")
        raise invalid(resource, call.attributes.name, [problem])
    if paths is None:
        raise not_found(resource, call.attributes.name)
    obj = object_of(call, resource, orjson.loads(orjson.dumps(resource.from_stored(old.obj))))
    if version := (scale.get("metadata") or {}).get("resourceVersion"):
        obj["metadata"]["resourceVersion"] = version
    *parents, last = paths.spec_replicas.strip(".").split(".")
    target = obj
    for name in parents:
        target = target.setdefault(name, {})
    target[last] = replicas
    options = write_options(call, resource)
    stored = update(cluster, resource, old, obj, options=options)
    await cluster.store.settled()
    return json_response(_scale_of(resource, stored))


def _scale_of(resource: Resource, stored: Stored) -> Json:
    paths, metadata = resource.scale, stored.obj["metadata"]
    if paths is None:
        raise not_found(resource, stored.key[1])
    selector = _value(stored.obj, paths.selector)
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status = {"replicas": _value(stored.obj, paths.status_replicas) or 0}
    if selector:
        status["selector"] = _selector_text(selector)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: metadata[name] for name in kept if name in metadata},
        "spec": {"replicas": _value(stored.obj, paths.spec_replicas) or 0},
        "status": status,
    }


def _value(obj: Json, path: str) -> Any:
    value: Any = obj
    for name in filter(None, path.split(".")):
        value = value.get(name) if isinstance(value, dict) else None
    return value if path else None


def _selector_text(selector: Any) -> str:
    if isinstance(selector, str):
        return selector
    labels = selector if "matchLabels" not in selector and "matchExpressions" not in selector else None
    terms = requirements_of(selector if labels is None else {"matchLabels": labels})
    return ",".join(f"{term.key}={term.values[0]}" for term in terms if term.operator == "In")


_HANDLERS: Mapping[tuple[str, str], Handler] = {
    ("status", "get"): get,
    ("status", "update"): update_resource,
    ("status", "patch"): patch_resource,
    ("finalize", "update"): update_resource,
    ("scale", "get"): _get_scale,
    ("scale", "update"): _put_scale,
    ("scale", "patch"): _patch_scale,
    ("log", "get"): pod_log,
    ("token", "create"): _create_token,
    ("binding", "create"): _bind_pod,
    ("eviction", "create"): _evict_pod,
}
