"""The operator's services on a cluster in memory, a real database and a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fairlead.core import names
from fairlead.errors import Refused, RetryableError, Unavailable
from fairlead.kube import Ref
from fairlead.services.applying import Applier
from fairlead.services.declared import Planner
from fairlead.services.graphchecks import GraphChecks
from fairlead.services.liveness import Liveness
from fairlead.services.objects import Key, Objects
from fairlead.services.operator import Operator
from fairlead.services.podsettings import PodDefaults, PodSettingsSource
from fairlead.services.watchdog import Watchdog
from fairlead.storage import Storage
from fairlead.storage.base import AgentSession, RunState
from fairlead.testing.clock import FakeClock
from fairlead.testing.memorycluster import MemoryCluster
from fairlead.testing.storage import CLUSTER, make_revision, make_run, make_session, make_task, sqlite_storage
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
class World:
    """What the operator works with."""

    kube: MemoryCluster
    storage: Any
    clock: FakeClock
    objects: Objects
    operator: Operator
    liveness: Liveness
    gateway_answers: list[bool]

    async def add(self, kind: str, name: str, spec: dict[str, Any], **meta: Any) -> Key:
        """Create an object and let the watch show it."""
        obj = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": name, **meta}, "spec": spec}
        return self.objects.put(self.kube.add(obj))

    async def settle(self, key: Key) -> float | None:
        """Reconcile once, then let the watch show what has changed."""
        again = await self.operator.reconcile(key)
        self.show()
        return again

    def show(self) -> None:
        for obj in list(self.kube.objects.values()):
            if obj["kind"] not in ("Event", "Lease"):
                self.objects.put(obj)

    def condition(self, key: Key, of: str) -> dict[str, Any]:
        obj = self.objects.get(key)
        assert obj is not None
        found = {each["type"]: each for each in (obj.get("status") or {}).get("conditions", [])}
        return found.get(of, {})


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    kube, clock, objects, checks = MemoryCluster(), FakeClock(), Objects(), GraphChecks()
    ca = {"name": names.GATEWAY_CA_CONFIGMAP, "namespace": "system"}
    kube.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": ca, "data": {names.CA_KEY: "pem"}})
    answers = [True]

    async def probe() -> bool:
        return answers[-1]

    async with sqlite_storage(tmp_path) as real:
        storage: Any = FlakyStorage(real)
        client: Any = kube
        applier = Applier(client, objects, clock, reporter="test", leads=lambda: True)
        pods = PodSettingsSource(client, clock, PodDefaults("system", "agent:1", "IfNotPresent", "https://g"))
        liveness = Liveness(
            client, storage, objects, applier=applier, clock=clock, probe=probe, interval=2, namespaces=()
        )
        operator = Operator(
            client,
            storage,
            objects,
            applier=applier,
            planner=Planner(objects, checks, pods, cluster=CLUSTER),
            runs=build_runs(storage, objects, applier=applier, checks=checks, pods=pods, clock=clock, cluster=CLUSTER),
            liveness=liveness,
            watchdog=Watchdog(client, objects, ()),
            clock=clock,
            cluster=CLUSTER,
            namespaces=(),
            resync_seconds=30,
        )
        yield World(kube, storage, clock, objects, operator, liveness, answers)


async def queued_run(world: World, **spec: Any) -> Key:
    await world.add("Model", "m", {"model": "x"})
    await world.add("Agent", "g", {})
    await world.add("Workflow", "w", {"model": "m", "runsOn": {"agent": "g"}, "nodes": NODES, **spec})
    key = await world.add("WorkflowRun", "r", {"workflowRef": {"name": "w"}})
    await world.settle(key)
    return key


async def claim(world: World) -> AgentSession:
    session = make_session(pool=names.agent_pool(CLUSTER, "default", "g"))
    await world.storage.register(session, at=world.clock.now())
    assert len(await world.storage.claim(session, limit=1, at=world.clock.now())) == 1
    return session


async def test_run_status_is_written_at_most_once_a_second(world: World) -> None:
    key = await queued_run(world)
    assert world.kube.patches == []
    await claim(world)
    for _ in range(30):
        world.clock.advance(0.1)
        await world.settle(key)
        current = next(obj for obj in world.kube.of_kind("WorkflowRun"))
        assert len(current.get("status", {}).get("conditions", [])) in (0, 3)
    assert len(world.kube.patches) == 1  # nothing changed after Running
    assert world.condition(key, "Succeeded")["reason"] == "Running"


async def test_run_that_storage_cannot_take_says_so_and_is_tried_again(world: World) -> None:
    await world.add("Model", "m", {"model": "x"})
    await world.add("Workflow", "w", {"model": "m", "nodes": NODES})
    key = await world.add("WorkflowRun", "r", {"workflowRef": {"name": "w"}})
    world.storage.down = True
    for _ in range(3):
        with pytest.raises(RetryableError):
            await world.operator.reconcile(key)
        world.show()
    assert world.condition(key, "Succeeded")["reason"] == "ProgressingWithRetry"
    assert len(world.kube.patches) == 1
    assert "canary" not in str(world.kube.objects)
    world.storage.down = False
    await world.settle(key)
    world.clock.advance(1)
    await world.settle(key)
    assert world.condition(key, "Succeeded")["reason"] == "Queued"


async def test_run_whose_api_server_is_down_is_tried_again(world: World) -> None:
    key = await queued_run(world)
    world.kube.failure = Unavailable("down")
    world.clock.advance(1)
    with pytest.raises(RetryableError):
        await world.operator.reconcile(key)
    world.kube.failure = None
    await world.settle(key)
    world.clock.advance(1)
    await world.settle(key)
    assert world.condition(key, "Succeeded")["reason"] == "Queued"


async def test_run_pod_that_is_refused_is_said_and_tried_again_slowly(world: World) -> None:
    await world.add("Model", "m", {"model": "x"})
    await world.add("Workflow", "w", {"model": "m", "nodes": NODES})
    key = await world.add("WorkflowRun", "r", {"workflowRef": {"name": "w"}})
    world.kube.refuse["Pod"] = Refused("exceeded quota: pods", reason="Forbidden")
    assert await world.settle(key) == 60
    assert "exceeded quota" in world.condition(key, "Succeeded")["message"]
    assert world.condition(key, "Finished")["status"] == "False"
    del world.kube.refuse["Pod"]
    world.clock.advance(60)
    await world.settle(key)
    assert len(world.kube.of_kind("Pod")) == 1


async def test_run_that_is_over_is_looked_at_without_storage(world: World) -> None:
    conditions = [{"type": "Finished", "status": "True"}]
    status = {"conditions": conditions, "completionTime": "2026-01-02T03:04:05Z"}
    key = world.objects.put(
        world.kube.add(
            {
                "apiVersion": names.API_VERSION,
                "kind": "WorkflowRun",
                "metadata": {"name": "old"},
                "spec": {"workflowRef": {"name": "w"}},
                "status": status,
            }
        )
    )
    world.storage.down = True
    assert await world.operator.reconcile(key) is None


async def test_resync_cancels_runs_whose_object_is_gone_and_only_those(world: World) -> None:
    kept = await queued_run(world)
    namesake = world.kube.add(
        {"apiVersion": names.API_VERSION, "kind": "WorkflowRun", "metadata": {"name": "gone"}, "spec": {}}
    )
    for uid, name in (("lost", "nothing-there"), ("replaced", "gone")):
        run = make_run(uid, name=name, revision=make_revision().digest)
        await world.storage.submit(run, revision=make_revision(), task=make_task(uid))
    await world.operator.resync()
    states = {uid: (await world.storage.get_run(uid)).state for uid in (kept.uid, "lost", "replaced")}
    assert states == {kept.uid: RunState.QUEUED, "lost": RunState.CANCELLED, "replaced": RunState.CANCELLED}
    assert namesake["metadata"]["uid"] != "replaced"


async def test_resync_sends_on_the_work_of_pods_that_are_gone(world: World) -> None:
    key = await queued_run(world)
    await claim(world)
    assert (await world.storage.get_run(key.uid)).state is RunState.RUNNING
    await world.operator.resync()
    (task,) = await world.storage.tasks_of_run(key.uid)
    assert (task.pod_uid, task.session) == ("", "")


def lease_of(pod: dict[str, Any], renewed: str) -> dict[str, Any]:
    meta = {"name": pod["metadata"]["name"], "namespace": "default"}
    spec = {"holderIdentity": pod["metadata"]["uid"], "leaseDurationSeconds": 15, "renewTime": renewed}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}


async def pool_pod(world: World, **status: Any) -> dict[str, Any]:
    agent = await world.add("Agent", "g", {})
    await world.settle(agent)
    (pod,) = world.kube.of_kind("Pod")
    pod["status"] = {"phase": "Running", **status}
    world.objects.put(pod)
    world.kube.add(lease_of(pod, "a"))
    return pod


async def test_liveness_expired_lease_deletes_the_pod_and_says_so(world: World) -> None:
    pod = await pool_pod(world)
    assert await world.liveness.look() == {pod["metadata"]["uid"]}
    world.clock.advance(18)
    assert await world.liveness.look() == {pod["metadata"]["uid"]}
    assert world.kube.deleted == [(Ref.of(pod), 0)]
    assert [event["reason"] for event in world.kube.of_kind("Event")] == ["AgentLost"]


async def test_liveness_a_silent_gateway_is_not_the_agents_fault(world: World) -> None:
    await pool_pod(world)
    await world.liveness.look()
    world.gateway_answers.append(False)
    world.clock.advance(60)
    await world.liveness.look()
    assert world.kube.deleted == []
    world.gateway_answers.append(True)
    world.clock.advance(10)
    await world.liveness.look()
    assert world.kube.deleted == []
    world.clock.advance(10)
    await world.liveness.look()
    assert len(world.kube.deleted) == 1


async def test_liveness_a_pod_that_is_starting_again_keeps_its_place(world: World) -> None:
    await pool_pod(world, containerStatuses=[{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}])
    await world.liveness.look()
    world.clock.advance(18)
    await world.liveness.look()
    assert world.kube.deleted == []


async def test_liveness_what_could_not_be_sent_on_is_sent_on_later(world: World) -> None:
    await pool_pod(world)
    await world.liveness.look()
    world.clock.advance(18)
    world.storage.down = True
    with pytest.raises(RetryableError):
        await world.liveness.look()
    world.storage.down = False
    await world.liveness.look()
    assert len(world.kube.deleted) == 1


async def test_observe_a_model_that_appears_wakes_those_that_wait_for_it(world: World) -> None:
    workflow = await world.add("Workflow", "w", {"model": "m", "nodes": NODES})
    run = await world.add("WorkflowRun", "r", {"workflowRef": {"name": "w"}})
    other = await world.add("Workflow", "other", {"model": "another", "nodes": NODES})
    for key in (workflow, run, other):
        await world.settle(key)
    model = world.kube.add({"apiVersion": names.API_VERSION, "kind": "Model", "metadata": {"name": "m"}, "spec": {}})
    await world.operator.observe("ADDED", model)
    due = set(world.operator.queue._due)
    assert {workflow, run} <= due
    assert other not in due


async def test_observe_a_pod_that_is_gone_has_its_work_sent_on(world: World) -> None:
    key = await queued_run(world)
    session = await claim(world)
    gone = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": session.pod, "namespace": "default", "uid": session.pod_uid, "resourceVersion": "9"},
    }
    await world.operator.observe("DELETED", gone)
    await world.settle(Key("Pod", session.pod_uid))
    (task,) = await world.storage.tasks_of_run(key.uid)
    assert task.pod_uid == ""


async def test_a_second_pass_over_everything_writes_nothing(world: World) -> None:
    key = await queued_run(world)
    keys = [*world.objects.keys("Workflow", "Agent", "Model"), key]
    for _ in range(2):
        world.clock.advance(2)
        for each in keys:
            await world.settle(each)
    patches, created = len(world.kube.patches), len(world.kube.objects)
    world.clock.advance(2)
    for each in keys:
        await world.settle(each)
    assert (len(world.kube.patches), len(world.kube.objects)) == (patches, created)
