"""Events have one store and two faces: ``v1`` and ``events.k8s.io/v1``."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_RENAMED = {
    # core/v1: events.k8s.io/v1
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}
_RENAMED_BACK = {new: old for old, new in _RENAMED.items()}


def event_to_v1(obj: Json) -> Json:
    """Return a core event as ``events.k8s.io/v1``."""
    return {_RENAMED.get(name, name): value for name, value in obj.items()} | {"apiVersion": "events.k8s.io/v1"}


def event_to_core(obj: Json) -> Json:
    """Return an ``events.k8s.io/v1`` event as it is stored."""
    return {_RENAMED_BACK.get(name, name): value for name, value in obj.items()} | {"apiVersion": "v1"}
