"""A Kubernetes API in memory: objects as dicts, tokens and permissions as the test gives them."""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from fairlead.errors import Conflict
from fairlead.kube import Ref, TokenIdentity


class FakeKube:
    """What the services use of `fairlead.kube.KubeClient`, without a server."""

    def __init__(self) -> None:
        self.objects: dict[Ref, dict[str, Any]] = {}
        self.tokens: dict[tuple[str, str], TokenIdentity] = {}
        """By token and audience; the audience of the API server itself is empty."""
        self.allowed: set[tuple[str, str, str]] = set()
        """User, verb and namespace."""
        self.failure: Exception | None = None
        """Raised by everything, while set."""
        self.held: asyncio.Event | None = None
        """What patches wait for."""
        self.reviews = 0
        self._version = 0

    async def get(self, ref: Ref) -> dict[str, Any] | None:
        """Return a copy of an object."""
        self._fail()
        return copy.deepcopy(self.objects.get(ref))

    async def create(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Add an object."""
        self._fail()
        ref = Ref.of(obj)
        if ref in self.objects:
            raise Conflict(f"{ref.name} exists", reason="AlreadyExists")
        made: dict[str, Any] = copy.deepcopy(dict(obj))
        made["metadata"].setdefault("uid", str(uuid.uuid4()))
        return self._store(ref, made)

    async def replace(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Replace an object, if nobody changed it."""
        self._fail()
        ref = Ref.of(obj)
        given = obj["metadata"].get("resourceVersion")
        if given and given != self.objects[ref]["metadata"]["resourceVersion"]:
            raise Conflict(f"{ref.name} was changed")
        return self._store(ref, copy.deepcopy(dict(obj)))

    async def merge_patch(self, ref: Ref, patch: Mapping[str, Any]) -> dict[str, Any] | None:
        """Merge a patch into an object."""
        self._fail()
        if self.held is not None:
            await self.held.wait()
        if ref not in self.objects:
            return None
        return self._store(ref, _merged(self.objects[ref], patch))

    async def review_token(self, token: str, *, audiences: Sequence[str] = ()) -> TokenIdentity | None:
        """Return whose token it is."""
        self._fail()
        self.reviews += 1
        return self.tokens.get((token, next(iter(audiences), "")))

    async def review_access(
        self, who: TokenIdentity, *, verb: str, group: str, resource: str, namespace: str = ""
    ) -> bool:
        """Return whether the test allowed it."""
        self._fail()
        del group, resource
        return (who.username, verb, namespace) in self.allowed

    def _store(self, ref: Ref, obj: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self.objects[ref] = obj
        return copy.deepcopy(obj)

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


def _merged(old: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            merged[key] = _merged(merged.get(key) or {}, value)
        else:
            merged[key] = value
    return merged
