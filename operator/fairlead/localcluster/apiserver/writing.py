"""POST, PUT, PATCH and DELETE of objects."""

from __future__ import annotations

from typing import Any

import orjson

from fairlead.localcluster.apiserver.cluster import Cluster
from fairlead.localcluster.apiserver.deletion import Deleted, delete, parse_options
from fairlead.localcluster.apiserver.errors import (
    ApiError,
    Json,
    bad_request,
    conflict,
    details_of,
    forbidden,
    invalid,
    not_found,
    unsupported_media,
)
from fairlead.localcluster.apiserver.negotiation import Form
from fairlead.localcluster.apiserver.output import Response, Style, json_response, success_status
from fairlead.localcluster.apiserver.rbac import denial
from fairlead.localcluster.apiserver.reading import namespace_of, selection_of, style_of
from fairlead.localcluster.apiserver.requests import Attributes, Call, parse_json, parse_yaml
from fairlead.localcluster.apiserver.resources import Resource
from fairlead.localcluster.apiserver.store import Stored
from fairlead.localcluster.apiserver.writes import WriteOptions, create, decode, update
from fairlead.localcluster.patching import (
    ApplyConflict,
    PatchError,
    json_patch,
    merge_patch,
    server_side_apply,
    strategic_merge_patch,
)
from fairlead.localcluster.schema.errors import forbidden as forbidden_field
from fairlead.localcluster.schema.errors import required

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
_STRICTNESS = frozenset({"Ignore", "Warn", "Strict"})


class _PatchOptions:
    group, plural, kind = "meta.k8s.io", "patchoptions", "PatchOptions"


def write_options(call: Call, resource: Resource, *, operation: str = "Update") -> WriteOptions:
    """Return how the call wants to write."""
    strictness = call.arg("fieldValidation") or "Warn"
    if strictness not in _STRICTNESS:
        message = f'fieldValidation: Unsupported value: "{strictness}": supported values: "Ignore", "Strict", "Warn"'
        raise bad_request(message)
    return WriteOptions(
        user=call.user,
        manager=call.manager,
        subresource=call.attributes.subresource,
        dry_run=call.dry_run,
        strictness=strictness,
        operation=operation,
        unconditional=not (resource.custom and call.method == "PUT"),
        patches=call.method == "PATCH",
        warnings=call.warnings,
    )


def object_of(call: Call, resource: Resource, body: Any) -> Json:
    """Return the body as an object of *resource*, in the namespace of the URL.

    Raises:
        ApiError: 400, it is something else.
    """
    if not isinstance(body, dict):
        raise bad_request(f"the body must be a {resource.kind}")
    obj: Json = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
    if obj["kind"] != resource.kind:
        raise bad_request(f"the kind in the data ({obj['kind']}) does not match the expected kind ({resource.kind})")
    if obj["apiVersion"] != resource.api_version:
        versions = f"({obj['apiVersion']}) does not match the expected API version ({resource.api_version})"
        raise bad_request(f"the API version in the data {versions}")
    metadata = obj.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise bad_request(f"metadata of a {resource.kind} must be an object")
    obj["metadata"] = dict(metadata)
    _place(call, resource, obj["metadata"])
    return obj


def _place(call: Call, resource: Resource, metadata: Json) -> None:
    """Put the object into the namespace of the URL."""
    namespace = namespace_of(call, resource)
    given = metadata.get("namespace") or namespace
    if given != namespace and resource.namespaced:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    metadata.pop("namespace", None)
    if namespace:
        metadata["namespace"] = namespace


async def create_resource(cluster: Cluster, call: Call, resource: Resource) -> Response:
    """Create the object in the body."""
    style = style_of(cluster, call, resource)
    obj = object_of(call, resource, call.json_body())
    stored = create(cluster, resource, obj, options=write_options(call, resource))
    return await written(cluster, style, stored, code=201)


async def update_resource(cluster: Cluster, call: Call, resource: Resource) -> Response:
    """Replace an object by the one in the body."""
    style = style_of(cluster, call, resource)
    obj = object_of(call, resource, call.json_body())
    old = existing(cluster, call, resource)
    stored = update(cluster, resource, old, obj, options=write_options(call, resource))
    return await written(cluster, style, stored)


def existing(cluster: Cluster, call: Call, resource: Resource) -> Stored:
    """Return the object that the URL names.

    Raises:
        ApiError: 404.
    """
    stored = cluster.get(resource, namespace_of(call, resource), call.attributes.name)
    if stored is None:
        raise not_found(resource, call.attributes.name)
    return stored


async def written(cluster: Cluster, style: Style, stored: Stored, *, code: int = 200) -> Response:
    """Answer with what was written, once it is on disk."""
    await cluster.store.settled()
    return Response(code=code, body=style.one(stored), content_type=style.form.content_type)


async def patch_resource(cluster: Cluster, call: Call, resource: Resource) -> Response:
    """Patch an object in one of the four ways."""
    style = style_of(cluster, call, resource)
    if call.content_type() == APPLY_PATCH:
        return await _apply(cluster, call, style)
    if call.arg("force"):
        problem = forbidden_field("force", "may not be specified for non-apply patch")
        raise invalid(_PatchOptions, "", [problem])
    old = existing(cluster, call, resource)
    obj = _patched(cluster, call, resource, resource.from_stored(old.obj))
    stored = update(cluster, resource, old, obj, options=write_options(call, resource))
    return await written(cluster, style, stored)


def _patched(cluster: Cluster, call: Call, resource: Resource, before: Json) -> Json:
    patch = _patch_of(call)
    after: Any
    try:
        match call.content_type():
            case "application/json-patch+json":
                after = json_patch(before, patch)
            case "application/merge-patch+json":
                after = merge_patch(before, patch)
            case "application/strategic-merge-patch+json" if not resource.custom:
                after = strategic_merge_patch(before, patch, schema=cluster.registry.schema(resource))
            case _:
                raise _unknown_patch(resource)
    except PatchError as error:
        raise patch_failed(error) from None
    if not isinstance(after, dict) or not isinstance(after.get("metadata"), dict):
        raise bad_request("the patch leaves no object")
    return object_of(call, resource, orjson.loads(orjson.dumps(after)))


def _patch_of(call: Call) -> Any:
    patch = parse_json(call.body)
    if isinstance(patch, list if call.content_type() == JSON_PATCH else dict):
        return patch
    raise bad_request("the patch must be an object, a JSON patch a list of operations")


def _unknown_patch(resource: Resource) -> ApiError:
    accepted = [JSON_PATCH, MERGE_PATCH, *([] if resource.custom else [STRATEGIC_PATCH]), APPLY_PATCH]
    return unsupported_media(accepted)


def patch_failed(error: PatchError) -> ApiError:
    """Return what a client hears of a patch that does not fit."""
    if error.status != 422:  # noqa: PLR2004
        return bad_request(str(error))
    message = f"the server rejected our request due to an error in our request: {error}"
    return ApiError(422, "Invalid", message)


async def _apply(cluster: Cluster, call: Call, style: Style) -> Response:
    """Server-side apply; creates the object if it is not there."""
    resource = style.resource
    if not call.arg("fieldManager"):
        raise invalid(_PatchOptions, "", [required("fieldManager", "is required for apply patch")])
    options = write_options(call, resource, operation="Apply")
    applied = _applied_object(cluster, call, resource, options=options)
    old = cluster.get(resource, namespace_of(call, resource), call.attributes.name)
    if old is None:
        _check_may_create(cluster, call, resource)
        if applied["metadata"].get("uid"):
            raise conflict(
                resource,
                call.attributes.name,
                "uid mismatch: the provided object specified uid, and no existing object was found",
            )
    obj = _merged(cluster, call, resource, applied, live=old)
    if old is None:
        stored = create(cluster, resource, obj, options=options)
    else:
        stored = update(cluster, resource, old, obj, options=options)
    return await written(cluster, style, stored, code=201 if old is None else 200)


def _applied_object(cluster: Cluster, call: Call, resource: Resource, *, options: WriteOptions) -> Json:
    body = parse_yaml(call.body)
    applied = object_of(call, resource, body)
    metadata = applied["metadata"]
    if metadata.get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    if metadata.setdefault("name", call.attributes.name) != call.attributes.name:
        names = f"({metadata['name']}) does not match the name on the URL ({call.attributes.name})"
        raise bad_request(f"the name of the object {names}")
    return decode(cluster, resource, applied, options=options)


def _merged(cluster: Cluster, call: Call, resource: Resource, applied: Json, *, live: Stored | None) -> Json:
    try:
        merged = server_side_apply(
            resource.from_stored(live.obj) if live is not None else None,
            applied,
            schema=cluster.registry.schema(resource),
            manager=call.manager,
            force=call.flag("force"),
            subresource=call.attributes.subresource,
            now=cluster.now(),
            has_status=resource.has_status(),
        )
    except ApplyConflict as error:
        causes = [{"reason": each.reason, "message": each.message, "field": each.field} for each in error.causes]
        raise ApiError(409, "Conflict", str(error), details={"causes": causes}) from None
    except PatchError as error:
        raise patch_failed(error) from None
    obj: Json = orjson.loads(orjson.dumps(merged))
    if "resourceVersion" not in applied["metadata"]:
        obj["metadata"].pop("resourceVersion", None)
    return obj


def _check_may_create(cluster: Cluster, call: Call, resource: Resource) -> None:
    asked = call.attributes
    if asked.subresource:
        raise not_found(resource, asked.name)
    attributes = Attributes(
        verb="create",
        group=asked.group,
        version=asked.version,
        resource=asked.resource,
        namespace=asked.namespace,
        name=asked.name,
    )
    if not cluster.authorizer.decide(call.user, attributes).allowed:
        raise forbidden(resource, asked.name, denial(call.user, attributes))


async def delete_resource(cluster: Cluster, call: Call, resource: Resource) -> Response:
    """Delete one object."""
    options = parse_options(call, resource)
    outcome = delete(cluster, resource, existing(cluster, call, resource), options)
    await cluster.store.settled()
    return _deleted(resource, outcome)


def _deleted(resource: Resource, outcome: Deleted) -> Response:
    if resource.returns_deleted or not outcome.gone:
        return Response(body=Style(resource=resource, form=Form()).one(outcome.stored))
    details = details_of(resource, outcome.stored.key[1], uid=outcome.stored.uid)
    return json_response(success_status(details))


async def delete_collection(cluster: Cluster, call: Call, resource: Resource) -> Response:
    """Delete everything that is selected."""
    options, selection = parse_options(call, resource), selection_of(call, resource)
    table = cluster.store.table(resource.table)
    objects = [
        stored
        for stored in table.select(namespace_of(call, resource))
        if not selection or selection.matches(resource.from_stored(stored.obj))
    ]
    outcomes = [delete(cluster, resource, stored, options) for stored in objects]
    await cluster.store.settled()
    metadata = {"resourceVersion": str(cluster.store.head)}
    items = [outcome.stored for outcome in outcomes]
    return Response(body=Style(resource=resource, form=Form()).many(items, metadata))
