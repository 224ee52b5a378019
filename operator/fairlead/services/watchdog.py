"""Holds the watches against what the server lists: a start from a whole picture, and a watch that died in silence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fairlead.core import names
from fairlead.core.actions import Obj, meta
from fairlead.errors import RetryableError
from fairlead.kube import KubeClient
from fairlead.services.objects import Key, Objects

MANAGED: Final = f"app.kubernetes.io/managed-by={names.PART_OF_LABELS['app.kubernetes.io/managed-by']}"
_KINDS: Final = (
    *((names.API_VERSION, kind, "") for kind in ("WorkflowRun", "Workflow", "Agent", "Model", "Tool")),
    ("v1", "Pod", MANAGED),
)


class WatchDead(RetryableError):
    """The process sees nothing any more and has to end: another one begins with fresh watches."""

    reason = "WatchDead"


class Watchdog:
    """Compares one kind after the other with what the watches have shown."""

    def __init__(self, kube: KubeClient, objects: Objects, namespaces: Sequence[str]) -> None:
        self._kube = kube
        self._objects = objects
        self._namespaces = tuple(namespaces) or ("",)
        self._turn = 0
        self._unseen: dict[Key, int] = {}

    async def prime(self) -> None:
        """Take in everything that there is, so that nothing is decided from half a picture."""
        for api_version, kind, labels in _KINDS:
            for namespace in self._namespaces:
                for obj in await self._kube.list(api_version, kind, namespace=namespace, label_selector=labels):
                    self._objects.put(obj)

    async def check_all(self) -> list[Obj]:
        """Look at every kind, as `check` does."""
        return await self._check(len(_KINDS))

    async def check(self) -> list[Obj]:
        """Look at the next kind; return what is gone though no watch has said so.

        Raises:
            WatchDead: what a watch had not shown the last time, it has not shown since.
        """
        return await self._check(1)

    async def _check(self, kinds: int) -> list[Obj]:
        late = [key.kind for key, version in self._unseen.items() if self._objects.version(key) < version]
        if late:
            raise WatchDead(f"the watch of {late[0]} shows nothing any more")
        self._unseen = {}
        gone: list[Obj] = []
        for _ in range(kinds):
            gone += await self._compare(*_KINDS[self._turn])
            self._turn = (self._turn + 1) % len(_KINDS)
        return gone

    async def _compare(self, api_version: str, kind: str, labels: str) -> list[Obj]:
        """Note what the watch has not shown yet; return what is known and not there any more."""
        known = self._objects.keys(kind)
        listed: dict[Key, int] = {}
        for namespace in self._namespaces:
            for item in await self._kube.versions(api_version, kind, namespace=namespace, label_selector=labels):
                listed[Key(kind, meta(item)["uid"])] = int(meta(item)["resourceVersion"])
        self._unseen |= {key: version for key, version in listed.items() if self._objects.version(key) < version}
        gone = (self._objects.get(key) for key in known if key not in listed)
        return [obj for obj in gone if obj is not None]
