"""Runs that wait for people and for each other, on the real operator: decided, paused, limited, planned, run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fairlead.storage.base import ApprovalState, RunState
from fairlead.testing.kubectl import condition, wait_for

if TYPE_CHECKING:
    from conftest import Play, Player, Stage

STEERED = {"runsOn": {"agent": "steered"}}


@pytest.fixture(scope="session")
def steered_pod(stage: Stage) -> dict[str, Any]:
    """A pod of a warm pool."""
    stage.make("Agent", "steered", {"leaseDurationSeconds": 300})
    return stage.pod(agent="steered")


@pytest.fixture
async def steered(play: Play, steered_pod: dict[str, Any]) -> Player:
    """The warm pod, registered."""
    from fairlead.kube import Ref

    meta = steered_pod["metadata"]
    await play.kube.delete(Ref("coordination.k8s.io/v1", "Lease", meta["name"], meta["namespace"]))
    player = await play.register(steered_pod, seconds=300)
    play.stage.until("fagent", "steered", "Available")
    return player


async def test_run_with_an_approval_costs_at_most_six_writes(play: Play, steered: Player) -> None:
    stage = play.stage
    stage.workflow("asking", **STEERED)
    stage.until("workflow", "asking", "Accepted")
    before = len(stage.writes())
    stage.run("asks", workflowRef={"name": "asking"})
    claimed = await play.claim(steered)
    question = await steered.ask(claimed, "ship")
    run = stage.until("run", "asks", "WaitingForApproval", of="Succeeded")
    waits = condition(run, "WaitingForApproval")
    assert (waits["status"], waits["reason"]) == ("True", "ApprovalPending")
    assert 'node "ship" asks: Send this?' in waits["message"]
    assert run["status"]["pendingApprovals"] == 1
    stage.kubectl("wait", "run/asks", "--for=condition=WaitingForApproval", "--timeout=5s")
    stage.kubectl("annotate", "run", "asks", "fairlead.dev/approve=ship=well done")
    again = await play.claim(steered)
    assert again.signals[0].value["comment"] == "well done"
    await steered.finish(again, "sent")
    run = stage.until("run", "asks", "Succeeded", of="Succeeded")
    assert condition(run, "WaitingForApproval") == {}
    assert "pendingApprovals" not in run["status"]
    decided = await play.storage.get_approval(question.task_id, question.key)
    assert decided is not None
    assert (decided.state, decided.via, decided.verified, decided.decided_by) == (
        ApprovalState.APPROVED,
        "annotation",
        False,
        "",
    )
    if stage.cluster.embedded:
        assert len(stage.writes()) - before <= 6


async def test_annotation_does_not_decide_where_approvers_are_named(play: Play, steered: Player) -> None:
    stage = play.stage
    stage.workflow("guarded", **STEERED)
    stage.run("guards", workflowRef={"name": "guarded"})
    claimed = await play.claim(steered)
    question = await steered.ask(claimed, "ship", approvers=("ann",))
    stage.until("run", "guards", "WaitingForApproval", of="Succeeded")
    stage.kubectl("annotate", "run", "guards", "fairlead.dev/approve=ship")
    event = wait_for("the event", lambda: refusals(stage, "guards"))
    assert "ann only" in event[0]["message"]
    still = await play.storage.get_approval(question.task_id, question.key)
    assert still is not None
    assert still.state is ApprovalState.PENDING
    stage.change("run", "guards", stop=True)
    stage.until("run", "guards", "Cancelled", of="Succeeded")


def refusals(stage: Stage, name: str) -> list[dict[str, Any]]:
    events = stage.kubectl.list("events")
    return [
        event for event in events if event["involvedObject"]["name"] == name and event["reason"] == "DecisionRefused"
    ]


async def test_concurrency_is_kept_through_a_restart_of_the_operator(play: Play, steered: Player) -> None:
    stage = play.stage
    stage.workflow("limited", concurrency={"limit": 1}, **STEERED)
    stage.run("limited-1", workflowRef={"name": "limited"})
    claimed = await play.claim(steered)
    stage.run("limited-2", workflowRef={"name": "limited"})
    stage.run("limited-3", workflowRef={"name": "limited"}, priority=1)
    for name in ("limited-2", "limited-3"):
        stage.until("run", name, "ConcurrencyLimit", of="Succeeded")
    stage.operator.kill()
    await steered.finish(claimed, "done")
    stage.operator.start()
    following = await play.claim(steered)
    assert following.run.name == "limited-3"
    assert await steered.take() is None
    await steered.finish(following, "done")
    last = await play.claim(steered)
    assert last.run.name == "limited-2"
    await steered.finish(last, "done")
    for name in ("limited-1", "limited-2", "limited-3"):
        stage.until("run", name, "Succeeded", of="Succeeded")


async def test_suspended_run_is_taken_when_it_is_resumed(play: Play, steered: Player) -> None:
    stage = play.stage
    stage.workflow("pausing", **STEERED)
    stage.run("pauses", workflowRef={"name": "pausing"}, suspend=True)
    stage.until("run", "pauses", "Suspended", of="Succeeded")
    assert await steered.take() is None
    stage.change("run", "pauses", suspend=False)
    claimed = await play.claim(steered)
    await steered.finish(claimed, "done")
    stage.until("run", "pauses", "Succeeded", of="Succeeded")


async def test_rerun_names_the_earlier_run_and_has_its_inputs(play: Play, steered: Player) -> None:
    stage = play.stage
    stage.workflow("repeated", inputs=[{"name": "who", "required": True}], **STEERED)
    stage.run("once", workflowRef={"name": "repeated"}, inputs={"who": "you"})
    claimed = await play.claim(steered)
    await steered.finish(claimed, None, RunState.FAILED, reason="NodeFailed", message="no")
    stage.until("run", "once", "NodeFailed", of="Succeeded")
    stage.run("twice", rerunOf={"name": "once"})
    again = await play.claim(steered)
    assert (again.run.rerun_of, again.run.rerun_from) == (claimed.run.uid, "Failed")
    assert (again.run.inputs, again.run.workflow) == ({"who": "you"}, "repeated")
    await steered.finish(again, "done")
    stage.until("run", "twice", "Succeeded", of="Succeeded")
    assert stage.kubectl("get", "run", "twice", "--no-headers").split()[:3] == ["twice", "repeated", "Succeeded"]
    stage.run("thrice", rerunOf={"name": "never-was"})
    run = stage.until("run", "thrice", "RerunNotFound", of="Succeeded")
    assert condition(run, "Finished")["status"] == "True"


def test_dry_run_shows_its_plan(stage: Stage, steered_pod: dict[str, Any]) -> None:
    del steered_pod
    stage.workflow("planned", **STEERED)
    stage.run("plan", workflowRef={"name": "planned"}, dryRun=True)
    run = stage.until("run", "plan", "DryRun", of="Succeeded")
    assert condition(run, "Succeeded")["status"] == "True"
    assert run["status"]["result"].startswith("{")


def test_tool_says_what_it_is_and_what_is_wrong_with_it(stage: Stage) -> None:
    stage.make("Tool", "weather", {"http": {"url": "https://api.example.com/{city}"}, "description": "Weather."})
    tool = stage.until("ftool", "weather", "Accepted")
    assert condition(tool, "Ready")["status"] == "True"
    assert stage.kubectl("get", "ftool", "weather", "--no-headers").split()[:3] == ["weather", "True", "http"]
    stage.make("Tool", "wrong", {"builtin": {"name": "sqll"}})
    tool = stage.until("ftool", "wrong", "ToolNotFound")
    assert 'did you mean "sql"?' in condition(tool, "Stalled")["message"]
    stage.make("Tool", "later", {"mcp": {"url": "https://mcp.example.com"}})
    stage.until("ftool", "later", "NotSupported")


def test_workflow_waits_for_its_tool_and_is_ready_when_it_comes(stage: Stage) -> None:
    stage.workflow("waits-for-tool", nodes=[{"name": "a", "tool": {"name": "late-tool"}}])
    waiting = stage.until("workflow", "waits-for-tool", "ToolNotFound")
    assert condition(waiting, "Reconciling")["status"] == "True"
    stage.make("Tool", "late-tool", {"builtin": {"name": "sql"}})
    first = stage.until("workflow", "waits-for-tool", "Accepted")["status"]["revision"]
    stage.change("ftool", "late-tool", description="Asks the warehouse.")
    wait_for("another revision", lambda: stage.kubectl.get("workflow", "waits-for-tool")["status"]["revision"] != first)
