"""Workflows, Agents and Models: what the operator makes of them and says of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fairlead.testing.kubectl import condition, wait_for

if TYPE_CHECKING:
    from conftest import Play, Stage


async def test_agent_gets_its_pod_and_is_ready_when_it_registers(play: Play) -> None:
    stage = play.stage
    stage.make("Agent", "warm", {"scale": {"min": 1}, "concurrency": 3, "pod": {"labels": {"team": "a"}}})
    pod = stage.pod(agent="warm")
    stage.until("fagent", "warm", "ScalingUp")
    assert pod["metadata"]["name"] == "warm-0"
    assert pod["metadata"]["labels"]["team"] == "a"
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["metadata"]["ownerReferences"][0]["name"] == "warm"
    await play.register(pod)
    agent = stage.until("fagent", "warm", "Available")
    assert agent["status"]["pods"] == "1/1"
    assert condition(agent, "Reconciling") == {}
    row = stage.kubectl("get", "fagent", "warm", "--no-headers").split()
    assert row[:4] == ["warm", "True", "1/1", "0"]


async def test_agent_that_changes_replaces_its_pod(play: Play) -> None:
    stage = play.stage
    stage.make("Agent", "changing", {})
    before = stage.pod(agent="changing")
    await play.register(before)
    stage.until("fagent", "changing", "Available")
    stage.change("fagent", "changing", concurrency=9)

    def replaced() -> dict[str, Any] | None:
        pods = stage.kubectl.list("pods", "-l", "fairlead.dev/agent=changing")
        return next((pod for pod in pods if pod["metadata"]["uid"] != before["metadata"]["uid"]), None)

    pod = wait_for("the new pod", replaced)
    env = {entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][0]["env"]}
    assert env["FAIRLEAD_CONCURRENCY"] == "9"


def test_agent_that_shrinks_and_goes_takes_its_pods_along(stage: Stage) -> None:
    stage.make("Agent", "shrinking", {"scale": {"min": 2}})
    wait_for("two pods", lambda: len(stage.kubectl.list("pods", "-l", "fairlead.dev/agent=shrinking")) == 2)
    stage.change("fagent", "shrinking", scale={"min": 0})
    wait_for("no pods", lambda: not stage.kubectl.list("pods", "-l", "fairlead.dev/agent=shrinking"))
    stage.until("fagent", "shrinking", "ScaledToZero")


def test_agent_with_what_is_not_built_is_refused(stage: Stage) -> None:
    stage.make("Agent", "foreign", {"memory": {"scope": "workflow"}})
    agent = stage.until("fagent", "foreign", "NotSupported")
    assert "spec.memory" in condition(agent, "Stalled")["message"]
    assert not stage.kubectl.list("pods", "-l", "fairlead.dev/agent=foreign")


def test_agent_tells_why_its_pod_does_not_start(stage: Stage) -> None:
    stage.make("Agent", "stuck", {})
    pod = stage.pod(agent="stuck")
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    status = {"containerStatuses": [{"name": "agent", "image": "x", "imageID": "", "ready": False, "restartCount": 0}]}
    status["containerStatuses"][0]["state"] = {"waiting": waiting}  # type: ignore[assignment]  # JSON
    patch = json.dumps({"status": status})
    stage.kubectl("patch", "pod", pod["metadata"]["name"], "--subresource=status", "--type=merge", "-p", patch)
    agent = stage.until("fagent", "stuck", "ImagePullFailed")
    assert "no such image" in condition(agent, "Ready")["message"]


def test_workflow_with_a_cycle_stalls_and_costs_nothing_more(stage: Stage) -> None:
    nodes = [
        {"name": "a", "needs": ["b"], "llm": {"prompt": "x"}},
        {"name": "b", "needs": ["a"], "llm": {"prompt": "x"}},
    ]
    stage.workflow("cyclic", nodes=nodes)
    workflow = stage.until("flow", "cyclic", "InvalidGraph")
    assert condition(workflow, "Stalled")["status"] == "True"
    assert "cycle" in condition(workflow, "Ready")["message"]
    assert "spec.nodes[" in condition(workflow, "Ready")["message"]
    if stage.cluster.embedded:
        assert len([record for record in stage.calls() if record["name"] == "cyclic"]) == 1
        before = len(writes_of_runs(stage))
        stage.run("cyclic-run", workflowRef={"name": "cyclic"})
        stage.until("run", "cyclic-run", "InvalidGraph", of="Succeeded")
        assert len(writes_of_runs(stage)) - before == 1  # its status; other tests' pods do not count


def writes_of_runs(stage: Stage) -> list[dict[str, Any]]:
    return [record for record in stage.writes() if record["resource"] == "workflowruns"]


def test_workflow_waits_for_its_model_and_goes_on_when_it_comes(stage: Stage) -> None:
    stage.workflow("waiting", model="later")
    workflow = stage.until("flow", "waiting", "ModelNotFound")
    assert condition(workflow, "Reconciling")["status"] == "True"
    assert 'Model "later"' in condition(workflow, "Ready")["message"]
    stage.make("Model", "later", {"model": "ollama_chat/llama3.2"})
    workflow = stage.until("flow", "waiting", "Accepted")
    assert len(workflow["status"]["revision"]) == 64
    assert "annotations" not in workflow["metadata"]
    assert "finalizers" not in workflow["metadata"]


def test_workflow_with_an_unknown_tool_stalls(stage: Stage) -> None:
    stage.workflow("tooled", nodes=[{"name": "x", "tool": {"name": "teleport"}}])
    workflow = stage.until("flow", "tooled", "ToolNotFound")
    assert "teleport" in condition(workflow, "Ready")["message"]


def test_workflow_on_apply_starts_once_for_each_generation(stage: Stage) -> None:
    stage.workflow("eager", startPolicy="OnApply")
    first = stage.until("flow", "eager", "Accepted")["status"]["lastRun"]
    run = wait_for("the run", lambda: stage.kubectl.get("run", first))
    assert run["metadata"]["ownerReferences"][0]["name"] == "eager"
    stage.kubectl("label", "flow", "eager", "touched=yes")
    stage.change("flow", "eager", description="new")
    wait_for("the second run", lambda: len(runs_of(stage, "eager")) == 2)
    assert stage.kubectl.get("flow", "eager")["status"]["lastStartedGeneration"] == 2  # type: ignore[index]


def test_workflow_forgets_runs_over_its_history_limits(stage: Stage) -> None:
    stage.workflow("short", startPolicy="OnApply", failedRunsHistoryLimit=1)
    name = ""
    for number in range(3):
        if number:
            stage.change("flow", "short", description=f"number {number}")
        name = wait_for("another run", lambda before=name: newer_run(stage, before))
        stage.change("run", name, stop=True)
        stage.until("run", name, "Cancelled", of="Succeeded")
    wait_for("one run", lambda: runs_of(stage, "short") == [name])


def newer_run(stage: Stage, before: str) -> str | None:
    status = (stage.kubectl.get("flow", "short") or {}).get("status") or {}
    name = status.get("lastRun", "")
    return name if name != before and stage.kubectl.get("run", name) else None


def runs_of(stage: Stage, workflow: str) -> list[str]:
    return [run["metadata"]["name"] for run in stage.kubectl.list("run", "-l", f"fairlead.dev/workflow={workflow}")]
