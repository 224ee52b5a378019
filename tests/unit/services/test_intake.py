"""How runs come in: concurrency, reruns, dry runs, and what they wait for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.services.objects import Key
from fairlead.storage.base import RunState
from fairlead.testing.operatorworld import NODES, OperatorWorld, operator_world, restarted

WRITTEN, REWRITTEN = (
    {"nodes": [{"name": "a", "tool": {"name": "later", "arguments": arguments}}]} for arguments in ({"x": 1}, {"y": 2})
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[OperatorWorld]:
    async with operator_world(tmp_path) as made:
        yield made


async def runs(world: OperatorWorld, *names: str) -> list[Key]:
    made = []
    for name in names:
        made.append(await world.run(name))
        world.clock.advance(1)
    return made


async def is_queued(world: OperatorWorld, key: Key) -> bool:
    return await world.storage.get_run(key.uid) is not None


def woken(world: OperatorWorld) -> set[Key]:
    return {key for key in world.operator.queue._due if key.kind == "WorkflowRun"}


async def test_queue_lets_the_next_in_when_one_has_ended(world: OperatorWorld) -> None:
    await world.declare(concurrency={"limit": 1, "policy": "Queue"})
    first, second, third = await runs(world, "first", "second", "third")
    assert [await is_queued(world, key) for key in (first, second, third)] == [True, False, False]
    assert world.reason(second) == world.reason(third) == "ConcurrencyLimit"
    assert "concurrency.limit (1)" in world.condition(second, "Succeeded")["message"]
    await world.finish(await world.claim())
    await world.settle(first)
    assert {second, third} <= woken(world)
    await world.settle(third)  # whoever is looked at first: the older one is next
    await world.settle(second)
    assert [await is_queued(world, key) for key in (second, third)] == [True, False]


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        pytest.param(
            {"workflowRef": {"name": "w"}, "inputs": {"message": "a"}},
            {"inputs": {"mesage": "b"}},
            "WorkflowNotFound",
            id="inputs",
        ),
        pytest.param({"workflow": WRITTEN}, {"workflow": REWRITTEN}, "ToolNotFound", id="workflow"),
    ],
)
async def test_run_that_is_changed_while_it_waits_is_ended(
    world: OperatorWorld, before: dict[str, Any], after: dict[str, Any], reason: str
) -> None:
    """A real API server lets both through: they have as many keys as before and agree in those that both have."""
    key = await world.add("WorkflowRun", "r", before)
    await world.settle(key)
    await restarted(world).settle(key)
    await world.change(key, {"suspend": True})
    await world.settle(key)
    assert world.reason(key) == reason
    await world.change(key, after)
    await world.settle(key)
    assert world.reason(key) == "InvalidSpec"
    assert "make a new run instead" in world.condition(key, "Succeeded")["message"]
    await world.declare()
    await world.settle(key)
    assert not await is_queued(world, key)


async def test_queue_is_by_priority_then_age(world: OperatorWorld) -> None:
    await world.declare(concurrency={"limit": 1})
    first = await world.run("first")
    low, high = await world.run("low"), await world.run("high", priority=5)
    await world.finish(await world.claim())
    for key in (first, low, high):
        await world.settle(key)
    assert [await is_queued(world, key) for key in (low, high)] == [False, True]
    assert (await world.record(high)).priority == 5


async def test_queue_survives_a_restart_of_the_operator(world: OperatorWorld) -> None:
    await world.declare(concurrency={"limit": 1})
    first, second, third = await runs(world, "first", "second", "third")
    fresh = restarted(world)
    await fresh.settle(third)
    assert not await is_queued(fresh, third)
    await fresh.finish(await fresh.claim())
    await fresh.settle(third)  # asks first, and is not first
    await fresh.settle(first)
    await fresh.settle(second)
    assert [await is_queued(fresh, key) for key in (second, third)] == [True, False]


async def test_queue_keeps_the_place_of_a_rerun_through_a_restart_of_the_operator(world: OperatorWorld) -> None:
    await world.declare(concurrency={"limit": 1})
    first = await world.run("first")
    await world.finish(await world.claim(), RunState.FAILED)
    await world.settle(first)
    await world.run("active")
    again = await world.add("WorkflowRun", "again", {"rerunOf": {"name": "first", "uid": first.uid}})
    await world.settle(again)
    assert (world.reason(again), world.object(again)["status"]["workflow"]) == ("ConcurrencyLimit", "w")
    world.clock.advance(1)
    (late,) = await runs(world, "late")
    fresh = restarted(world)
    await fresh.finish(await fresh.claim(pod="pod-2"))
    await fresh.settle(late)  # asks first, and is not first
    assert not await is_queued(fresh, late)
    await fresh.settle(again)
    assert await is_queued(fresh, again)


async def test_rerun_that_is_stopped_while_it_waits_keeps_the_name_of_its_workflow(world: OperatorWorld) -> None:
    await world.declare(concurrency={"limit": 1})
    first = await world.run("first")
    await world.finish(await world.claim(), RunState.FAILED)
    await world.settle(first)
    await world.run("active")
    again = await world.add("WorkflowRun", "again", {"rerunOf": {"name": "first", "uid": first.uid}})
    await world.settle(again)
    await world.change(again, {"stop": True})
    await world.settle(again)
    assert (world.reason(again), world.object(again)["status"]["workflow"]) == ("Cancelled", "w")


async def test_queue_forgets_those_that_are_deleted_or_stopped(world: OperatorWorld) -> None:
    await world.declare(concurrency={"limit": 1})
    first, second, third, fourth = await runs(world, "first", "second", "third", "fourth")
    await world.remove(second)
    await world.settle(second)
    await world.change(third, {"stop": True})
    await world.settle(third)
    assert world.reason(third) == "Cancelled"
    await world.finish(await world.claim())
    await world.settle(first)
    await world.settle(fourth)
    assert await is_queued(world, fourth)


async def test_queue_goes_on_when_the_active_run_is_deleted(world: OperatorWorld) -> None:
    await world.declare(concurrency={"limit": 1})
    first, second = await runs(world, "first", "second")
    claimed = await world.claim()
    await world.remove(first)
    await world.settle(first)
    await world.settle(second)
    assert not await is_queued(world, second)  # its pod has yet to end it
    await world.finish(claimed, RunState.CANCELLED)
    await world.operator._runs.ended_alone(first.uid)
    assert second in woken(world)
    await world.settle(second)
    assert await is_queued(world, second)


async def test_limit_that_is_raised_lets_more_in(world: OperatorWorld) -> None:
    workflow = await world.declare(concurrency={"limit": 1})
    _, second = await runs(world, "first", "second")
    await world.change(workflow, {"concurrency": {"limit": 2}})
    await world.settle(second)
    assert await is_queued(world, second)


async def test_forbid_fails_a_run_over_the_limit(world: OperatorWorld) -> None:
    await world.declare(concurrency={"limit": 1, "policy": "Forbid"})
    _, second = await runs(world, "first", "second")
    assert world.reason(second) == "ConcurrencyForbidden"
    assert "make the run again" in world.condition(second, "Stalled")["message"]
    assert not await is_queued(world, second)


async def test_replace_stops_the_oldest_and_waits_for_its_end(world: OperatorWorld) -> None:
    await world.declare(concurrency={"limit": 1, "policy": "Replace"})
    first = await world.run("first")
    claimed = await world.claim()
    second = await world.run("second")
    assert (await world.record(first)).cancel_reason == "Replaced"
    assert world.reason(second) == "ConcurrencyLimit"
    await world.finish(claimed, RunState.CANCELLED)
    await world.settle(first)
    await world.settle(second)
    assert await is_queued(world, second)


async def test_replace_of_a_run_that_nobody_has_is_at_once(world: OperatorWorld) -> None:
    await world.declare(concurrency={"limit": 1, "policy": "Replace"})
    first = await world.run("first")
    second = await world.run("second")
    await world.settle(second)
    await world.settle(first)
    assert world.reason(first) == "Replaced"
    assert await is_queued(world, second)


async def test_replace_keeps_the_newest_of_those_that_wait(world: OperatorWorld) -> None:
    await world.declare(concurrency={"limit": 1, "policy": "Replace"})
    await world.run("first")
    await world.claim()
    world.clock.advance(1)
    second, third = await runs(world, "second", "third")
    await world.settle(second)
    assert world.reason(second) == "Replaced"
    assert world.reason(third) == "ConcurrencyLimit"


async def test_time_in_the_queue_is_no_time_of_waiting_for_a_model(world: OperatorWorld) -> None:
    await world.declare(concurrency={"limit": 1}, pendingTimeoutSeconds=60)
    _, second = await runs(world, "first", "second")
    world.clock.advance(600)
    await world.remove(next(key for key in world.objects.keys("Model")))
    await world.settle(second)
    assert world.reason(second) == "ModelNotFound"
    world.clock.advance(61)
    await world.settle(second)
    assert world.reason(second) == "PendingTimeout"


# -- reruns ----------------------------------------------------------------------------------------------------------


async def test_rerun_is_of_the_earlier_run_by_name_with_its_inputs(world: OperatorWorld) -> None:
    await world.declare(inputs=[{"name": "i"}, {"name": "j"}])
    first = await world.run("first", inputs={"i": "one", "j": "two"})
    await world.finish(await world.claim(), RunState.FAILED)
    await world.settle(first)
    again = await world.run(
        "again", rerunOf={"name": "first", "from": "a"}, inputs={"j": "three"}, budget={"maxTokens": 9}
    )
    record = await world.record(again)
    assert (record.rerun_of, record.rerun_from) == (first.uid, "a")
    assert record.inputs == {"i": "one", "j": "three"}
    assert record.budget == {"maxTokens": 9}


async def test_rerun_without_a_workflow_works_when_all_objects_are_gone(world: OperatorWorld) -> None:
    workflow = await world.declare()
    first = await world.run("first")
    await world.finish(await world.claim(), RunState.FAILED)
    for key in (workflow, first, *world.objects.keys("Model")):
        await world.remove(key)
    again = await world.add("WorkflowRun", "again", {"rerunOf": {"name": "first", "uid": first.uid}})
    await world.settle(again)
    record = await world.record(again)
    assert (record.workflow, record.rerun_of) == ("w", first.uid)
    revision = await world.storage.get_revision(record.revision)
    assert revision.document["models"] == {"m": {"model": "x"}}
    await world.settle_later(again)
    assert world.object(again)["status"]["workflow"] == "w"


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"name": "nobody"}, "RerunNotFound"),
        ({"name": "first", "uid": "of-another"}, "RerunNotFound"),
        ({"name": "first"}, "RerunNotPossible"),
    ],
)
async def test_rerun_that_cannot_be_is_refused(world: OperatorWorld, asked: dict[str, str], reason: str) -> None:
    await world.declare()
    await world.run("first")
    again = await world.run("again", rerunOf=asked)
    assert world.reason(again) == reason
    assert world.condition(again, "Finished")["status"] == "True"


async def test_rerun_does_not_reach_into_other_namespaces(world: OperatorWorld) -> None:
    await world.declare()
    first = await world.run("first")
    await world.finish(await world.claim())
    for kind, spec in (("Model", {"model": "x"}), ("Workflow", {"model": "m", "nodes": NODES})):
        await world.add(kind, {"Model": "m", "Workflow": "w"}[kind], spec, namespace="other")
    thief = await world.add(
        "WorkflowRun",
        "thief",
        {"workflowRef": {"name": "w"}, "rerunOf": {"name": "first", "uid": first.uid}},
        namespace="other",
    )
    await world.settle(thief)
    assert world.reason(thief) == "RerunNotFound"


# -- dry runs --------------------------------------------------------------------------------------------------------


async def test_dry_run_ends_at_once_with_its_plan(world: OperatorWorld) -> None:
    await world.declare(concurrency={"limit": 1})
    await world.run("real")
    key = await world.run("dry", dryRun=True)
    assert world.reason(key) == "DryRun"
    assert world.condition(key, "Succeeded")["status"] == "True"
    record = await world.record(key)
    assert record.state is RunState.SUCCEEDED
    assert record.output["waves"] == [["a"]]
    assert await world.storage.tasks_of_run(key.uid) == []


async def test_dry_run_says_what_is_missing(world: OperatorWorld) -> None:
    await world.add("Workflow", "w", {"model": "m", "nodes": NODES})
    key = await world.run("dry", dryRun=True)
    assert world.reason(key) == "DryRun"
    assert '"m"' in world.condition(key, "Succeeded")["message"]


async def test_dry_run_that_a_crash_cut_short_is_finished(world: OperatorWorld) -> None:
    await world.declare()
    key = await world.add("WorkflowRun", "dry", {"workflowRef": {"name": "w"}, "dryRun": True})
    await world.operator._runs._intake.take(world.object(key))
    assert (await world.record(key)).state is RunState.QUEUED
    await restarted(world).settle(key)
    assert (await world.record(key)).reason == "DryRun"


# -- sub-workflows ---------------------------------------------------------------------------------------------------


async def test_run_waits_for_a_sub_workflow_and_freezes_it(world: OperatorWorld) -> None:
    await world.declare(nodes=[{"name": "a", "workflow": {"name": "inner"}}])
    key = await world.run("r")
    assert world.reason(key) == "SubWorkflowNotFound"
    await world.add("Workflow", "inner", {"model": "m", "nodes": NODES})
    await world.settle(key)
    revision = await world.storage.get_revision((await world.record(key)).revision)
    assert set(revision.document["workflows"]) == {"inner"}


async def test_workflows_that_run_each_other_are_invalid(world: OperatorWorld) -> None:
    outer = await world.declare(nodes=[{"name": "a", "workflow": {"name": "inner"}}])
    inner = await world.add("Workflow", "inner", {"nodes": [{"name": "b", "workflow": {"name": "w"}}]})
    key = await world.run("r")
    assert world.reason(key) == "InvalidGraph"
    for each in (outer, inner):
        await world.settle(each)
        assert world.condition(each, "Ready")["reason"] == "InvalidGraph"
        assert "run itself" in world.condition(each, "Stalled")["message"]
