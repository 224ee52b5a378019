"""Plans of the declared kinds: what changes, what is said, and that a second pass does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from fairlead.api.conditions import Reason
from fairlead.core import names
from fairlead.core.actions import Create, Delete, Plan
from fairlead.core.manifests import PodSettings, build_event, build_pool_pod, build_run_pod, build_started_run
from fairlead.core.model import plan_model, trouble_of
from fairlead.core.pool import is_over
from fairlead.core.references import References
from fairlead.core.statuses import status_patch
from fairlead.core.workflow import Observed, plan_workflow
from fairlead.core.workflowrun import plan_run_pods
from fairlead_agent.graph import check

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SETTINGS = PodSettings(image="agent:1", pull_policy="IfNotPresent", gateway_url="https://g", gateway_ca="pem")
NODES = [{"name": "a", "llm": {"prompt": "x"}}]


def make(kind: str, name: str, spec: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "n", "uid": f"{kind}-{name}", "generation": 1, "resourceVersion": "1"}
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": meta, "spec": dict(spec), **more}


MODEL = make("Model", "m", {"model": "ollama_chat/x"})
THERE = References(models={"m": MODEL})


def ready(plan: Plan) -> tuple[str, str]:
    found = {condition.type: condition for condition in plan.conditions}
    return found["Ready"].status, found["Ready"].reason


def observed(workflow: dict[str, Any], there: References = THERE, runs: tuple[Any, ...] = ()) -> Observed:
    return Observed(problems=check(workflow["spec"]), there=there, runs=runs)


def with_status(obj: dict[str, Any], plan: Plan) -> dict[str, Any]:
    return obj | {"status": {**obj.get("status", {}), **status_patch(obj, plan, now=NOW)}}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({"model": "ollama_chat/x"}, ("True", "Accepted"), id="provider"),
        pytest.param({"scripted": {"responses": [{"reply": "x"}]}}, ("True", "Accepted"), id="scripted"),
        pytest.param({"model": "x", "fallbacks": ["y"]}, ("True", "Accepted"), id="fallbacks"),
        pytest.param({"scripted": {"responses": [{"match": "(", "reply": "x"}]}}, ("False", "InvalidSpec"), id="regex"),
        pytest.param({"model": "x", "fallbacks": ["m"]}, ("False", "InvalidSpec"), id="itself"),
    ],
)
def test_plan_model(spec: dict[str, Any], expected: tuple[str, str]) -> None:
    model = make("Model", "m", spec)
    plan = plan_model(model)
    assert ready(plan) == expected
    assert status_patch(with_status(model, plan), plan_model(with_status(model, plan)), now=NOW) == {}


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ({"valueFrom": {"secretKeyRef": {"name": "keys", "key": "openai"}}}, 'key openai of the Secret "keys"'),
        (None, "requests without a key: name its Secret in spec.apiKey"),
    ],
)
def test_trouble_of_a_key_says_where_it_is(key: dict[str, Any] | None, words: str) -> None:
    trouble = trouble_of("AuthenticationFailed", make("Model", "m", {"model": "x", "apiKey": key}))
    assert trouble is not None
    assert words in trouble[1]


def test_plan_model_waits_for_its_fallbacks() -> None:
    plan = plan_model(make("Model", "m", {"model": "x"}), lacking=(Reason.MODEL_NOT_FOUND, "no"))
    assert ready(plan) == ("False", "ModelNotFound")
    assert {condition.type for condition in plan.conditions} == {"Ready", "Reconciling"}


@pytest.mark.parametrize(
    ("spec", "there", "expected"),
    [
        pytest.param({"model": "m", "nodes": NODES}, THERE, ("True", "Accepted"), id="valid"),
        pytest.param({"model": "m", "nodes": NODES}, References(), ("False", "ModelNotFound"), id="no-model"),
        pytest.param(
            {"nodes": NODES, "model": "m", "runsOn": {"agent": "b"}}, THERE, ("False", "AgentNotFound"), id="no-agent"
        ),
        pytest.param({"nodes": NODES}, THERE, ("False", "InvalidGraph"), id="llm-without-model"),
        pytest.param(
            {"model": "m", "nodes": [{"name": "a", "needs": ["z"], "llm": {"prompt": "x"}}]},
            THERE,
            ("False", "InvalidGraph"),
            id="unknown-need",
        ),
        pytest.param({"model": "m", "nodes": NODES, "memory": {}}, THERE, ("False", "NotSupported"), id="not-built"),
        pytest.param({"nodes": [{"name": "a", "tool": {"name": "no"}}]}, THERE, ("False", "ToolNotFound"), id="tool"),
        pytest.param(
            {"model": "m", "nodes": NODES},
            References(models={"m": make("Model", "m", {"model": "x", "fallbacks": ["y"]})}),
            ("False", "ModelNotFound"),
            id="no-fallback",
        ),
        pytest.param(
            {"nodes": [{"name": "a", "tool": {"name": "t"}}]},
            References(tools={"t": make("Tool", "t", {"mcp": {"url": "https://x"}})}),
            ("False", "NotSupported"),
            id="tool-that-cannot-be-used",
        ),
    ],
)
def test_plan_workflow(spec: dict[str, Any], there: References, expected: tuple[str, str]) -> None:
    workflow = make("Workflow", "w", spec)
    plan = plan_workflow(workflow, observed(workflow, there))
    assert ready(plan) == expected
    assert plan.actions == ()


def test_plan_workflow_missing_is_reconciling_and_wrong_is_stalled() -> None:
    waiting = make("Workflow", "w", {"model": "m", "nodes": NODES})
    plan = plan_workflow(waiting, observed(waiting, References()))
    assert {condition.type for condition in plan.conditions} == {"Ready", "Reconciling"}
    wrong = make("Workflow", "w", {"nodes": []})
    plan = plan_workflow(wrong, observed(wrong))
    assert {condition.type for condition in plan.conditions} == {"Ready", "Stalled"}


def test_plan_workflow_on_apply_starts_once() -> None:
    workflow = make("Workflow", "w", {"model": "m", "nodes": NODES, "startPolicy": "OnApply"})
    first = plan_workflow(workflow, observed(workflow))
    assert first.actions == (Create(build_started_run(workflow)),)
    after = with_status(workflow, first)
    assert plan_workflow(after, observed(after)).actions == ()
    changed = {**after, "metadata": {**after["metadata"], "generation": 2}}
    (again,) = plan_workflow(changed, observed(changed)).actions
    assert isinstance(again, Create)
    assert again.obj["metadata"]["name"] != first.actions[0].obj["metadata"]["name"]


def test_plan_workflow_revision_follows_what_it_uses() -> None:
    workflow = make("Workflow", "w", {"model": "m", "nodes": NODES})
    other = References(models={"m": make("Model", "m", {"model": "other"})})
    revisions = {plan_workflow(workflow, observed(workflow, there)).status["revision"] for there in (THERE, other)}
    assert len(revisions) == 2


def run_of(workflow: dict[str, Any], name: str, *, succeeded: str, ended: str) -> dict[str, Any]:
    owner = [{"uid": workflow["metadata"]["uid"], "controller": True, "kind": "Workflow"}]
    conditions = [{"type": "Succeeded", "status": succeeded}, {"type": "Finished", "status": "True"}]
    run = make("WorkflowRun", name, {}, status={"completionTime": ended, "conditions": conditions})
    run["metadata"]["ownerReferences"] = owner
    return run


def test_plan_workflow_prunes_the_oldest_of_its_own_finished_runs() -> None:
    workflow = make("Workflow", "w", {"model": "m", "nodes": NODES, "successfulRunsHistoryLimit": 1})
    runs = [run_of(workflow, f"r{n}", succeeded="True", ended=f"2026-01-0{n}T00:00:00Z") for n in (1, 3, 2)]
    failed = run_of(workflow, "failed", succeeded="False", ended="2025-01-01T00:00:00Z")
    foreign = make("WorkflowRun", "foreign", {}, status=runs[0]["status"])
    active = run_of(workflow, "active", succeeded="True", ended="")
    active["status"]["conditions"] = []
    plan = plan_workflow(workflow, observed(workflow, runs=(*runs, failed, foreign, active)))
    assert [action.obj["metadata"]["name"] for action in plan.actions] == ["r2", "r1"]


def test_names_of_children_fit_whatever_the_parent_is_called() -> None:
    long = make("Agent", "x" * 253, {})
    pod = build_pool_pod(long, 7, SETTINGS)
    assert len(pod["metadata"]["name"]) <= 63
    assert len(pod["metadata"]["labels"][names.AGENT_LABEL]) <= 63
    assert names.agent_pool("c", "n", "x" * 253) == names.agent_pool(
        "c", "n", pod["metadata"]["labels"][names.AGENT_LABEL]
    )


def test_plan_run_pods_one_while_wanted_and_a_new_name_for_each_claim() -> None:
    run = make("WorkflowRun", "r", {})
    (first,) = plan_run_pods(run, [], number=0, wanted=True, settings=SETTINGS)
    assert isinstance(first, Create)
    assert first.obj == build_run_pod(run, 0, SETTINGS)
    pod = {**first.obj, "status": {"phase": "Running"}}
    assert plan_run_pods(run, [pod], number=1, wanted=True, settings=SETTINGS) == ()
    (gone,) = plan_run_pods(run, [pod | {"status": {"phase": "Failed"}}], number=1, wanted=True, settings=SETTINGS)
    assert isinstance(gone, Delete)
    (second,) = plan_run_pods(run, [], number=1, wanted=True, settings=SETTINGS)
    assert second.obj["metadata"]["name"] != first.obj["metadata"]["name"]
    assert plan_run_pods(run, [], number=1, wanted=False, settings=SETTINGS) == ()
    assert plan_run_pods(run, [], number=1, wanted=True, settings=None) == ()


def beside_a_proxy(run: dict[str, Any], **state: Any) -> dict[str, Any]:
    """Return a run's pod into which a cluster has injected a proxy that never ends."""
    containers = [{"name": "istio-proxy", "state": {"running": {}}}, {"name": "agent", "state": state}]
    return {**build_run_pod(run, 0, SETTINGS), "status": {"phase": "Running", "containerStatuses": containers}}


def test_plan_run_pods_one_whose_agent_has_ended_makes_room_whatever_runs_on_beside_it() -> None:
    run = make("WorkflowRun", "r", {})
    pod = beside_a_proxy(run, terminated={"exitCode": 0})
    for wanted in (True, False):
        assert [type(one) for one in plan_run_pods(run, [pod], number=1, wanted=wanted, settings=SETTINGS)] == [Delete]
    leaving = {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert plan_run_pods(run, [leaving], number=1, wanted=False, settings=SETTINGS) == ()
    ended = {**pod, "status": {**pod["status"], "phase": "Succeeded"}}
    assert plan_run_pods(run, [ended], number=1, wanted=False, settings=SETTINGS) == ()  # its log can still be read


@pytest.mark.parametrize(
    ("state", "policy", "over"),
    [
        pytest.param({"terminated": {"exitCode": 0}}, "OnFailure", True, id="done"),
        pytest.param({"terminated": {"exitCode": 1}}, "OnFailure", False, id="is-started-again"),
        pytest.param({"terminated": {"exitCode": 1}}, "Never", True, id="failed-for-good"),
        pytest.param({"terminated": {"exitCode": 0}}, "Always", False, id="a-pools"),
        pytest.param({"waiting": {"reason": "CrashLoopBackOff"}}, "OnFailure", False, id="crashing"),
        pytest.param({"running": {}}, "OnFailure", False, id="running"),
        pytest.param({}, "OnFailure", False, id="not-known"),
    ],
)
def test_is_over_looks_only_at_the_agent(state: dict[str, Any], policy: str, *, over: bool) -> None:
    pod = beside_a_proxy(make("WorkflowRun", "r", {}), **state)
    pod["spec"]["restartPolicy"] = policy
    assert is_over(pod) is over


def test_build_event_note_has_as_many_bytes_as_a_server_takes() -> None:
    about = make("Workflow", "w", {})
    event = build_event(about, reason="R", message="…" * 1000, warning=True, at=NOW, reporter="r")
    assert event["note"] == "…" * 341
    assert len(event["note"].encode()) <= 1024
