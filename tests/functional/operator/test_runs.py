"""WorkflowRuns: accepted, queued, followed, ended; what it costs the Kubernetes API; what survives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from fairlead.storage.base import RunState
from fairlead.testing.kubectl import condition, wait_for

if TYPE_CHECKING:
    from conftest import Play, Player, Stage

WARM = {"runsOn": {"agent": "pool"}}


@pytest.fixture(scope="session")
def pool(stage: Stage) -> dict[str, Any]:
    """A pod of a warm pool, and a workflow for it."""
    stage.make("Agent", "pool", {"leaseDurationSeconds": 300})
    stage.workflow("greeter", inputs=[{"name": "who", "required": True}], **WARM)
    return stage.pod(agent="pool")


@pytest.fixture
async def warm(play: Play, pool: dict[str, Any]) -> Player:
    """The warm pod, registered."""
    await play.kube.delete(lease_of(pool))
    player = await play.register(pool, seconds=300)
    play.stage.until("fagent", "pool", "Available")
    return player


def lease_of(pod: dict[str, Any]) -> Any:
    from fairlead.kube import Ref

    return Ref("coordination.k8s.io/v1", "Lease", pod["metadata"]["name"], pod["metadata"]["namespace"])


async def test_run_on_a_warm_pool_costs_at_most_six_writes(play: Play, warm: Player) -> None:
    stage = play.stage
    before = len(stage.writes())
    stage.run("first", workflowRef={"name": "greeter"}, inputs={"who": "you"})
    claimed = await play.claim(warm)
    await warm.report(claimed, done=0, total=5, current=("greet",))
    stage.until("run", "first", "Running", of="Succeeded")
    for done in range(1, 6):
        await warm.report(claimed, done=done, total=5, current=("greet",))
    await warm.finish(claimed, {"text": "hello you"}, message="Done.")
    run = stage.until("run", "first", "Succeeded", of="Succeeded")
    status = run["status"]
    assert condition(run, "Finished")["status"] == "True"
    assert {found["type"] for found in status["conditions"]} == {"Succeeded", "Finished"}
    assert status["result"] == '{"text":"hello you"}'
    assert (status["progress"], status["attempt"], status["agentPod"]) == ("1/1", 1, "pool-0")
    assert status["agent"] == "pool"
    assert status["cost"] == {"total": "0", "currency": "USD"}
    assert len(str(status).encode()) < 8192
    assert claimed.run.inputs == {"who": "you"}
    assert claimed.revision.document["workflow"]["spec"]["nodes"][0]["name"] == "greet"
    assert claimed.revision.document["models"]["default"]["scripted"]
    event = wait_for("the event", lambda: events_about(stage, "first"))
    assert [found["reason"] for found in event] == ["RunSucceeded"]
    if stage.cluster.embedded:
        assert 3 <= len(stage.writes()) - before <= 6
    assert "finalizers" not in run["metadata"]
    assert "annotations" not in run["metadata"]


async def test_run_shows_failures_with_their_reason(play: Play, warm: Player) -> None:
    stage = play.stage
    stage.run("failing", workflowRef={"name": "greeter"}, inputs={"who": "you"})
    claimed = await play.claim(warm)
    await warm.finish(claimed, None, RunState.FAILED, reason="NodeFailed", message='Node "greet" failed: no.')
    run = stage.until("run", "failing", "NodeFailed", of="Succeeded")
    assert condition(run, "Stalled")["message"] == 'Node "greet" failed: no.'
    assert wait_for("the event", lambda: events_about(stage, "failing"))[0]["type"] == "Warning"


def test_run_with_wrong_inputs_is_rejected(stage: Stage, pool: dict[str, Any]) -> None:
    del pool
    stage.run("wrong", workflowRef={"name": "greeter"}, inputs={"whom": 1})
    run = stage.until("run", "wrong", "InvalidInputs", of="Succeeded")
    assert "who" in condition(run, "Stalled")["message"]
    assert condition(run, "Finished")["status"] == "True"


def test_run_that_asks_for_what_is_not_built_is_rejected(stage: Stage, pool: dict[str, Any]) -> None:
    del pool
    reply = {"trigger": "t", "conversation": "c"}
    stage.run("later", workflowRef={"name": "greeter"}, inputs={"who": "x"}, replyTo=reply)
    run = stage.until("run", "later", "NotSupported", of="Succeeded")
    assert "spec.replyTo" in condition(run, "Stalled")["message"]


async def test_run_waits_for_its_workflow_and_starts_when_it_comes(play: Play, warm: Player) -> None:
    stage = play.stage
    stage.run("early", workflowRef={"name": "tardy"})
    waiting = stage.until("run", "early", "WorkflowNotFound", of="Succeeded")
    assert condition(waiting, "Reconciling")["status"] == "True"
    stage.workflow("tardy", **WARM)
    claimed = await play.claim(warm)
    assert claimed.run.name == "early"
    await warm.finish(claimed, "done")
    stage.until("run", "early", "Succeeded", of="Succeeded")


def test_run_waits_no_longer_than_the_workflow_says(stage: Stage) -> None:
    stage.workflow("impatient", model="never", pendingTimeoutSeconds=1)
    stage.run("hopeless", workflowRef={"name": "impatient"})
    run = stage.until("run", "hopeless", "PendingTimeout", of="Succeeded")
    assert 'Model "never"' in condition(run, "Stalled")["message"]


async def test_run_that_is_stopped_while_queued_ends_at_once(play: Play, pool: dict[str, Any]) -> None:
    del pool
    stage = play.stage
    made = stage.run("unlucky", workflow={"model": "default", "nodes": [{"name": "x", "llm": {"prompt": "y"}}]})
    stage.until("run", "unlucky", "Queued", of="Succeeded")
    stage.change("run", "unlucky", stop=True)
    run = stage.until("run", "unlucky", "Cancelled", of="Succeeded")
    assert condition(run, "Stalled") == {}
    record = await play.storage.get_run(made["metadata"]["uid"])
    assert record is not None
    assert record.state is RunState.CANCELLED


async def test_run_that_is_stopped_while_it_runs_tells_the_pod(play: Play, warm: Player) -> None:
    stage = play.stage
    stage.run("halted", workflowRef={"name": "greeter"}, inputs={"who": "x"})
    claimed = await play.claim(warm)
    stage.change("run", "halted", stop=True)
    stage.until("run", "halted", "Stopping", of="Succeeded")
    record = await play.storage.get_run(claimed.run.uid)
    assert record is not None
    assert record.cancel_reason == "Cancelled"
    await warm.finish(claimed, None, RunState.CANCELLED, reason="Cancelled", message="Stopped.")
    stage.until("run", "halted", "Cancelled", of="Succeeded")


async def test_run_whose_object_is_deleted_is_cancelled_and_keeps_its_history(play: Play, warm: Player) -> None:
    stage = play.stage
    stage.run("dropped", workflowRef={"name": "greeter"}, inputs={"who": "x"})
    claimed = await play.claim(warm)
    stage.kubectl("delete", "run", "dropped")
    record = await until_record(play, claimed.run.uid, lambda found: found.cancel_reason)
    assert record.message == "" or "deleted" in record.message
    await warm.finish(claimed, None, RunState.CANCELLED, reason="Cancelled")
    assert await play.storage.find_run(claimed.run.cluster, stage.kubectl.namespace, "dropped") is not None


async def test_run_without_a_pool_gets_one_pod_of_its_own(play: Play) -> None:
    stage = play.stage
    stage.workflow("alone")
    stage.run("single", workflowRef={"name": "alone"})
    pod = stage.pod(run="single")
    assert pod["spec"]["restartPolicy"] == "OnFailure"
    assert pod["metadata"]["ownerReferences"][0]["kind"] == "WorkflowRun"
    player = await play.register(pod)
    claimed = await play.claim(player)
    stage.until("run", "single", "Running", of="Succeeded")
    stage.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
    second = wait_for("another pod", lambda: another_pod(stage, "single", pod))
    assert second["metadata"]["name"] != pod["metadata"]["name"]
    player = await play.register(second)
    claimed = await play.claim(player)
    assert claimed.task.attempt == 2
    await player.finish(claimed, "done")
    run = stage.until("run", "single", "Succeeded", of="Succeeded")
    assert run["status"]["attempt"] == 2
    assert run["status"]["agentPod"] == second["metadata"]["name"]


def another_pod(stage: Stage, run: str, before: dict[str, Any]) -> dict[str, Any] | None:
    pods = stage.kubectl.list("pods", "-l", f"fairlead.dev/run={run}")
    return next((pod for pod in pods if pod["metadata"]["uid"] != before["metadata"]["uid"]), None)


async def test_run_goes_on_elsewhere_when_the_lease_of_its_pod_expires(play: Play) -> None:
    stage = play.stage
    stage.make("Agent", "fragile", {"leaseDurationSeconds": 3})
    stage.workflow("careful", runsOn={"agent": "fragile"})
    pod = stage.pod(agent="fragile")
    silent = await play.register(pod, seconds=3)
    stage.run("surviving", workflowRef={"name": "careful"})
    claimed = await play.claim(silent)
    second = wait_for("the pod that replaces it", lambda: replacement(stage, "fragile", pod))
    wait_for("the event", lambda: "AgentLost" in {event["reason"] for event in events_about(stage, "fragile")})
    player = await play.register(second, seconds=300)
    again = await play.claim(player)
    assert (again.run.uid, again.task.attempt) == (claimed.run.uid, 2)
    await player.finish(again, "done")
    stage.until("run", "surviving", "Succeeded", of="Succeeded")


def replacement(stage: Stage, agent: str, before: dict[str, Any]) -> dict[str, Any] | None:
    pods = stage.kubectl.list("pods", "-l", f"fairlead.dev/agent={agent}")
    return next((pod for pod in pods if pod["metadata"]["uid"] != before["metadata"]["uid"]), None)


def test_run_over_its_time_fails_though_nobody_took_it(stage: Stage) -> None:
    stage.make("Agent", "absent", {"scale": {"min": 0}})
    stage.workflow("quick", runsOn={"agent": "absent"}, timeoutSeconds=2)
    stage.run("slow", workflowRef={"name": "quick"})
    queued = stage.until("run", "slow", "Queued", of="Succeeded")
    assert "scale.min is 0" in condition(queued, "Succeeded")["message"]
    stage.until("run", "slow", "Timeout", of="Succeeded")


async def test_run_is_deleted_by_its_ttl(play: Play, warm: Player) -> None:
    stage = play.stage
    made = stage.run("brief", workflowRef={"name": "greeter"}, inputs={"who": "x"}, ttlSecondsAfterFinished=1)
    claimed = await play.claim(warm)
    await warm.finish(claimed, "done")
    wait_for("no object", lambda: stage.kubectl.get("run", "brief") is None)
    record = await play.storage.get_run(made["metadata"]["uid"])
    assert record is not None
    assert record.state is RunState.SUCCEEDED


async def test_run_that_is_over_is_never_revived(play: Play, warm: Player) -> None:
    stage = play.stage
    made = stage.run("over", workflowRef={"name": "greeter"}, inputs={"who": "x"})
    claimed = await play.claim(warm)
    await warm.finish(claimed, "done")
    stage.until("run", "over", "Succeeded", of="Succeeded")
    await play.storage.delete_run(made["metadata"]["uid"])
    stage.kubectl("label", "run", "over", "touched=yes")
    stage.run("after", workflowRef={"name": "greeter"}, inputs={"who": "x"})
    claimed = await play.claim(warm)
    assert claimed.run.name == "after"
    await warm.finish(claimed, "done")
    assert await play.storage.get_run(made["metadata"]["uid"]) is None


async def test_operator_that_dies_misses_nothing(play: Play, warm: Player) -> None:
    stage = play.stage
    stage.run("through", workflowRef={"name": "greeter"}, inputs={"who": "x"})
    claimed = await play.claim(warm)
    stage.run("vanishing", workflowRef={"name": "greeter"}, inputs={"who": "x"})
    other = await play.claim(warm)
    stage.operator.kill()
    stage.kubectl("delete", "run", "vanishing")
    await warm.finish(claimed, "done")
    stage.run("meanwhile", workflowRef={"name": "greeter"}, inputs={"who": "x"})
    stage.operator.start()
    stage.until("run", "through", "Succeeded", of="Succeeded")
    record = await until_record(play, other.run.uid, lambda found: found.cancel_reason)
    assert record.state is RunState.RUNNING
    last = await play.claim(warm)
    assert last.run.name == "meanwhile"
    await warm.finish(other, None, RunState.CANCELLED, reason="Cancelled")
    await warm.finish(last, "done")
    stage.until("run", "meanwhile", "Succeeded", of="Succeeded")


async def until_record(play: Play, uid: str, condition: Any) -> Any:
    for _ in range(400):
        record = await play.storage.get_run(uid)
        if record is not None and condition(record):
            return record
        await asyncio.sleep(0.05)
    message = f"run {uid} did not get there"
    raise AssertionError(message)


def events_about(stage: Stage, name: str) -> list[dict[str, Any]]:
    events = stage.kubectl.list("events")
    return [event for event in events if event["involvedObject"]["name"] == name]
