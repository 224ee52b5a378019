"""Watches the agents' Leases and sends on the work of those that went silent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from fairlead.api.conditions import EventReason
from fairlead.clock import Clock
from fairlead.core import names
from fairlead.core.actions import Obj
from fairlead.core.agent import is_over, is_restarting
from fairlead.core.leases import Judgement, Sighting, judge
from fairlead.errors import RetryableError
from fairlead.kube import KubeClient
from fairlead.logs import get_logger
from fairlead.services.applying import Applier
from fairlead.services.objects import Key, Objects
from fairlead.storage import Storage

_log = get_logger(__name__)
_LABELS: Final = ",".join(f"{key}={value}" for key, value in names.PART_OF_LABELS.items())
Probe = Callable[[], Awaitable[bool]]
"""Whether the gateway answers: while it does not, no pod can renew its Lease, and silence says nothing."""


class Liveness:
    """Judges Leases and takes the work from pods whose Lease is over."""

    def __init__(  # noqa: PLR0913 - what it composes
        self,
        kube: KubeClient,
        storage: Storage,
        objects: Objects,
        *,
        applier: Applier,
        clock: Clock,
        probe: Probe,
        interval: float,
        namespaces: Sequence[str],
    ) -> None:
        self._kube = kube
        self._storage = storage
        self._objects = objects
        self._applier = applier
        self._clock = clock
        self._probe = probe
        self._interval = interval
        self._namespaces = tuple(namespaces) or ("",)
        self._judgement = Judgement()
        self._wake = asyncio.Event()

    @property
    def alive(self) -> frozenset[str]:
        """The uids of the pods that hold a living Lease."""
        return self._judgement.alive

    def wake(self) -> None:
        """Have the Leases looked at now: a pod has registered."""
        self._wake.set()

    async def run(self, changed: Callable[[frozenset[str]], Awaitable[None]]) -> None:
        """Look for ever; tell *changed* which pods came to life or went silent."""
        while True:
            try:
                moved = await self.look()
                if moved:
                    await changed(moved)
            except RetryableError as error:
                _log.warning("leases_not_listed", error=str(error))
            self._wake.clear()
            try:
                async with asyncio.timeout(self._interval):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def look(self) -> frozenset[str]:
        """Judge all Leases once; return the uids of the pods whose Lease came or went."""
        found: list[Obj] = []
        for namespace in self._namespaces:
            found += await self._kube.list(
                "coordination.k8s.io/v1", "Lease", namespace=namespace, label_selector=_LABELS
            )
        before = self._judgement
        after = judge(before, found, now=self._clock.monotonic(), grace=self._interval)
        if after.expired and not await self._probe():
            _log.warning("gateway_silent", pods=len(after.expired))
            after = judge(Judgement(), found, now=self._clock.monotonic(), grace=self._interval)
        for sighting in after.expired:
            await self._lose(sighting)
        self._judgement = after  # only now: what could not be sent on is found again by the next look
        return before.alive ^ after.alive

    async def _lose(self, lost: Sighting) -> None:
        runs = await self._storage.requeue_pod(lost.holder, at=self._clock.now())
        pod = self._objects.get(Key("Pod", lost.holder))
        if pod is not None and is_over(pod):
            return  # it has done what it was for, and nobody misses it
        _log.warning("agent_lost", namespace=lost.namespace, name=lost.pod, uid=lost.holder, runs=len(runs))
        if pod is None or is_restarting(pod):
            return  # its process ended, and the kubelet starts another one with its own back-off
        text = f"No heartbeat for {lost.duration:.0f} s; its work goes on elsewhere."
        await self._applier.tell(pod, EventReason.AGENT_LOST, text, warning=True)
        await self._applier.delete(pod, "the lease has expired", grace_seconds=0)
