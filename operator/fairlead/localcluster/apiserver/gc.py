"""Garbage collection: what has owners goes when they are gone.

Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/#owners-dependents
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fairlead.localcluster.apiserver.cluster import Cluster
from fairlead.localcluster.apiserver.deletion import FOREGROUND, ORPHAN, DeleteOptions, delete
from fairlead.localcluster.apiserver.errors import Json
from fairlead.localcluster.apiserver.store import Change, Key, Stored, TableKey
from fairlead.localcluster.apiserver.writes import amend

Place = tuple[TableKey, Key]


class GarbageCollector:
    """Knows who owns what; `look` at a place does what is due there."""

    def __init__(self, cluster: Cluster, enqueue: Callable[[Place], None]) -> None:
        self._cluster = cluster
        self._enqueue = enqueue
        self._places: dict[str, Place] = {}
        self._dependents: dict[str, set[Place]] = {}

    def on_change(self, table: TableKey, change: Change) -> None:
        """Keep the index, and enqueue whom the change concerns."""
        place = (table, change.new.key)
        before = _owner_uids(change.old)
        if change.type == "DELETED":
            for uid in before:
                self._forget(uid, place)
            self._owner_gone(change.new.uid, before)
            return
        self._places[change.new.uid] = place
        after = _owner_uids(change.new)
        for uid in before - after:
            self._forget(uid, place)
        for uid in after:
            self._dependents.setdefault(uid, set()).add(place)
        for uid in before:
            self._look_at_owner(uid)
        if after or change.new.obj["metadata"].get("deletionTimestamp"):
            self._enqueue(place)

    def _forget(self, uid: str, place: Place) -> None:
        known = self._dependents.get(uid)
        if known is not None:
            known.discard(place)
            if not known:
                del self._dependents[uid]

    def _owner_gone(self, uid: str, owners: set[str]) -> None:
        self._places.pop(uid, None)
        for place in self._dependents.get(uid, ()):
            self._enqueue(place)
        for owner in owners:
            self._look_at_owner(owner)

    def _look_at_owner(self, uid: str) -> None:
        place = self._places.get(uid)
        if place is not None:
            self._enqueue(place)

    def load(self) -> None:
        """Learn what is in the store, and look at everything that has an owner or is being deleted."""
        for table, rows in self._cluster.store.tables():
            for stored in list(rows.rows.values()):
                self.on_change(table, Change(stored.rv, "ADDED", None, stored))

    def look(self, place: Place) -> None:
        """Do what is due at *place*: an owner's finalizers, or an object whose owners are gone."""
        table, key = place
        stored = self._cluster.store.table(table).rows.get(key)
        resource = self._cluster.registry.stored_in(table)
        if stored is None or resource is None:
            return
        metadata = stored.obj["metadata"]
        finalizers = metadata.get("finalizers") or []
        if metadata.get("deletionTimestamp") and ORPHAN in finalizers:
            self._orphan(stored)
            amend(self._cluster, resource, stored, _without_finalizer(ORPHAN))
        elif metadata.get("deletionTimestamp") and FOREGROUND in finalizers:
            if not self._delete_dependents(stored):
                amend(self._cluster, resource, stored, _without_finalizer(FOREGROUND))
        elif metadata.get("ownerReferences"):
            self._collect(place, stored)

    def _orphan(self, owner: Stored) -> None:
        for table, key in list(self._dependents.get(owner.uid, ())):
            dependent = self._cluster.store.table(table).rows.get(key)
            resource = self._cluster.registry.stored_in(table)
            if dependent is not None and resource is not None:
                amend(self._cluster, resource, dependent, _without_owners({owner.uid}))

    def _delete_dependents(self, owner: Stored) -> bool:
        """Look at every dependent; return whether one that blocks is left."""
        blocked = False
        for place in list(self._dependents.get(owner.uid, ())):
            self._enqueue(place)
            dependent = self._cluster.store.table(place[0]).rows.get(place[1])
            for reference in dependent.obj["metadata"].get("ownerReferences") or () if dependent else ():
                blocked |= reference["uid"] == owner.uid and bool(reference.get("blockOwnerDeletion"))
        return blocked

    def _collect(self, place: Place, stored: Stored) -> None:
        """Delete *stored* if none of its owners is left, or drop the references to those that are gone."""
        references = stored.obj["metadata"]["ownerReferences"]
        owners = {reference["uid"]: self._owner(reference, stored) for reference in references}
        waiting = {uid for uid, owner in owners.items() if owner is not None and _waits(owner)}
        solid = {uid for uid, owner in owners.items() if owner is not None} - waiting
        resource = self._cluster.registry.stored_in(place[0])
        if resource is None or (not waiting and solid == set(owners)):
            return
        if solid:
            amend(self._cluster, resource, stored, _without_owners(set(owners) - solid))
        elif not stored.obj["metadata"].get("deletionTimestamp"):
            policy = "Foreground" if waiting and self._dependents.get(stored.uid) else ""
            delete(self._cluster, resource, stored, DeleteOptions(policy=policy))

    def _owner(self, reference: Json, dependent: Stored) -> Stored | None:
        """Return the owner; one in another namespace is none."""
        place = self._places.get(reference["uid"])
        if place is None or place[1][0] not in {"", dependent.key[0]}:
            return None
        return self._cluster.store.table(place[0]).rows.get(place[1])


def _waits(owner: Stored) -> bool:
    metadata = owner.obj["metadata"]
    return bool(metadata.get("deletionTimestamp")) and FOREGROUND in (metadata.get("finalizers") or [])


def _owner_uids(stored: Stored | None) -> set[str]:
    return {reference["uid"] for reference in _references(stored)}


def _references(stored: Stored | None) -> Iterator[Json]:
    if stored is not None:
        yield from stored.obj["metadata"].get("ownerReferences") or ()


def _without_finalizer(name: str) -> Callable[[Json], None]:
    def change(obj: Json) -> None:
        finalizers = [each for each in obj["metadata"].get("finalizers") or [] if each != name]
        obj["metadata"]["finalizers"] = finalizers
        if not finalizers:
            del obj["metadata"]["finalizers"]

    return change


def _without_owners(uids: set[str]) -> Callable[[Json], None]:
    def change(obj: Json) -> None:
        kept = [each for each in obj["metadata"].get("ownerReferences") or [] if each["uid"] not in uids]
        obj["metadata"]["ownerReferences"] = kept
        if not kept:
            del obj["metadata"]["ownerReferences"]

    return change
