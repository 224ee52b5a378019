"""The operator's services on a cluster in memory, a real database and a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead.core import names
from fairlead.errors import Unavailable
from fairlead.services.applying import Applier
from fairlead.services.declared import Planner
from fairlead.services.graphchecks import GraphChecks
from fairlead.services.liveness import Liveness
from fairlead.services.modelhealth import ModelHealth
from fairlead.services.objects import Key, Objects
from fairlead.services.operator import Operator
from fairlead.services.podsettings import PodDefaults, PodSettingsSource
from fairlead.services.pools import Pools
from fairlead.services.watchdog import Watchdog
from fairlead.storage import Storage
from fairlead.storage.base import AgentSession, Claimed, Effects, Fence, Run, RunEnd, RunState
from fairlead.testing.clock import FakeClock
from fairlead.testing.memorycluster import MemoryCluster
from fairlead.testing.storage import CLUSTER, make_session, sqlite_storage
from fairlead.wiring import build_runs

NODES = [{"name": "a", "llm": {"prompt": "x"}}]


class FlakyStorage:
    """The real storage, or none."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.down = False

    def __getattr__(self, name: str) -> Any:
        if self.down:
            raise Unavailable("postgresql://me:canary-password@db/fairlead does not answer")
        return getattr(self._storage, name)


@dataclass
class OperatorWorld:
    """What the operator works with."""

    kube: MemoryCluster
    storage: Any
    clock: FakeClock
    objects: Objects
    operator: Operator
    liveness: Liveness
    gateway_answers: list[bool]
    folder: Path

    async def add(self, kind: str, name: str, spec: dict[str, Any], **meta: Any) -> Key:
        """Create an object and let the watch show it."""
        created = self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata = {"name": name, "creationTimestamp": created, **meta}
        obj = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
        return self.objects.put(self.kube.add(obj))

    async def change(
        self, key: Key, spec: Mapping[str, Any] | None = None, *, annotations: Mapping[str, str] | None = None
    ) -> None:
        """Change fields of an object's spec or its annotations, and let the watch show it."""
        obj = self.object(key)
        notes = {**obj["metadata"].get("annotations", {}), **(annotations or {})}
        changed = {
            **obj,
            "metadata": {**obj["metadata"], "annotations": notes},
            "spec": {**obj["spec"], **(spec or {})},
        }
        self.objects.put(self.kube.add(changed))

    async def remove(self, key: Key) -> None:
        """Delete an object and let the watch show it."""
        obj = self.object(key)
        self.kube.objects = {ref: found for ref, found in self.kube.objects.items() if found is not obj}
        await self.operator.observe("DELETED", obj)

    def object(self, key: Key) -> dict[str, Any]:
        """Return an object as the cluster has it."""
        return next(found for found in self.kube.objects.values() if found["metadata"]["uid"] == key.uid)

    async def settle(self, key: Key) -> float | None:
        """Reconcile once, then let the watch show what has changed."""
        again = await self.operator.reconcile(key)
        self.show()
        return again

    async def settle_later(self, *keys: Key) -> None:
        """Reconcile after the time between two writes of a status."""
        self.clock.advance(1)
        for key in keys:
            await self.settle(key)

    def show(self) -> None:
        """Let the watches show everything."""
        there = set()
        for obj in list(self.kube.objects.values()):
            if obj["kind"] not in ("Event", "Lease"):
                there.add(self.objects.put(obj))
        gone = (self.objects.get(key) for key in self.objects.keys("Pod") if key not in there)
        for pod in [pod for pod in gone if pod is not None]:
            self.objects.remove(pod)

    def condition(self, key: Key, of: str) -> dict[str, Any]:
        """Return a condition of an object, empty if it has none."""
        obj = self.objects.get(key)
        conditions = ((obj or {}).get("status") or {}).get("conditions", [])
        return next((found for found in conditions if found["type"] == of), {})

    def reason(self, key: Key) -> str:
        """Return the STATUS of a run."""
        return str(self.condition(key, "Succeeded").get("reason", ""))

    async def declare(self, **workflow: Any) -> Key:
        """Create a Model, an Agent and a workflow for its pool."""
        await self.add("Model", "m", {"model": "x"})
        await self.add("Agent", "g", {})
        return await self.add("Workflow", "w", {"model": "m", "runsOn": {"agent": "g"}, "nodes": NODES, **workflow})

    async def run(self, name: str, **spec: Any) -> Key:
        """Create a run of that workflow and have it looked at."""
        key = await self.add("WorkflowRun", name, {"workflowRef": {"name": "w"}, **spec})
        await self.settle(key)
        return key

    async def record(self, key: Key) -> Run:
        """Return what storage knows of a run."""
        found: Run = await self.storage.get_run(key.uid)
        return found

    async def claim(self, pool: str = "", pod: str = "pod-1") -> Claimed:
        """Have a pod take a task."""
        session = make_session(pod, pool=pool or names.agent_pool(CLUSTER, "default", "g"))
        await self.storage.register(session, at=self.clock.now())
        (claimed,) = await self.storage.claim(session, limit=1, at=self.clock.now())
        found: Claimed = claimed
        return found

    async def session(self) -> AgentSession:
        """Have a pod of the pool take a task; return its session."""
        await self.claim()
        return make_session(pool=names.agent_pool(CLUSTER, "default", "g"))

    async def finish(self, claimed: Claimed, state: RunState = RunState.SUCCEEDED, output: Any = None) -> None:
        """End a task as its pod does."""
        end = RunEnd(state, state.value, "", output, self.clock.now())
        fence = fence_of(claimed)
        length = len(await self.storage.journal(claimed.task.id))
        await self.storage.append(
            fence, first=length, entries=[{"kind": "RunFinished"}], effects=Effects(end=end), at=self.clock.now()
        )


def fence_of(claimed: Claimed) -> Fence:
    """Return what a pod writes with."""
    return Fence(claimed.task.id, claimed.task.session, claimed.task.attempt)


@asynccontextmanager
async def operator_world(folder: Path) -> AsyncIterator[OperatorWorld]:
    """Build the world on a database in *folder*."""
    kube, clock = MemoryCluster(), FakeClock()
    kube.add({"apiVersion": "v1", "kind": "ConfigMap", **AUTHORITY})
    async with sqlite_storage(folder) as real:
        yield compose(kube, FlakyStorage(real), clock, folder)


AUTHORITY: dict[str, Any] = {
    "metadata": {"name": names.GATEWAY_CA_CONFIGMAP, "namespace": "system"},
    "data": {names.CA_KEY: "pem"},
}


def compose(kube: MemoryCluster, storage: Any, clock: FakeClock, folder: Path) -> OperatorWorld:
    """Return an operator that has just started on a cluster and a database."""
    objects, checks, answers = Objects(), GraphChecks(), [True]

    async def probe() -> bool:
        return answers[-1]

    client: Any = kube
    applier = Applier(client, objects, clock, reporter="test", leads=lambda: True)
    pods = PodSettingsSource(client, clock, PodDefaults("system", "agent:1", "IfNotPresent", "https://g"))
    liveness = Liveness(client, storage, objects, applier=applier, clock=clock, probe=probe, interval=2, namespaces=())
    pools = Pools(storage, clock, cluster=CLUSTER, calm_seconds=60)
    health = ModelHealth(clock, cluster=CLUSTER)
    operator = Operator(
        client,
        storage,
        objects,
        applier=applier,
        planner=Planner(objects, checks, pods, pools=pools, lives=liveness, health=health),
        pools=pools,
        health=health,
        runs=build_runs(storage, objects, applier=applier, checks=checks, pods=pods, clock=clock, cluster=CLUSTER),
        liveness=liveness,
        watchdog=Watchdog(client, objects, ()),
        clock=clock,
        cluster=CLUSTER,
        namespaces=(),
        resync_seconds=30,
    )
    return OperatorWorld(kube, storage, clock, objects, operator, liveness, answers, folder)


def restarted(world: OperatorWorld) -> OperatorWorld:
    """Return a new operator that sees what the old one left."""
    fresh = compose(world.kube, world.storage, world.clock, world.folder)
    fresh.show()
    return fresh
