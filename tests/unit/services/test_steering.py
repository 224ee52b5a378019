"""Runs that wait, pause, are decided about and are stopped: what the operator does about each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fairlead.core import names
from fairlead.services.objects import Key
from fairlead.storage.base import Approval, ApprovalState, RunState, Span, TaskState, Turn, Verdict
from fairlead.testing.operatorworld import NODES, OperatorWorld, fence_of, operator_world
from fairlead.testing.storage import CLUSTER, make_approval

FINALLY = {"tool": {"name": "http_request"}}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[OperatorWorld]:
    async with operator_world(tmp_path) as made:
        yield made


def pods(world: OperatorWorld) -> list[str]:
    return [pod["metadata"]["name"] for pod in world.kube.of_kind("Pod")]


def end_pod(world: OperatorWorld) -> None:
    """Have the one pod exit, as it does when its task is parked."""
    (pod,) = world.kube.of_kind("Pod")
    pod["status"] = {"phase": "Succeeded"}
    world.show()


async def own_pod_run(world: OperatorWorld, **workflow: Any) -> tuple[Key, str]:
    """Return a run with a pod of its own, and the pool of that pod."""
    await world.add("Model", "m", {"model": "x"})
    await world.add("Workflow", "w", {"model": "m", "nodes": NODES, **workflow})
    key = await world.run("r")
    return key, names.run_pool(CLUSTER, "default", key.uid)


async def ask(world: OperatorWorld, claimed: Any, **changes: Any) -> Approval:
    question = make_approval(run_uid=claimed.run.uid, task_id=claimed.task.id, run_name="r", **changes)
    soon = world.clock.now() + timedelta(days=1)
    asked: Approval = await world.storage.open_approval(fence_of(claimed), replace(question, deadline=soon))
    return asked


async def park(world: OperatorWorld, claimed: Any, *keys: str, reason: str = "Approval") -> None:
    found = await world.storage.park(fence_of(claimed), keys=keys, wake_at=None, reason=reason, at=world.clock.now())
    assert found == []


# -- parking ---------------------------------------------------------------------------------------------------------


async def test_run_that_waits_has_no_pod_and_gets_another_when_it_goes_on(world: OperatorWorld) -> None:
    key, pool = await own_pod_run(world)
    (first,) = pods(world)
    claimed = await world.claim(pool, first)
    question = await ask(world, claimed)
    await park(world, claimed, question.key)
    end_pod(world)
    await world.settle_later(key, key)
    assert pods(world) == [first]
    assert world.reason(key) == "WaitingForApproval"
    assert 'node "ship" asks: Send this?' in world.condition(key, "WaitingForApproval")["message"]
    assert world.object(key)["status"]["pendingApprovals"] == 1
    await world.storage.decide(question.task_id, question.key, Verdict(approved=True, by="ann", at=world.clock.now()))
    await world.settle_later(key, key)
    (second,) = pods(world)
    assert second != first
    assert world.condition(key, "WaitingForApproval") == {}
    again = await world.claim(pool, second)
    assert again.task.attempt == claimed.task.attempt + 1
    await world.settle_later(key)
    assert world.reason(key) == "Running"


async def test_run_that_waits_for_a_time_says_so(world: OperatorWorld) -> None:
    await world.declare()
    key = await world.run("r")
    await park(world, await world.claim(), reason="Time")
    await world.settle_later(key)
    assert world.reason(key) == "Waiting"


# -- suspension ------------------------------------------------------------------------------------------------------


async def suspensions(world: OperatorWorld, key: Key) -> list[Span]:
    return [span for span in await world.storage.spans_of_run(key.uid) if span.kind == "suspension"]


async def test_suspended_run_is_not_taken_and_has_no_pod_until_it_is_resumed(world: OperatorWorld) -> None:
    await world.add("Model", "m", {"model": "x"})
    await world.add("Workflow", "w", {"model": "m", "nodes": NODES})
    key = await world.run("r", suspend=True)
    await world.settle_later(key)
    assert world.reason(key) == "Suspended"
    assert pods(world) == []
    await world.change(key, {"suspend": False})
    await world.settle_later(key)
    assert (await world.record(key)).suspended is False
    assert world.reason(key) == "Queued"
    assert len(pods(world)) == 1
    (span,) = await suspensions(world, key)
    assert (span.started_at, span.finished_at) == ((await world.record(key)).created_at, world.clock.now())


async def test_suspend_and_resume_of_a_run_that_runs(world: OperatorWorld) -> None:
    await world.declare()
    key = await world.run("r")
    await world.claim()
    begun, ended = [], []
    for times in range(1, 3):
        await world.change(key, {"suspend": True})
        await world.settle_later(key)
        begun.append(world.clock.now())
        assert (await world.record(key)).suspended is True
        assert [one.finished_at is None for one in await suspensions(world, key)] == [False] * (times - 1) + [True]
        await world.change(key, {"suspend": False})
        await world.settle_later(key)
        ended.append(world.clock.now())
        assert (await world.record(key)).suspended is False
    spans = await suspensions(world, key)
    assert [(one.started_at, one.finished_at) for one in spans] == list(zip(begun, ended, strict=True))


async def test_suspended_run_ends_at_its_deadline(world: OperatorWorld) -> None:
    await world.declare(timeoutSeconds=60, **{"finally": FINALLY})
    key = await world.run("r")
    await park(world, await world.claim())
    await world.change(key, {"suspend": True})
    await world.settle_later(key)
    world.clock.advance(60)
    await world.settle(key)
    record = await world.record(key)
    assert (record.suspended, record.state) == (False, RunState.RUNNING)  # a pod may end it now
    world.clock.advance(15 + 60)
    await world.settle(key)
    assert world.reason(key) == "Timeout"


# -- stopping --------------------------------------------------------------------------------------------------------


async def test_stop_of_a_run_that_waits_gives_finally_its_turn(world: OperatorWorld) -> None:
    key, pool = await own_pod_run(world, **{"finally": FINALLY})
    (first,) = pods(world)
    await park(world, await world.claim(pool, first), "k")
    end_pod(world)
    await world.change(key, {"stop": True})
    await world.settle_later(key, key)
    assert world.reason(key) == "Stopping"
    (second,) = pods(world)
    assert second != first
    claimed = await world.claim(pool, second)
    assert claimed.run.cancel_reason == "Cancelled"
    await world.finish(claimed, RunState.CANCELLED)
    await world.settle_later(key)
    assert world.condition(key, "Finished")["status"] == "True"


async def test_stop_of_a_run_that_waits_gives_the_finally_of_a_workflow_inside_its_turn(world: OperatorWorld) -> None:
    await world.add("Workflow", "inner", {"model": "m", "nodes": NODES, "finally": FINALLY})
    await world.declare(nodes=[{"name": "a", "workflow": {"name": "inner"}}])
    key = await world.run("r")
    await park(world, await world.claim(), "k")
    await world.change(key, {"stop": True})
    await world.settle_later(key)
    assert (await world.claim(pod="pod-2")).run.cancel_reason == "Cancelled"


async def test_stop_of_a_run_that_waits_without_finally_is_at_once(world: OperatorWorld) -> None:
    await world.declare()
    key = await world.run("r")
    await park(world, await world.claim(), "k")
    await world.change(key, {"stop": True})
    await world.settle_later(key)
    assert world.reason(key) == "Cancelled"


async def test_stop_of_a_suspended_run_gives_finally_its_turn(world: OperatorWorld) -> None:
    await world.declare(**{"finally": FINALLY})
    key = await world.run("r")
    await park(world, await world.claim(), "k")
    await world.change(key, {"suspend": True})
    await world.settle_later(key)
    await world.change(key, {"stop": True})
    await world.settle_later(key)
    claimed = await world.claim(pod="pod-2")
    assert claimed.run.cancel_reason == "Cancelled"


async def test_stop_ends_a_run_whose_agent_is_gone(world: OperatorWorld) -> None:
    await world.declare(**{"finally": FINALLY})
    key = await world.run("r")
    await park(world, await world.claim(), "k")
    (agent,) = world.objects.keys("Agent")
    await world.remove(agent)
    await world.change(key, {"stop": True})
    await world.settle_later(key, key)
    assert world.reason(key) == "Cancelled"


async def test_deleted_run_of_a_pool_gives_finally_its_turn(world: OperatorWorld) -> None:
    await world.declare(**{"finally": FINALLY})
    key = await world.run("r")
    await park(world, await world.claim(), "k")
    await world.remove(key)
    await world.settle(key)
    assert (await world.claim(pod="pod-2")).run.cancel_reason == "Cancelled"


async def test_deleted_run_with_a_pod_of_its_own_ends_when_that_lets_go(world: OperatorWorld) -> None:
    key, pool = await own_pod_run(world, **{"finally": FINALLY})
    claimed = await world.claim(pool, pods(world)[0])
    await world.remove(key)
    await world.settle(key)
    assert (await world.record(key)).state is RunState.RUNNING  # the pod has been told, and has a while
    await world.storage.release(fence_of(claimed), at=world.clock.now())
    await world.operator.resync()
    assert (await world.record(key)).state is RunState.CANCELLED


async def test_deadline_leaves_the_handlers_their_time(world: OperatorWorld) -> None:
    await world.declare(timeoutSeconds=10, onFailure=FINALLY, **{"finally": {**FINALLY, "timeoutSeconds": 5}})
    key = await world.run("r")
    await world.claim()
    world.clock.advance(10)
    again = await world.settle(key)
    assert again == 15 + 60 + 5
    world.clock.advance(15 + 60 + 4)
    await world.settle(key)
    assert (await world.record(key)).state is RunState.RUNNING
    world.clock.advance(1)
    await world.settle(key)
    assert (await world.record(key)).reason == "Timeout"


# -- annotations -----------------------------------------------------------------------------------------------------


async def decided(world: OperatorWorld, key: Key) -> list[tuple[ApprovalState, str, str, bool]]:
    found = await world.storage.approvals_of_run(key.uid)
    return [(one.state, one.comment, one.via, one.verified) for one in found]


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        ("fairlead.dev/approve", "ship=fine", (ApprovalState.APPROVED, "fine", "annotation", False)),
        ("fairlead.dev/reject", "ship", (ApprovalState.REJECTED, "", "annotation", False)),
        ("fairlead.dev/approve", "other", (ApprovalState.PENDING, "", "", True)),
    ],
)
async def test_annotation_decides(
    world: OperatorWorld, annotation: str, value: str, expected: tuple[ApprovalState, str, str, bool]
) -> None:
    await world.declare()
    key = await world.run("r")
    claimed = await world.claim()
    await ask(world, claimed)
    await world.change(key, annotations={annotation: value})
    await world.settle_later(key)
    assert await decided(world, key) == [expected]
    signals = await world.storage.signals_of_task(claimed.task.id)
    assert len(signals) == (expected[0] is not ApprovalState.PENDING)


async def test_annotation_is_refused_where_approvers_are_named(world: OperatorWorld) -> None:
    await world.declare()
    key = await world.run("r")
    claimed = await world.claim()
    await ask(world, claimed, approvers=("ann", "bob"))
    await world.change(key, annotations={"fairlead.dev/approve": "ship"})
    await world.settle_later(key)
    await world.settle_later(key)
    assert [state for state, *_ in await decided(world, key)] == [ApprovalState.PENDING]
    (event,) = world.kube.of_kind("Event")
    assert event["reason"] == "DecisionRefused"
    assert "ann, bob" in event["note"]
    (task,) = await world.storage.tasks_of_run(key.uid)
    assert task.state is TaskState.CLAIMED


async def test_annotation_answers_only_once_in_a_loop(world: OperatorWorld) -> None:
    await world.declare()
    key = await world.run("r")
    claimed = await world.claim()
    await ask(world, claimed)
    await world.change(key, annotations={"fairlead.dev/approve": "ship=go"})
    await world.settle_later(key)
    await ask(world, claimed, key="ship/-/2/1/0")
    await world.settle_later(key)
    assert [state for state, *_ in await decided(world, key)] == [ApprovalState.APPROVED, ApprovalState.PENDING]
    await world.change(key, annotations={"fairlead.dev/approve": "ship=go on"})
    await world.settle_later(key)
    assert [state for state, *_ in await decided(world, key)] == [ApprovalState.APPROVED, ApprovalState.APPROVED]


async def test_run_that_waits_for_an_agent_without_pods_says_so(world: OperatorWorld) -> None:
    await world.declare()
    agent = await world.add("Agent", "away", {"model": "m", "scale": {"min": 0}})
    await world.settle(agent)
    key = await world.run("r")
    claimed = await world.claim()
    turn = Turn("turn-1", "k", names.agent_pool(CLUSTER, "default", "away"), {"agent": "away", "prompt": "x"})
    await world.storage.start_turn(fence_of(claimed), turn)
    await park(world, claimed, "k", reason="Turn")
    await world.settle_later(key)
    message = world.condition(key, "Succeeded")["message"]
    assert world.reason(key) == "Waiting"
    assert "waits for an agent's answer" in message
    assert 'Agent "away" has no pod that can take it' in message
