"""The Lease of an agent pod: how it is built, renewed and marked. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from fairlead.core import names
from fairlead.core.names import DRAIN_ANNOTATION
from fairlead.kube import Ref

__all__ = [
    "DRAIN_ANNOTATION",
    "UNWRITTEN",
    "build_lease",
    "describe_agent",
    "drain_request",
    "lease_ref",
    "renewal",
    "take_over",
]

UNWRITTEN: Final = "beat"
"""The topic of heartbeats whose Lease could not be written; keys are uids of pods."""
_API_VERSION: Final = "coordination.k8s.io/v1"


def lease_ref(namespace: str, pod: str) -> Ref:
    """Return where a pod's Lease is: it is named like the pod."""
    return Ref(_API_VERSION, "Lease", pod, namespace)


def describe_agent(version: str, capabilities: Iterable[str], *, capacity: int) -> dict[str, str]:
    """Return the annotations that say what an agent is."""
    return {
        names.VERSION_ANNOTATION: version,
        names.CAPABILITIES_ANNOTATION: ",".join(capabilities),
        names.CAPACITY_ANNOTATION: str(capacity),
    }


def build_lease(
    pod: Mapping[str, Any],
    *,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    seconds: int,
    now: datetime,
) -> dict[str, Any]:
    """Return the Lease of *pod*, owned by it."""
    meta = pod["metadata"]
    owner = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
    return {
        "apiVersion": _API_VERSION,
        "kind": "Lease",
        "metadata": {
            "name": meta["name"],
            "namespace": meta["namespace"],
            "labels": {**names.PART_OF_LABELS, **labels},
            "annotations": dict(annotations),
            "ownerReferences": [owner],
        },
        "spec": {
            "holderIdentity": meta["uid"],
            "leaseDurationSeconds": seconds,
            "acquireTime": _micro_time(now),
            "renewTime": _micro_time(now),
        },
    }


def take_over(lease: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch that makes *lease* of the one *found*: of an earlier process, or an earlier pod.

    What was asked of another pod of this name is not asked of this one.
    """
    meta = lease["metadata"]
    if (found.get("spec") or {}).get("holderIdentity") == lease["spec"]["holderIdentity"]:
        return dict(lease)
    return {**lease, "metadata": {**meta, "annotations": {DRAIN_ANNOTATION: None, **meta["annotations"]}}}


def renewal(pod_uid: str, now: datetime) -> dict[str, Any]:
    """Return the merge patch of a heartbeat."""
    return {"spec": {"holderIdentity": pod_uid, "renewTime": _micro_time(now)}}


def drain_request(uid: str) -> dict[str, Any]:
    """Return the merge patch that asks the holder of the very Lease to take no more work."""
    return {"metadata": {"uid": uid, "annotations": {DRAIN_ANNOTATION: "true"}}}


def _micro_time(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
