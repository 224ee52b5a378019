"""What a plan may ask for. `services` applies it, in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fairlead.core.conditions import Condition

Obj = Mapping[str, Any]
"""A Kubernetes object as on the wire."""


@dataclass(frozen=True, slots=True)
class Create:
    """Create an object; one of that name is as good, unless it is a pod of somebody else's."""

    obj: Obj


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the very object that was observed."""

    obj: Obj
    why: str
    """A constant phrase for the log."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Ask a pod, on its Lease, to take no more work."""

    pod: Obj
    why: str
    """A constant phrase for the log."""


Action = Create | Delete | Drain


@dataclass(frozen=True, slots=True)
class Plan:
    """What to change, and what to say of the object then. Planning again from what it leads to gives no actions."""

    actions: tuple[Action, ...] = ()
    conditions: tuple[Condition, ...] = ()
    status: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the status."""
    look_again: float | None = None
    """Seconds after which time alone may change the plan."""


def meta(obj: Obj) -> Mapping[str, Any]:
    """Return an object's metadata."""
    found: Mapping[str, Any] = obj["metadata"]
    return found


def spec_of(obj: Obj) -> Mapping[str, Any]:
    """Return an object's spec, empty if it has none."""
    found: Mapping[str, Any] = obj.get("spec") or {}
    return found


def status_of(obj: Obj) -> Mapping[str, Any]:
    """Return an object's status, empty if it has none."""
    found: Mapping[str, Any] = obj.get("status") or {}
    return found


def conditions_of(obj: Obj) -> list[dict[str, Any]]:
    """Return an object's conditions as on the wire."""
    return list(status_of(obj).get("conditions") or ())


def owner_of(obj: Obj) -> Obj | None:
    """Return as much of an object's controller as its reference says, or None if it has none."""
    found = next((owner for owner in meta(obj).get("ownerReferences") or () if owner.get("controller")), None)
    if found is None:
        return None
    named = {"name": found["name"], "uid": found["uid"], "namespace": meta(obj).get("namespace", "")}
    return {"apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": named}


def owned_by(obj: Obj, uid: str) -> bool:
    """Return whether the object's controller has that uid."""
    owners = meta(obj).get("ownerReferences") or ()
    return any(owner.get("uid") == uid and owner.get("controller") for owner in owners)
