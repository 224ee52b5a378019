"""The operator's services on a cluster in memory, a real database and a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.core import names
from fairlead.core.conditions import rfc3339
from fairlead.errors import Refused, RetryableError, Unavailable
from fairlead.kube import Ref
from fairlead.services.election import LeadershipLost
from fairlead.services.leases import UNWRITTEN
from fairlead.services.objects import Key
from fairlead.storage.base import Event, RunState
from fairlead.testing.operatorworld import NODES, OperatorWorld, operator_world
from fairlead.testing.storage import CLUSTER, make_revision, make_run, make_task


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[OperatorWorld]:
    async with operator_world(tmp_path) as made:
        yield made


async def queued_run(world: OperatorWorld) -> Key:
    await world.declare()
    return await world.run("r")


async def test_run_status_is_written_at_most_once_a_second(world: OperatorWorld) -> None:
    key = await queued_run(world)
    assert world.kube.patches == []
    await world.claim()
    for _ in range(30):
        world.clock.advance(0.1)
        await world.settle(key)
        current = next(obj for obj in world.kube.of_kind("WorkflowRun"))
        assert len(current.get("status", {}).get("conditions", [])) in (0, 3)
    assert len(world.kube.patches) == 1  # nothing changed after Running
    assert world.condition(key, "Succeeded")["reason"] == "Running"


async def test_run_that_storage_cannot_take_says_so_and_is_tried_again(world: OperatorWorld) -> None:
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


async def test_run_whose_api_server_is_down_is_tried_again(world: OperatorWorld) -> None:
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


async def test_run_pod_that_is_refused_is_said_and_tried_again_slowly(world: OperatorWorld) -> None:
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


async def test_agent_and_run_say_whose_pod_has_the_name_of_theirs(world: OperatorWorld) -> None:
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "s", "controller": True}
    for name in ("web-0", "web-r0"):
        world.kube.add({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "ownerReferences": [owner]}})
    await world.add("Model", "m", {"model": "x"})
    await world.add("Workflow", "w", {"model": "m", "nodes": NODES})
    agent = await world.add("Agent", "web", {})
    run = await world.add("WorkflowRun", "web", {"workflowRef": {"name": "w"}})
    for key, condition in ((agent, "Ready"), (run, "Succeeded")):
        assert await world.settle(key) == 60
        assert "belongs to StatefulSet web" in world.condition(key, condition)["message"]


async def test_agent_and_run_of_one_name_have_a_pod_each(world: OperatorWorld) -> None:
    await world.add("Model", "m", {"model": "x"})
    await world.add("Workflow", "w", {"model": "m", "nodes": NODES})
    await world.settle(await world.add("Agent", "web", {}))
    await world.settle(await world.add("WorkflowRun", "web", {"workflowRef": {"name": "w"}}))
    owners = {pod["metadata"]["ownerReferences"][0]["kind"] for pod in world.kube.of_kind("Pod")}
    assert owners == {"Agent", "WorkflowRun"}


async def test_run_pod_on_a_node_that_is_gone_is_replaced(world: OperatorWorld) -> None:
    await world.add("Model", "m", {"model": "x"})
    await world.add("Workflow", "w", {"model": "m", "nodes": NODES})
    key = await world.add("WorkflowRun", "r", {"workflowRef": {"name": "w"}})
    await world.settle(key)
    (pod,) = world.kube.of_kind("Pod")
    marked = {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": rfc3339(world.clock.now())}}
    world.kube.objects[Ref.of(pod)] = marked
    await world.operator.observe("MODIFIED", marked)

    world.clock.advance(50)
    await world.settle(key)
    assert world.kube.deleted == []
    world.clock.advance(20)
    await world.settle(key)
    assert world.kube.deleted == [(Ref.of(pod), 0)]
    await world.operator.observe("DELETED", marked)
    await world.settle(key)

    (other,) = world.kube.of_kind("Pod")
    assert other["metadata"]["uid"] != pod["metadata"]["uid"]


async def test_run_that_has_ended_ends_what_was_injected_into_its_pod(world: OperatorWorld) -> None:
    await world.add("Model", "m", {"model": "x"})
    await world.add("Workflow", "w", {"model": "m", "nodes": NODES})
    key = await world.add("WorkflowRun", "r", {"workflowRef": {"name": "w"}})
    await world.settle(key)
    (pod,) = world.kube.of_kind("Pod")
    await world.finish(await world.claim(names.run_pool(CLUSTER, "default", key.uid)))
    done = {"name": "agent", "state": {"terminated": {"exitCode": 0}}}
    pod["status"] = {"phase": "Running", "containerStatuses": [{"name": "proxy", "state": {"running": {}}}, done]}
    await world.settle(key)

    world.clock.advance(31)
    await world.settle(key)
    assert world.kube.of_kind("Pod") == []


async def test_run_that_is_over_is_looked_at_without_storage(world: OperatorWorld) -> None:
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


async def test_resync_cancels_runs_whose_object_is_gone_and_only_those(world: OperatorWorld) -> None:
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


async def test_resync_sends_on_the_work_of_pods_that_are_gone(world: OperatorWorld) -> None:
    key = await queued_run(world)
    await world.claim()
    assert (await world.storage.get_run(key.uid)).state is RunState.RUNNING
    await world.operator.resync()
    (task,) = await world.storage.tasks_of_run(key.uid)
    assert (task.pod_uid, task.session) == ("", "")


def lease_of(pod: dict[str, Any], renewed: str) -> dict[str, Any]:
    meta = {"name": pod["metadata"]["name"], "namespace": "default"}
    spec = {"holderIdentity": pod["metadata"]["uid"], "leaseDurationSeconds": 15, "renewTime": renewed}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}


def crashing(name: str) -> dict[str, Any]:
    return {"name": name, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}


async def pool_pod(world: OperatorWorld, **status: Any) -> dict[str, Any]:
    agent = await world.add("Agent", "g", {})
    await world.settle(agent)
    (pod,) = world.kube.of_kind("Pod")
    pod["status"] = {"phase": "Running", **status}
    world.objects.put(pod)
    world.kube.add(lease_of(pod, "a"))
    return pod


async def watch(world: OperatorWorld, seconds: int) -> None:
    """Let time pass while the Leases are looked at, every other second."""
    for _ in range(0, seconds, 2):
        world.clock.advance(2)
        await world.liveness.look()


def leases(world: OperatorWorld) -> list[dict[str, Any]]:
    return world.kube.of_kind("Lease")


async def test_liveness_expired_lease_deletes_the_pod_and_says_so(world: OperatorWorld) -> None:
    pod = await pool_pod(world)
    assert await world.liveness.look() == {pod["metadata"]["uid"]}
    await watch(world, 14)
    assert leases(world)
    world.clock.advance(2)
    assert await world.liveness.look() == {pod["metadata"]["uid"]}
    assert world.kube.deleted[0] == (Ref.of(pod), 0)
    assert leases(world) == []
    (event,) = world.kube.of_kind("Event")
    assert (event["reason"], event["regarding"]["kind"], event["related"]["name"]) == ("AgentLost", "Agent", "g-0")


@pytest.mark.parametrize("labels", [{}, {"fairlead.dev/external": "true"}], ids=["as-a-pods", "as-an-external-agents"])
@pytest.mark.parametrize("drain", [{}, {"fairlead.dev/drain": "true"}], ids=["silent", "draining"])
@pytest.mark.parametrize("place", [("other", "g-0"), ("default", "another")], ids=["elsewhere", "by-another-name"])
async def test_liveness_a_lease_that_is_not_the_pods_own_says_nothing_of_it(
    world: OperatorWorld, place: tuple[str, str], labels: dict[str, str], drain: dict[str, str]
) -> None:
    pod = await pool_pod(world)
    forged = lease_of(pod, "never")
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "g-0", "uid": pod["metadata"]["uid"]}
    forged["metadata"] = {
        "namespace": place[0], "name": place[1], "labels": labels, "annotations": drain, "ownerReferences": [owner],
    }  # fmt: skip
    world.kube.add(forged)
    for second in range(0, 60, 2):
        world.kube.add(lease_of(pod, str(second)))
        await watch(world, 2)
    assert (world.kube.deleted, world.liveness.draining) == ([], {})
    assert world.liveness.alive == {pod["metadata"]["uid"]}


async def test_liveness_a_silent_gateway_is_not_the_agents_fault(world: OperatorWorld) -> None:
    await pool_pod(world)
    await world.liveness.look()
    world.gateway_answers.append(False)
    await watch(world, 60)
    assert world.kube.deleted == []
    world.gateway_answers.append(True)
    await watch(world, 2)
    assert world.kube.deleted == []
    await watch(world, 30)
    assert len(leases(world)) == 0


async def test_liveness_a_pod_that_is_heard_lives_though_its_lease_is_not_written(world: OperatorWorld) -> None:
    pod = await pool_pod(world)
    await world.liveness.look()
    for _ in range(12):
        await watch(world, 4)
        await world.operator._hear(Event(UNWRITTEN, pod["metadata"]["uid"]))
        await world.operator._hear(Event(UNWRITTEN, "unknown"))
        world.kube.failure = Unavailable("down")
        with pytest.raises(Unavailable):
            await world.liveness.look()  # what was heard is not forgotten
        world.kube.failure = None
        assert world.liveness.alive == {pod["metadata"]["uid"]}
    await watch(world, 18)
    assert Ref.of(pod) not in world.kube.objects


async def test_liveness_an_operator_without_processor_takes_nobody_for_dead(world: OperatorWorld) -> None:
    await pool_pod(world)
    await world.liveness.look()
    for _ in range(3):
        world.clock.advance(600)
        await world.liveness.look()
    assert world.kube.deleted == []


async def test_liveness_a_pod_that_is_starting_again_keeps_its_place(world: OperatorWorld) -> None:
    pod = await pool_pod(world, containerStatuses=[crashing("agent")])
    await world.liveness.look()
    await watch(world, 18)
    assert Ref.of(pod) in world.kube.objects
    assert leases(world) == []


async def test_liveness_a_pod_whose_agent_hangs_is_deleted_whatever_crashes_beside_it(world: OperatorWorld) -> None:
    agent = {"name": "agent", "state": {"running": {}}}
    pod = await pool_pod(world, containerStatuses=[crashing("vault-agent"), agent])
    await world.liveness.look()
    await watch(world, 18)
    assert Ref.of(pod) not in world.kube.objects


async def test_liveness_goes_on_after_a_refusal_and_ends_when_another_operator_may_be_active(
    world: OperatorWorld,
) -> None:
    heard = asyncio.Event()

    async def changed(_: frozenset[str]) -> None:
        heard.set()

    await pool_pod(world)
    world.kube.failure = Refused("Unauthorized", reason="Unauthorized")
    watching = asyncio.create_task(world.liveness.run(changed))
    await asyncio.sleep(0)
    world.kube.failure = None
    world.liveness.wake()
    hearing = asyncio.create_task(heard.wait())
    await asyncio.wait({watching, hearing}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    assert hearing.done()

    world.kube.failure = LeadershipLost("another one")
    world.liveness.wake()
    with pytest.raises(LeadershipLost):
        await watching


async def test_liveness_nobody_misses_a_pod_that_has_done_its_work(world: OperatorWorld) -> None:
    pod = await pool_pod(world)
    await world.liveness.look()
    pod["status"] = {"phase": "Succeeded"}
    world.show()
    await watch(world, 18)
    assert (Ref.of(pod) in world.kube.objects, world.kube.of_kind("Event"), leases(world)) == (True, [], [])


async def test_liveness_what_could_not_be_sent_on_is_sent_on_later(world: OperatorWorld) -> None:
    pod = await pool_pod(world)
    await world.liveness.look()
    await watch(world, 14)
    world.storage.down = True
    with pytest.raises(RetryableError):
        await watch(world, 2)
    assert Ref.of(pod) in world.kube.objects
    world.storage.down = False
    await world.liveness.look()
    assert Ref.of(pod) not in world.kube.objects


async def test_agent_that_shrinks_has_its_pod_drained_and_then_deleted(world: OperatorWorld) -> None:
    pod = await pool_pod(world)
    await world.liveness.look()
    agent = world.objects.keys("Agent")[0]
    await world.change(agent, {"scale": {"min": 0}})
    assert await world.settle(agent) is None
    (lease,) = leases(world)
    assert lease["metadata"]["annotations"] == {names.DRAIN_ANNOTATION: "true"}
    assert await world.liveness.look() == {pod["metadata"]["uid"]}
    assert await world.settle(agent) == 1
    assert world.condition(agent, "Reconciling")["reason"] == "ScalingDown"
    await watch(world, 8)
    await world.settle(agent)
    assert world.kube.of_kind("Pod") == []
    assert world.condition(agent, "Ready")["reason"] == "ScaledToZero"


async def test_agent_whose_pod_exceeds_the_quota_says_so_until_there_is_room(world: OperatorWorld) -> None:
    agent = await world.add("Agent", "g", {})
    world.kube.refuse["Pod"] = Refused('create Pod default/g-0: pods "g-0" is forbidden: exceeded quota: small')
    assert await world.settle(agent) == 60
    assert world.condition(agent, "Ready")["reason"] == "QuotaExceeded"
    assert "exceeded quota: small" in world.condition(agent, "Ready")["message"]
    del world.kube.refuse["Pod"]
    await world.settle(agent)
    assert world.condition(agent, "Ready")["reason"] == "ScalingUp"


async def test_elastic_agent_gets_a_pod_when_work_comes_and_loses_it_after_a_pause(world: OperatorWorld) -> None:
    await world.add("Model", "m", {"model": "x"})
    agent = await world.add("Agent", "g", {"scale": {"min": 0, "max": 3}})
    await world.add("Workflow", "w", {"model": "m", "runsOn": {"agent": "g"}, "nodes": NODES})
    assert await world.settle(agent) is None
    assert world.kube.of_kind("Pod") == []
    await world.run("r")
    await world.operator._hear(Event("queue", names.agent_pool(CLUSTER, "default", "g")))
    assert agent in world.operator.queue._due
    assert await world.settle(agent) == 5
    (pod,) = world.kube.of_kind("Pod")
    world.kube.add(lease_of(pod, "a"))
    await world.liveness.look()
    await world.finish(await world.claim(pod=pod["metadata"]["name"]))
    for _ in range(11):
        await world.settle(agent)
        assert leases(world)[0]["metadata"].get("annotations") is None
        world.clock.advance(5)
    world.clock.advance(6)
    await world.settle(agent)
    assert leases(world)[0]["metadata"]["annotations"] == {names.DRAIN_ANNOTATION: "true"}


async def test_observe_a_model_that_appears_wakes_those_that_wait_for_it(world: OperatorWorld) -> None:
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


@pytest.mark.parametrize(
    ("kind", "name", "woken"),
    [
        ("Tool", "t", {"w", "g", "outer"}),
        ("Model", "spare", {"m", "w", "outer"}),
        ("Workflow", "w", {"outer"}),
        ("Agent", "g", {"w", "outer"}),
        ("Tool", "another", set()),
    ],
)
async def test_observe_wakes_everything_that_depends_on_it(
    world: OperatorWorld, kind: str, name: str, woken: set[str]
) -> None:
    nodes = [{"name": "a", "agent": {"name": "g", "prompt": "x"}}]
    declared = {
        ("Model", "m"): {"model": "x", "fallbacks": ["spare"]},
        ("Agent", "g"): {"model": "m", "tools": ["t"]},
        ("Workflow", "w"): {"nodes": nodes},
        ("Workflow", "outer"): {"nodes": [{"name": "a", "workflow": {"name": "w"}}]},
    }
    for (of_kind, of_name), spec in declared.items():
        await world.settle(await world.add(of_kind, of_name, spec))
    for key in world.objects.keys("Model", "Agent", "Workflow"):
        await world.settle(key)
    found = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": name, "generation": 7}, "spec": {}}
    await world.operator.observe("ADDED", world.kube.add(found))
    due = {world.object(key)["metadata"]["name"] for key in world.operator.queue._due}
    assert due == woken


async def test_observe_a_status_wakes_nobody(world: OperatorWorld) -> None:
    await world.declare()
    for key in world.objects.keys("Model", "Agent", "Workflow"):
        await world.settle(key)
    for obj in world.kube.of_kind("Agent"):
        await world.operator.observe("MODIFIED", obj | {"status": {"queue": 9}})
    assert world.operator.queue._due == {}


async def test_observe_a_pod_that_is_gone_has_its_work_sent_on(world: OperatorWorld) -> None:
    key = await queued_run(world)
    session = await world.session()
    gone = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": session.pod, "namespace": "default", "uid": session.pod_uid, "resourceVersion": "9"},
    }
    await world.operator.observe("DELETED", gone)
    await world.settle(Key("Pod", session.pod_uid))
    (task,) = await world.storage.tasks_of_run(key.uid)
    assert task.pod_uid == ""


async def test_a_second_pass_over_everything_writes_nothing(world: OperatorWorld) -> None:
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
