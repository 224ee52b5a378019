"""A Kubernetes API in memory: objects, versions, uids, merge patches of status."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from fairlead.errors import Conflict, FairleadError
from fairlead.kube import Ref

Object = dict[str, Any]
Objects = list[Object]


class MemoryCluster:
    """Stands in for `KubeClient`. *failure*, if set, is what every call raises."""

    def __init__(self) -> None:
        self.objects: dict[Ref, Object] = {}
        self.failure: FairleadError | None = None
        self.refuse: dict[str, FairleadError] = {}
        """By kind: what creating one raises."""
        self.patches: list[tuple[Ref, Mapping[str, Any]]] = []
        self.deleted: list[tuple[Ref, int | None]] = []
        self._numbers = itertools.count(1)

    def add(self, obj: Mapping[str, Any]) -> Object:
        """Put an object there, as the server would complete it; return it."""
        number = next(self._numbers)
        meta = {"namespace": "default", "uid": f"uid-{number}", "generation": 1, **obj["metadata"]}
        stored: Object = {**obj, "metadata": {**meta, "resourceVersion": str(number)}}
        self.objects[Ref.of(stored)] = stored
        return stored

    def of_kind(self, kind: str) -> Objects:
        """Return the objects of a kind."""
        return [obj for ref, obj in self.objects.items() if ref.kind == kind]

    async def get(self, ref: Ref) -> Object | None:
        """Return an object, or None."""
        self._may_fail()
        return self.objects.get(ref)

    async def list(self, api_version: str, kind: str, **_: Any) -> Objects:
        """Return all objects of a kind."""
        self._may_fail()
        return [obj for obj in self.of_kind(kind) if obj["apiVersion"] == api_version]

    async def versions(self, api_version: str, kind: str, **_: Any) -> Objects:
        """Return all objects of a kind."""
        return await self.list(api_version, kind)

    async def create(self, obj: Mapping[str, Any]) -> Object:
        """Create an object; `Conflict` if it is there."""
        self._may_fail()
        if obj["kind"] in self.refuse:
            raise self.refuse[obj["kind"]]
        if Ref.of(obj) in self.objects:
            raise Conflict("it is there", reason="AlreadyExists")
        return self.add(obj)

    async def merge_patch(self, ref: Ref, patch: Mapping[str, Any]) -> Object | None:
        """Merge into the annotations; None if the object is not there."""
        self._may_fail()
        found = self.objects.get(ref)
        if found is None or found["metadata"]["uid"] != patch["metadata"]["uid"]:
            return None
        merged = {**found["metadata"].get("annotations", {}), **patch["metadata"]["annotations"]}
        version = {"resourceVersion": str(next(self._numbers))}
        self.objects[ref] = {**found, "metadata": {**found["metadata"], **version, "annotations": merged}}
        return self.objects[ref]

    async def write_status(self, obj: Mapping[str, Any], changes: Mapping[str, Any]) -> Object | None:
        """Merge into the status, one level deep; None if this very object is not there."""
        self._may_fail()
        ref = Ref.of(obj)
        found = self.objects.get(ref)
        if found is None or found["metadata"]["uid"] != obj["metadata"]["uid"]:
            return None
        self.patches.append((ref, changes))
        status = {**found.get("status", {}), **changes}
        version = {"resourceVersion": str(next(self._numbers))}
        self.objects[ref] = {**found, "metadata": {**found["metadata"], **version}, "status": status}
        return self.objects[ref]

    async def delete(self, ref: Ref, *, uid: str = "", grace_seconds: int | None = None) -> None:
        """Delete an object; `Conflict` if it has another uid."""
        self._may_fail()
        found = self.objects.get(ref)
        if found is not None and uid and found["metadata"]["uid"] != uid:
            raise Conflict("another one has that name")
        self.objects.pop(ref, None)
        self.deleted.append((ref, grace_seconds))

    def _may_fail(self) -> None:
        if self.failure is not None:
            raise self.failure
