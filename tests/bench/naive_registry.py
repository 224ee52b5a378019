"""The registry that one writes on a first afternoon with Kopf: watch all Leases, remember when each changed.

It only knows who is there: it judges by its own clock as Fairlead does, and tells nobody.
"""

from __future__ import annotations

import time
from typing import Any

import kopf

LABEL = "fairlead.dev/agent"
SEEN: dict[str, tuple[str, float]] = {}
ALIVE: set[str] = set()


@kopf.on.startup()
def choose(settings: kopf.OperatorSettings, **_: Any) -> None:
    """Write nothing anywhere."""
    settings.posting.enabled = False


@kopf.on.event("coordination.k8s.io", "v1", "leases", labels={LABEL: kopf.PRESENT})
def follow(uid: str, spec: dict[str, Any], **_: Any) -> None:
    """Remember a Lease, and look which are over."""
    renewed = spec.get("renewTime") or ""
    if SEEN.get(uid, ("", 0.0))[0] != renewed:
        SEEN[uid] = renewed, time.monotonic()
    if SEEN[uid][1] + spec.get("leaseDurationSeconds", 15) > time.monotonic():
        ALIVE.add(uid)
    else:
        ALIVE.discard(uid)
