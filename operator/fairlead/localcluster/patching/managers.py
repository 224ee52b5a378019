"""``metadata.managedFields``: who owns which fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from fairlead.localcluster.patching.fieldset import NOTHING, FieldSet, Path, decode, encode

Json = dict[str, Any]

MAX_UPDATERS: Final = 10
"""More update managers than this are merged, oldest first, into ``ancient-changes``."""

BEFORE_FIRST_APPLY: Final = "before-first-apply"
_ANCIENT: Final = "ancient-changes"

_STRIPPED: Final[FieldSet] = frozenset(
    {("f:apiVersion",), ("f:kind",), ("f:metadata",)}
    | {
        ("f:metadata", f"f:{name}")
        for name in (
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        )
    }
)
"""Fields that nobody owns."""


@dataclass(frozen=True, slots=True)
class Manager:
    """What tells one entry from another. Appliers are the same whatever version they apply."""

    name: str
    operation: str
    api_version: str = ""
    subresource: str = ""

    def __str__(self) -> str:
        said = f'"{self.name}"'
        if self.subresource:
            said += f' with subresource "{self.subresource}"'
        return f"{said} using {self.api_version}" if self.operation == "Update" else said


@dataclass(frozen=True, slots=True)
class Owned:
    """The fields of one manager, since when, and in which version; *fields* is their stored form while they last."""

    paths: FieldSet
    api_version: str
    time: str | None = None
    fields: Json | None = None


Managers = dict[Manager, Owned]


def applier(name: str, subresource: str) -> Manager:
    """Return the identity of somebody who applies."""
    return Manager(name, "Apply", "", subresource)


def read(obj: Json) -> Managers:
    """Return the managers of an object."""
    found: Managers = {}
    for entry in (obj.get("metadata") or {}).get("managedFields") or ():
        if not entry.get("operation"):
            continue
        operation, version = entry["operation"], entry.get("apiVersion", "")
        identity = Manager(
            entry.get("manager", ""), operation, version if operation == "Update" else "", entry.get("subresource", "")
        )
        paths = decode(entry.get("fieldsV1"))
        if identity in found:
            found[identity] = Owned(paths | found[identity].paths, version, entry.get("time"))
        else:
            found[identity] = Owned(paths, version, entry.get("time"), entry.get("fieldsV1"))
    return found


def is_reset(obj: Json) -> bool:
    """Return whether the object asks to forget all managers: ``managedFields: [{}]``."""
    return (obj.get("metadata") or {}).get("managedFields") == [{}]


def written(obj: Json, managers: Managers) -> Json:
    """Return *obj* with these managers, in the order Kubernetes lists them."""
    entries = [_entry(identity, owned) for identity, owned in _capped(managers).items() if owned.paths - _STRIPPED]
    entries.sort(key=_order)
    metadata = {key: value for key, value in (obj.get("metadata") or {}).items() if key != "managedFields"}
    if entries:
        metadata["managedFields"] = entries
    return obj | {"metadata": metadata}


def _order(entry: Json) -> tuple[str, ...]:
    return (
        entry["operation"],
        entry.get("time") or "",
        entry["manager"],
        entry["apiVersion"],
        entry.get("subresource", ""),
    )


def _entry(identity: Manager, owned: Owned) -> Json:
    entry: Json = {"manager": identity.name, "operation": identity.operation, "apiVersion": owned.api_version}
    if owned.time is not None:
        entry["time"] = owned.time
    fields = encode(owned.paths - _STRIPPED) if owned.fields is None else owned.fields
    entry |= {"fieldsType": "FieldsV1", "fieldsV1": fields}
    if identity.subresource:
        entry["subresource"] = identity.subresource
    return entry


def _capped(managers: Managers) -> Managers:
    updaters = sorted(
        (identity for identity in managers if identity.operation == "Update"),
        key=lambda identity: (managers[identity].time or "", identity.name),
    )
    surplus = len(updaters) - MAX_UPDATERS
    if surplus <= 0:
        return managers
    kept = dict(managers)
    for identity in updaters[: surplus + 1]:
        owned = kept.pop(identity)
        ancient = Manager(_ANCIENT, "Update", identity.api_version)
        before = kept.get(ancient)
        paths = owned.paths | (before.paths if before else NOTHING)
        kept[ancient] = Owned(paths, identity.api_version, owned.time)
    return kept


def without(managers: Managers, lost: Callable[[Manager], set[Path]]) -> Managers:
    """Return the managers less what each lost; those with nothing left are gone."""
    kept: Managers = {}
    for identity, owned in managers.items():
        paths = owned.paths - lost(identity)
        if paths:
            kept[identity] = owned if len(paths) == len(owned.paths) else replace(owned, paths=paths, fields=None)
    return kept


def stripped() -> FieldSet:
    """Return the fields that nobody owns."""
    return _STRIPPED
