"""The Lease of an agent pod: how it is built and renewed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from fairlead.core import names
from fairlead.kube import Ref

_API_VERSION: Final = "coordination.k8s.io/v1"
DRAIN_ANNOTATION: Final = f"{names.GROUP}/drain"
"""On the Lease, ``true``: the pod claims nothing more and finishes what it has."""


def lease_ref(namespace: str, pod: str) -> Ref:
    """Return where a pod's Lease is: it is named like the pod."""
    return Ref(_API_VERSION, "Lease", pod, namespace)


def build_lease(pod: Mapping[str, Any], *, labels: Mapping[str, str], seconds: int, now: datetime) -> dict[str, Any]:
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
            "ownerReferences": [owner],
        },
        "spec": {
            "holderIdentity": meta["uid"],
            "leaseDurationSeconds": seconds,
            "acquireTime": _micro_time(now),
            "renewTime": _micro_time(now),
        },
    }


def renewal(pod_uid: str, now: datetime) -> dict[str, Any]:
    """Return the merge patch of a heartbeat."""
    return {"spec": {"holderIdentity": pod_uid, "renewTime": _micro_time(now)}}


def wants_drain(lease: Mapping[str, Any]) -> bool:
    """Whether somebody asked, on the Lease, that the pod takes no more work."""
    annotations = (lease.get("metadata") or {}).get("annotations") or {}
    return bool(annotations.get(DRAIN_ANNOTATION) == "true")


def _micro_time(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
