"""The operator's picture of the cluster: what its watches have shown, indexed by name, uid and owner."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fairlead.core.actions import Obj, meta

_REMEMBERED: Final = 10_000
"""Objects that are gone."""


@dataclass(frozen=True, slots=True)
class Key:
    """What the work queue is about. The uid, so that a namesake is never taken for the object."""

    kind: str
    uid: str


class Objects:
    """Objects by kind. An older version never replaces a newer one, whichever way they arrive."""

    def __init__(self) -> None:
        self._by_uid: dict[Key, Obj] = {}
        self._by_name: dict[tuple[str, str, str], Key] = {}
        self._by_owner: dict[tuple[str, str], set[Key]] = defaultdict(set)
        self._arrivals: dict[Key, int] = {}
        self._arrived = itertools.count(1)
        self._gone: dict[Key, int] = {}

    def put(self, obj: Mapping[str, Any]) -> Key:
        """Remember an object as it is now."""
        key = Key(obj["kind"], meta(obj)["uid"])
        known = self._by_uid.get(key)
        if key in self._gone:
            return key  # the late answer to a write must not bring it back
        if known is None:
            self._arrivals[key] = next(self._arrived)
        if known is None or _version(obj) >= _version(known):
            lean = {name: value for name, value in meta(obj).items() if name != "managedFields"}
            self._by_uid[key] = {**obj, "metadata": lean}
            self._by_name[obj["kind"], lean.get("namespace", ""), lean["name"]] = key
            for owner in lean.get("ownerReferences") or ():
                self._by_owner[obj["kind"], owner["uid"]].add(key)
        return key

    def remove(self, obj: Mapping[str, Any]) -> Key:
        """Forget an object that is gone."""
        key = Key(obj["kind"], meta(obj)["uid"])
        self._by_uid.pop(key, None)
        self._arrivals.pop(key, None)
        self._gone[key] = _version(obj)
        if len(self._gone) > _REMEMBERED:
            del self._gone[next(iter(self._gone))]
        name = (obj["kind"], meta(obj).get("namespace", ""), meta(obj)["name"])
        if self._by_name.get(name) == key:
            del self._by_name[name]
        for owner in meta(obj).get("ownerReferences") or ():
            owned = self._by_owner[obj["kind"], owner["uid"]]
            owned.discard(key)
            if not owned:
                del self._by_owner[obj["kind"], owner["uid"]]
        return key

    def get(self, key: Key) -> Obj | None:
        """Return an object by its uid."""
        return self._by_uid.get(key)

    def arrival(self, key: Key) -> int:
        """Return the place of an object in the order in which this operator saw them first; 0: it was never seen."""
        return self._arrivals.get(key, 0)

    def version(self, key: Key) -> int:
        """Return the version that was seen last, even if the object is gone since; 0: it was never seen."""
        obj = self._by_uid.get(key)
        return _version(obj) if obj is not None else self._gone.get(key, 0)

    def find(self, kind: str, namespace: str, name: str) -> Obj | None:
        """Return an object by its name."""
        key = self._by_name.get((kind, namespace, name))
        return self._by_uid.get(key) if key is not None else None

    def keys(self, *kinds: str) -> list[Key]:
        """Return the keys of all objects of these kinds."""
        return [key for key in self._by_uid if key.kind in kinds]

    def named(self, kind: str, namespace: str, names: Iterable[str]) -> dict[str, Obj]:
        """Return those of the named objects that exist."""
        found = ((name, self.find(kind, namespace, name)) for name in names)
        return {name: obj for name, obj in found if obj is not None}

    def list(self, kind: str, namespace: str) -> tuple[Obj, ...]:
        """Return the objects of a kind in a namespace."""
        return tuple(
            obj for key, obj in self._by_uid.items() if key.kind == kind and meta(obj).get("namespace") == namespace
        )

    def owned(self, kind: str, owner_uid: str) -> tuple[Obj, ...]:
        """Return the objects of a kind that have this owner."""
        return tuple(self._by_uid[key] for key in self._by_owner.get((kind, owner_uid), ()) if key in self._by_uid)


def _version(obj: Obj) -> int:
    text = str(meta(obj).get("resourceVersion") or "0")
    return int(text) if text.isdigit() else 0
