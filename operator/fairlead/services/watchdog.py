"""Notices a watch that has died in silence: what the server lists and the watch has not shown for too long."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

from fairlead.core import names
from fairlead.core.actions import meta
from fairlead.errors import RetryableError
from fairlead.kube import KubeClient
from fairlead.services.objects import Key, Objects

MANAGED: Final = f"app.kubernetes.io/managed-by={names.PART_OF_LABELS['app.kubernetes.io/managed-by']}"
_KINDS: Final = (
    *((names.API_VERSION, kind, "") for kind in ("WorkflowRun", "Workflow", "Agent", "Model")),
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
        self._turn: Iterator[tuple[str, str, str]] = itertools.cycle(_KINDS)
        self._unseen: dict[Key, int] = {}

    async def check(self) -> None:
        """Look at the next kind; what was unseen the last time must have been shown by now.

        Raises:
            WatchDead: it was not.
        """
        late = [key.kind for key, version in self._unseen.items() if self._objects.version(key) < version]
        if late:
            raise WatchDead(f"the watch of {late[0]} shows nothing any more")
        api_version, kind, labels = next(self._turn)
        self._unseen = {}
        for namespace in self._namespaces:
            for item in await self._kube.versions(api_version, kind, namespace=namespace, label_selector=labels):
                key, version = Key(kind, meta(item)["uid"]), int(meta(item)["resourceVersion"])
                if self._objects.version(key) < version:
                    self._unseen[key] = version
