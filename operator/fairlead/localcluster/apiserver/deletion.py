"""What a DELETE does: preconditions, grace, finalizers, propagation.

Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import orjson

from fairlead.localcluster.apiserver.cluster import Cluster
from fairlead.localcluster.apiserver.errors import Json, bad_request, conflict, forbidden, invalid
from fairlead.localcluster.apiserver.requests import Call
from fairlead.localcluster.apiserver.resources import Resource
from fairlead.localcluster.apiserver.store import Stored
from fairlead.localcluster.apiserver.times import to_text
from fairlead.localcluster.apiserver.writes import removable
from fairlead.localcluster.schema.errors import unsupported

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
_POLICIES = ("Background", "Foreground", "Orphan")
_KEPT_NAMESPACES = frozenset({"default", "kube-system", "kube-public"})
_DEFAULT_POD_GRACE = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOptions:
    """How to delete."""

    policy: str = ""
    grace_seconds: int | None = None
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Deleted:
    """What became of it: the object as it now is, or as it was last when it is gone."""

    stored: Stored
    gone: bool


def parse_options(call: Call, resource: Resource) -> DeleteOptions:
    """Return the options from body and query.

    Raises:
        ApiError: they make no sense.
    """
    body = call.json_body(optional=True) or {}
    if not isinstance(body, dict) or body.get("kind", "DeleteOptions") != "DeleteOptions":
        raise bad_request("the body of a DELETE request must be DeleteOptions")
    preconditions, seconds = body.get("preconditions") or {}, body.get("gracePeriodSeconds")
    if not isinstance(preconditions, dict) or type(seconds) not in {int, type(None)}:
        raise bad_request("DeleteOptions: preconditions must be an object and gracePeriodSeconds an integer")
    policy = call.arg("propagationPolicy") or body.get("propagationPolicy") or ""
    if body.get("orphanDependents") is not None or call.arg("orphanDependents"):
        policy = "Orphan" if body.get("orphanDependents") or call.flag("orphanDependents") else "Background"
    if policy and policy not in _POLICIES:
        raise invalid(resource, "", [unsupported("propagationPolicy", policy, [*_POLICIES, "nil"])])
    grace = call.number("gracePeriodSeconds")
    return DeleteOptions(
        policy=policy,
        grace_seconds=grace if grace is not None else seconds,
        uid=preconditions.get("uid") or "",
        resource_version=preconditions.get("resourceVersion") or "",
        dry_run=call.dry_run or "All" in (body.get("dryRun") or []),
    )


def delete(cluster: Cluster, resource: Resource, old: Stored, options: DeleteOptions) -> Deleted:
    """Delete *old*, or mark it for deletion when something has to happen first.

    Raises:
        ApiError: it may not be deleted, or is not what the caller expects.
    """
    _check_preconditions(resource, old, options)
    if resource.table == ("", "namespaces") and old.key[1] in _KEPT_NAMESPACES:
        raise forbidden(resource, old.key[1], "this namespace may not be deleted")
    obj = _marked(cluster, resource, old, options)
    if options.dry_run:
        return Deleted(old, removable(resource, obj))
    if removable(resource, obj):
        return Deleted(cluster.store.delete(resource.table, old), gone=True)
    if obj == old.obj:
        return Deleted(old, gone=False)
    return Deleted(cluster.store.put(resource.table, obj), gone=False)


def _check_preconditions(resource: Resource, old: Stored, options: DeleteOptions) -> None:
    if options.uid and options.uid != old.uid:
        why = f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {old.uid}"
        raise conflict(resource, old.key[1], why)
    version = old.obj["metadata"]["resourceVersion"]
    if options.resource_version and options.resource_version != version:
        asked = f"ResourceVersion in precondition: {options.resource_version}"
        why = f"Precondition failed: {asked}, ResourceVersion in object meta: {version}"
        raise conflict(resource, old.key[1], why)


def _marked(cluster: Cluster, resource: Resource, old: Stored, options: DeleteOptions) -> Json:
    """Return the object as it is once it is being deleted."""
    obj: Json = orjson.loads(old.raw)
    metadata = obj["metadata"]
    finalizers = _finalizers(metadata.get("finalizers") or [], options.policy)
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
    grace = _grace(resource, obj, options)
    if "deletionTimestamp" not in metadata:
        metadata["deletionTimestamp"] = to_text(cluster.clock.now() + timedelta(seconds=grace))
        metadata["deletionGracePeriodSeconds"] = grace
        if "generation" in metadata:
            metadata["generation"] += 1
    elif grace < metadata.get("deletionGracePeriodSeconds", 0):
        metadata["deletionTimestamp"] = to_text(cluster.clock.now() + timedelta(seconds=grace))
        metadata["deletionGracePeriodSeconds"] = grace
    if resource.table == ("", "namespaces"):
        obj.setdefault("status", {})["phase"] = "Terminating"
    return obj


def _finalizers(present: list[str], policy: str) -> list[str]:
    """Return the finalizers that the propagation policy asks for; without one, what is there decides."""
    if not policy:
        return present
    kept = [name for name in present if name not in {ORPHAN, FOREGROUND}]
    extra = {"Orphan": [ORPHAN], "Foreground": [FOREGROUND]}.get(policy, [])
    return kept + extra


def _grace(resource: Resource, obj: Json, options: DeleteOptions) -> int:
    """Return the seconds that a pod on a node has; everything else goes at once."""
    if resource.table != ("", "pods"):
        return 0
    spec, phase = obj.get("spec") or {}, (obj.get("status") or {}).get("phase")
    if not spec.get("nodeName") or phase in {"Succeeded", "Failed"}:
        return 0
    if options.grace_seconds is not None:
        return max(0, options.grace_seconds)
    current = obj["metadata"].get("deletionGracePeriodSeconds")
    return int(current if current is not None else spec.get("terminationGracePeriodSeconds", _DEFAULT_POD_GRACE))
