"""Creating and updating objects: the same steps for every kind.

Decode (unknown fields), fill in (system fields, defaults, what the kind adds), track who owns which field, check,
admit, store.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from fairlead.localcluster.apiserver import kinds
from fairlead.localcluster.apiserver.cluster import Cluster
from fairlead.localcluster.apiserver.errors import (
    Json,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    not_found,
)
from fairlead.localcluster.apiserver.metadata import check_finalizers_kept, check_metadata, name_object
from fairlead.localcluster.apiserver.requests import User
from fairlead.localcluster.apiserver.resources import Resource
from fairlead.localcluster.apiserver.store import Stored
from fairlead.localcluster.patching import track_update
from fairlead.localcluster.schema import FieldError, builtin_schema, pruned, validate, with_defaults

SYSTEM = User("system:apiserver", ("system:masters",))
_SYSTEM_FIELDS = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "generateName",
    "name",
    "namespace",
    "resourceVersion",
)
_HEAD = frozenset({"apiVersion", "kind", "metadata"})
_RV_REQUIRED = "must be specified for an update"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """How to write."""

    user: User = SYSTEM
    manager: str = "fairlead-apiserver"
    subresource: str = ""
    dry_run: bool = False
    strictness: str = "Ignore"
    """What to do about unknown fields: Ignore, Warn or Strict."""
    operation: str = "Update"
    """Apply: managedFields are right already."""
    unconditional: bool = True
    """Whether an update may leave out the resourceVersion."""
    patches: bool = False
    """Whether the object came of a patch: a uid in it is no precondition then, but a field that cannot change."""
    warnings: list[str] = field(default_factory=list)


def create(cluster: Cluster, resource: Resource, obj: Json, *, options: WriteOptions) -> Stored:
    """Create *obj*, which belongs to the writer from here, and return what is stored.

    Raises:
        ApiError: it is refused.
    """
    name_object(resource, obj)
    if obj["metadata"].get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    obj = decode(cluster, resource, obj, options=options)
    _begin(cluster, resource, obj)
    obj = _complete(cluster, resource, obj, before=None, options=options)
    _check(cluster, resource, obj, before=None)
    _check_namespace(cluster, resource, obj)
    kinds.admit(cluster, resource, obj, before=None, user=options.user)
    options.warnings.extend(kinds.warnings(resource, obj))
    namespace, name = obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
    if cluster.get(resource, namespace, name) is not None:
        raise already_exists(resource, name)
    return _store(cluster, resource, obj, dry_run=options.dry_run)


def update(cluster: Cluster, resource: Resource, old: Stored, obj: Json, *, options: WriteOptions) -> Stored:
    """Replace *old* by *obj*, which belongs to the writer from here, and return what is stored.

    Raises:
        ApiError: it is refused.
    """
    before = resource.from_stored(old.obj)
    _check_preconditions(resource, before, obj, options=options)
    obj = decode(cluster, resource, obj, options=options)
    obj = _merge_parts(resource, before, obj, subresource=options.subresource)
    obj["metadata"] = _kept_metadata(before, obj)
    obj = _complete(cluster, resource, obj, before=before, options=options)
    _check(cluster, resource, obj, before=before)
    kinds.admit(cluster, resource, obj, before=before, user=options.user)
    if obj == before:
        return old
    options.warnings.extend(kinds.warnings(resource, obj))
    if removable(resource, obj):
        return _remove(cluster, resource, old, dry_run=options.dry_run)
    return _store(cluster, resource, obj, dry_run=options.dry_run)


def amend(cluster: Cluster, resource: Resource, old: Stored, change: Callable[[Json], None]) -> Stored:
    """Let the server itself change an object: *change* gets a copy of it. Nothing but the outcome is checked."""
    obj: Json = orjson.loads(old.raw)
    change(obj)
    if obj == old.obj:
        return old
    if removable(resource, obj):
        return cluster.store.delete(resource.table, old)
    return cluster.store.put(resource.table, obj)


def removable(resource: Resource, obj: Json) -> bool:
    """Tell whether *obj* is being deleted and nothing keeps it any more."""
    metadata = obj["metadata"]
    if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
        return False
    if resource.table == ("", "namespaces") and obj.get("spec", {}).get("finalizers"):
        return False
    return not metadata.get("deletionGracePeriodSeconds")


def _remove(cluster: Cluster, resource: Resource, old: Stored, *, dry_run: bool) -> Stored:
    return old if dry_run else cluster.store.delete(resource.table, old)


def _store(cluster: Cluster, resource: Resource, obj: Json, *, dry_run: bool) -> Stored:
    stored = resource.to_stored(obj)
    if not dry_run:
        return cluster.store.put(resource.table, stored)
    metadata = stored["metadata"]
    return Stored((metadata.get("namespace", ""), metadata["name"]), 0, stored, orjson.dumps(stored))


def decode(cluster: Cluster, resource: Resource, obj: Json, *, options: WriteOptions) -> Json:
    """Drop unknown fields, and say so if asked."""
    if _has_null_item(obj["metadata"] if resource.custom else obj):
        raise bad_request(f"{resource.kind} cannot be handled: a list has null in it")
    schema = cluster.registry.schema(resource)
    if schema is None:
        return obj
    known, unknown = pruned(schema, obj)
    if unknown and options.strictness == "Strict":
        problems = ", ".join(f'unknown field "{path}"' for path in unknown)
        message = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
        raise bad_request(f"{message}: strict decoding error: {problems}")
    if options.strictness == "Warn":
        options.warnings.extend(f'unknown field "{path}"' for path in unknown)
    return dict(known)


def _begin(cluster: Cluster, resource: Resource, obj: Json) -> None:
    """Give a new object what only the server gives."""
    metadata = obj["metadata"] = dict(obj["metadata"])
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink", "resourceVersion"):
        metadata.pop(name, None)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = cluster.now()
    if resource.has_generation:
        metadata["generation"] = 1
    if resource.has_status() and resource.table != ("", "nodes"):
        obj.pop("status", None)


def _complete(cluster: Cluster, resource: Resource, obj: Json, *, before: Json | None, options: WriteOptions) -> Json:
    """Add the kind's own, the schema's defaults, the generation and the record of who owns what."""
    schema = cluster.registry.schema(resource)
    if kinds.prepares(resource):
        check_types(resource.api_version, resource.kind, obj)
    kinds.prepare(cluster, resource, obj, before=before)
    if schema is not None:
        obj = with_defaults(schema, obj)
    if before is not None and resource.has_generation and _desired(resource, obj) != _desired(resource, before):
        obj["metadata"]["generation"] = before["metadata"].get("generation", 0) + 1
    if options.operation == "Apply":
        return obj
    return track_update(
        before,
        obj,
        schema=schema,
        manager=options.manager,
        operation=options.operation,
        subresource=options.subresource,
        now=cluster.now(),
    )


def _has_null_item(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_null_item(item) for item in value.values() if isinstance(item, dict | list))
    return any(item is None or (isinstance(item, dict | list) and _has_null_item(item)) for item in value)


class _Typed:
    """What an error says of an object that is not stored."""

    def __init__(self, api_version: str, kind: str) -> None:
        self.group, self.kind, self.plural = api_version.rpartition("/")[0], kind, f"{kind.lower()}s"


def check_types(api_version: str, kind: str, obj: Any) -> None:
    """Refuse a built-in object with fields of the wrong type, before anything reads them.

    Raises:
        ApiError: 400 for what is no object, 422 for fields.
    """
    if not isinstance(obj, dict):
        raise bad_request(f"the body must be a {kind}")
    schema = builtin_schema(api_version, kind)
    problems = validate(schema, obj) if schema is not None else []
    wrong = [problem for problem in problems if problem.reason == "FieldValueTypeInvalid"]
    if wrong:
        raise invalid(_Typed(api_version, kind), "", wrong)


def _desired(resource: Resource, obj: Json) -> Json:
    skipped = _HEAD | {"status"} if resource.has_status() else _HEAD
    return {name: value for name, value in obj.items() if name not in skipped}


def _check(cluster: Cluster, resource: Resource, obj: Json, *, before: Json | None) -> None:
    schema = cluster.registry.schema(resource)
    problems: list[FieldError] = validate(schema, obj, old=before) if schema is not None else []
    if not any(problem.path.startswith("metadata") for problem in problems):
        problems += check_metadata(resource, obj)
    problems += check_finalizers_kept(before, obj) if before is not None else []
    if problems:
        raise invalid(resource, obj["metadata"].get("name") or "", problems)


def _check_namespace(cluster: Cluster, resource: Resource, obj: Json) -> None:
    if not resource.namespaced:
        return
    name = obj["metadata"]["namespace"]
    namespace = cluster.core("namespaces", "", name)
    if namespace is None:
        namespaces = cluster.registry.find("", "v1", "namespaces")
        raise not_found(namespaces or resource, name)
    if namespace["metadata"].get("deletionTimestamp"):
        why = f"unable to create new content in namespace {name} because it is being terminated"
        error = forbidden(resource, obj["metadata"]["name"], why)
        cause = {"reason": "NamespaceTerminating", "message": f"namespace {name} is being terminated"}
        error.details["causes"] = [{**cause, "field": "metadata.namespace"}]
        raise error


def _check_preconditions(resource: Resource, before: Json, obj: Json, *, options: WriteOptions) -> None:
    metadata, name = obj["metadata"], before["metadata"]["name"]
    if metadata.get("name", name) != name:
        raise bad_request(f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})")
    _check_uid(resource, before, obj, options=options)
    version = metadata.get("resourceVersion") or ""
    if not version and not options.unconditional:
        problem = FieldError("metadata.resourceVersion", f"Invalid value: 0: {_RV_REQUIRED}", "FieldValueInvalid")
        raise invalid(resource, name, [problem])
    if version and version != before["metadata"]["resourceVersion"]:
        raise conflict(resource, name)


def _check_uid(resource: Resource, before: Json, obj: Json, *, options: WriteOptions) -> None:
    name, uid = before["metadata"]["name"], before["metadata"]["uid"]
    given = obj["metadata"].get("uid", uid)
    if given == uid:
        return
    if not options.patches:
        why = f"Precondition failed: UID in precondition: {given}, UID in object meta: {uid}"
        raise conflict(resource, name, why)
    if not (resource.custom and options.subresource == "status"):  # there nothing of the metadata is taken over
        problem = FieldError("metadata.uid", f'Invalid value: "{given}": field is immutable', "FieldValueInvalid")
        raise invalid(resource, name, [problem])


def _merge_parts(resource: Resource, before: Json, obj: Json, *, subresource: str) -> Json:
    """Take from *obj* what the endpoint may change, and the rest from *before*."""
    if subresource == "status":
        kept = {name: value for name, value in before.items() if name not in {"status", "metadata"}}
        metadata = obj["metadata"]
        if resource.custom:
            metadata = {**before["metadata"], "managedFields": metadata.get("managedFields")}
        return {**kept, "metadata": metadata, **({"status": obj["status"]} if "status" in obj else {})}
    if subresource == "finalize":
        return {**before, "metadata": before["metadata"], "spec": obj.get("spec", {})}
    if not resource.has_status():
        return obj
    rest = {name: value for name, value in obj.items() if name != "status"}
    return {**rest, **({"status": before["status"]} if "status" in before else {})}


def _kept_metadata(before: Json, obj: Json) -> Json:
    metadata = {name: value for name, value in obj["metadata"].items() if value is not None and name != "selfLink"}
    for name in _SYSTEM_FIELDS:
        metadata.pop(name, None)
        if name in before["metadata"]:
            metadata[name] = before["metadata"][name]
    for name in ("labels", "annotations", "finalizers", "ownerReferences"):
        if not metadata.get(name):
            metadata.pop(name, None)
    return metadata
