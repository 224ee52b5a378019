"""Thousands of agents as the operator sees them: what their Leases say follows from the time; nothing runs for them.

The operator's own judge and service look at them; only the API server and the storage are played.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, cast

from fairlead.clock import Clock
from fairlead.core import names
from fairlead.core.actions import Obj
from fairlead.kube import KubeClient, Ref
from fairlead.services.applying import Applier
from fairlead.services.liveness import Liveness
from fairlead.services.objects import Objects
from fairlead.storage import Storage
from fairlead.testing.agentworld import EPOCH

LEASE_SECONDS: Final = 15
_BEAT_SECONDS: Final = LEASE_SECONDS / 3
_LATEST: Final = _BEAT_SECONDS - 0.1
"""How late a beat may be. With one beat in two lost, a Lease is then renewed just in time."""
_LOST_SHARE: Final = 0.3
_LEASES: Final = "coordination.k8s.io/v1"


@dataclass(slots=True)
class Member:
    """One agent pod and its Lease."""

    uid: str
    name: str
    beats: list[float]
    """When its heartbeats arrive; before its death."""
    lease: Obj
    died: float = math.inf
    arrived: int = 0
    """How many of `beats` have been seen."""

    def at(self, now: float) -> Obj:
        """Return the Lease as it is at *now*, which never goes back."""
        before = self.arrived
        while self.arrived < len(self.beats) and self.beats[self.arrived] <= now:
            self.arrived += 1
        if self.arrived != before:
            moment = EPOCH + timedelta(seconds=self.beats[self.arrived - 1])
            renewed = {"renewTime": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
            meta = {**self.lease["metadata"], "resourceVersion": str(self.arrived + 1)}
            self.lease = {**self.lease, "metadata": meta, "spec": {**self.lease["spec"], **renewed}}
        return self.lease


@dataclass
class Crowd:
    """An API server with the Leases and pods of *count* agents, and the storage that is told which of them are lost.

    Every agent's beats come late by up to nearly an interval, and of two in a row one may be lost: just in time.

    Args:
        seconds: how long they live.
        killed: how many of them die on the way, in the first half.
    """

    clock: Clock
    count: int
    seconds: float
    killed: int = 0
    seed: int = 0
    members: dict[str, Member] = field(default_factory=dict)
    lost: dict[str, float] = field(default_factory=dict)
    """When each agent was given up, by its uid."""
    told: int = 0
    """Events that were written."""

    def __post_init__(self) -> None:
        chance = random.Random(self.seed)  # noqa: S311 - the same crowd every time
        for number in range(self.count):
            died = chance.uniform(0, self.seconds / 2) if number < self.killed else math.inf
            beats = [at for at in _beats(chance, self.seconds) if at < died]
            uid, name = f"uid-{number}", f"crowd-{number}"
            self.members[uid] = Member(uid, name, beats, build_lease(uid, name), died)

    def liveness(self, *, interval: float) -> Liveness:
        """Return the operator's service that watches them."""
        objects = Objects()
        for member in self.members.values():
            objects.put(build_pod(member))
        kube = cast("KubeClient", self)
        applier = Applier(kube, objects, self.clock, reporter="tests", leads=lambda: True)
        return Liveness(
            kube,
            cast("Storage", self),
            objects,
            applier=applier,
            clock=self.clock,
            probe=_answers,
            interval=interval,
            namespaces=(),
        )

    async def list(self, _api_version: str, _kind: str, **_: Any) -> Sequence[Obj]:
        """Return the Leases as they are now."""
        now = self.clock.monotonic()
        return [member.at(now) for member in self.members.values()]

    async def delete(self, ref: Ref, *, uid: str = "", grace_seconds: int | None = None) -> None:
        """Delete a Lease; pods are not counted."""
        del grace_seconds
        if ref.api_version == _LEASES:
            self.members.pop(uid.removeprefix("lease-"))

    async def create(self, obj: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write an event."""
        self.told += 1
        return obj

    async def requeue_pod(self, uid: str, *, at: Any) -> Sequence[str]:
        """Give an agent's work to others."""
        del at
        self.lost[uid] = self.clock.monotonic()
        return []


def build_lease(uid: str, name: str) -> Obj:
    """Return a Lease as the gateway writes it."""
    labels = {**names.PART_OF_LABELS, names.AGENT_LABEL: "crowd"}
    about = {names.VERSION_ANNOTATION: "0.1.0", names.CAPACITY_ANNOTATION: "4"}
    owner = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
    meta = {"name": name, "namespace": "default", "uid": f"lease-{uid}", "resourceVersion": "1"}
    return {
        "apiVersion": _LEASES,
        "kind": "Lease",
        "metadata": {**meta, "labels": labels, "annotations": about, "ownerReferences": [owner]},
        "spec": {
            "holderIdentity": uid,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": "2026-01-01T00:00:00.000000Z",
        },
    }


def build_pod(member: Member) -> Obj:
    """Return the pod of an agent."""
    owner = {"apiVersion": names.API_VERSION, "kind": "Agent", "name": "crowd", "uid": "agent", "controller": True}
    meta = {"name": member.name, "namespace": "default", "uid": member.uid, "resourceVersion": "1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**meta, "ownerReferences": [owner]},
        "status": {
            "phase": "Running",
            "containerStatuses": [{"name": names.AGENT_CONTAINER, "state": {"running": {}}}],
        },
    }


def _beats(chance: random.Random, seconds: float) -> Iterator[float]:
    at, arrives = chance.uniform(0, _BEAT_SECONDS), True
    while at < seconds:
        arrives = not arrives or chance.random() >= _LOST_SHARE  # never two lost in a row
        if arrives:
            yield at + chance.uniform(0, _LATEST)
        at += _BEAT_SECONDS


async def _answers() -> bool:
    return True
