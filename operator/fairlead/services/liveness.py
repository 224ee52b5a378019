"""Watches the agents' Leases and sends on the work of those that went silent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from fairlead.api.conditions import EventReason
from fairlead.clock import Clock
from fairlead.core import names
from fairlead.core.actions import Obj, meta, owner_of, spec_of
from fairlead.core.agent import is_over, is_restarting
from fairlead.core.external import Health
from fairlead.core.leases import Judgement, Sighting, forgive, hear, judge
from fairlead.errors import FairleadError
from fairlead.kube import KubeClient
from fairlead.logs import get_logger
from fairlead.services.abroad import Abroad
from fairlead.services.applying import Applier
from fairlead.services.election import LeadershipLost
from fairlead.services.objects import Key, Objects
from fairlead.storage import Storage

_log = get_logger(__name__)
_LABELS: Final = ",".join(f"{key}={value}" for key, value in names.PART_OF_LABELS.items())
_LOOKS_SHARE: Final = 10
"""The pause between two looks is at least so many times as long as a look takes: thousands of Leases take long."""
_PATIENCE_LOOKS: Final = 2
"""Of the time between two looks, so many intervals count at most: who had no processor has not watched."""
_AT_ONCE: Final = 20
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
        self._abroad = Abroad(objects, applier)
        self._judgement = Judgement()
        self._heard: set[str] = set()
        self._wake = asyncio.Event()

    @property
    def alive(self) -> frozenset[str]:
        """The uids of the pods that hold a living Lease."""
        return self._judgement.alive

    @property
    def draining(self) -> Mapping[str, float]:
        """For how many seconds living pods have been asked to take no more work, by uid."""
        return self._judgement.draining

    def health(self, agent: Obj) -> Health:
        """Return what is known of an agent that someone else runs."""
        return self._abroad.health(agent)

    def wake(self) -> None:
        """Have the Leases looked at now: a pod has registered, or is asked to drain."""
        self._wake.set()

    def hear(self, pod: str) -> None:
        """Take in that a pod gave a heartbeat to a gateway which cannot write its Lease."""
        self._heard.add(pod)

    async def run(self, changed: Callable[[frozenset[str]], Awaitable[None]]) -> None:
        """Look for ever; tell *changed* which pods came to life, went silent, or are asked to drain."""
        while True:
            started = self._clock.monotonic()
            self._wake.clear()  # before the look: who calls during it may be too late for it
            try:
                moved = await self.look()
                if moved:
                    await changed(moved)
            except LeadershipLost:
                raise
            except FairleadError as error:  # refusals too: a server that is being upgraded knows nobody for a moment
                _log.warning("leases_not_judged", error=str(error))
            took = self._clock.monotonic() - started
            try:
                async with asyncio.timeout(max(self._interval, _LOOKS_SHARE * took)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def look(self) -> frozenset[str]:
        """Judge all Leases once; return the uids of the pods whose Lease came, went or asks otherwise."""
        heard, self._heard = self._heard, set()
        self._judgement = before = hear(self._judgement, heard)
        asked = self._clock.monotonic()
        found = await self._list()
        answered, patience = self._clock.monotonic(), _PATIENCE_LOOKS * self._interval
        after = judge(before, found, asked=asked, answered=answered, patience=patience)
        if after.expired and not await self._probe():
            _log.warning("gateway_silent", pods=len(after.expired))
            after = judge(forgive(before), found, asked=asked, answered=answered, patience=patience)
        for first in range(0, len(after.expired), _AT_ONCE):
            some = after.expired[first : first + _AT_ONCE]
            await asyncio.gather(*(self._lose(sighting) for sighting in some))
        self._judgement = after  # only now: what could not be sent on is found again by the next look
        news = await self._abroad.observe(found, after.alive)
        return (before.alive ^ after.alive) | (before.draining.keys() ^ after.draining.keys()) | news

    async def _list(self) -> list[Obj]:
        found: list[Obj] = []
        for namespace in self._namespaces:
            found += await self._kube.list(
                "coordination.k8s.io/v1", "Lease", namespace=namespace, label_selector=_LABELS
            )
        return [lease for lease in found if self._is_genuine(lease)]

    def _is_genuine(self, lease: Obj) -> bool:
        """Whether a Lease is where its holder is: who may write Leases in one namespace decides nothing in another."""
        uid = spec_of(lease).get("holderIdentity") or ""
        if names.EXTERNAL_LABEL in (meta(lease).get("labels") or {}):
            owners = [owner["uid"] for owner in meta(lease).get("ownerReferences") or ()]
            agent = self._objects.get(Key("Agent", owners[0])) if len(owners) == 1 and uid in ("", *owners) else None
            return agent is not None and _place(lease) == (
                *_place(agent)[:1],
                names.external_lease(meta(agent)["name"]),
            )
        pod = self._objects.get(Key("Pod", uid))
        return pod is None or _place(lease) == _place(pod)  # one that is not seen yet, or is gone

    async def _lose(self, lost: Sighting) -> None:
        if names.EXTERNAL_LABEL in (meta(lost.lease).get("labels") or {}):
            return  # the holder is no pod
        runs = await self._storage.requeue_pod(lost.holder, at=self._clock.now())
        pod = self._objects.get(Key("Pod", lost.holder))
        missed = pod is None or not is_over(pod)
        if missed:
            _log.warning("agent_lost", namespace=lost.namespace, name=lost.name, uid=lost.holder, runs=len(runs))
        if pod is not None and missed and not is_restarting(pod):  # the kubelet starts it again, by its own back-off
            await self._applier.delete(pod, "the lease has expired", grace_seconds=0)
        await self._applier.delete(lost.lease, "it has expired")  # at once: garbage collection takes its time
        if pod is not None and missed:
            text = f"Pod {lost.name} gave no heartbeat for {lost.duration:.0f} s; its work goes on elsewhere."
            await self._applier.tell(owner_of(pod) or pod, EventReason.AGENT_LOST, text, warning=True, related=pod)


def _place(obj: Obj) -> tuple[str, str]:
    return meta(obj).get("namespace", ""), meta(obj)["name"]
