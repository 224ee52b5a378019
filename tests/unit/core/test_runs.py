"""Acceptance and status of runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fairlead.api.conditions import Reason
from fairlead.core import names, runstatus
from fairlead.core.actions import Plan
from fairlead.core.references import References, collect
from fairlead.core.runstatus import Around
from fairlead.core.statuses import hindered, status_patch
from fairlead.core.workflowrun import (
    Accepted,
    Earlier,
    Rejected,
    Waiting,
    accept,
    budget_of,
    handler_seconds,
    pool_of,
    source_of,
)
from fairlead.storage.base import Run, RunState
from fairlead.testing.storage import NOW, make_run
from fairlead_agent.graph import check

NODES = [{"name": "a", "llm": {"prompt": "x"}}]


def make(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    meta = {"name": name, "namespace": "n", "uid": f"{kind}-{name}", "generation": 1}
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": meta, "spec": spec}


WORKFLOW = make(
    "Workflow", "w", {"model": "m", "nodes": NODES, "inputs": [{"name": "i", "type": "integer", "default": 1}]}
)
THERE = References(models={"m": make("Model", "m", {"model": "x"})}, agents={"g": make("Agent", "g", {})})


def decide(
    spec: dict[str, Any],
    workflow: dict[str, Any] | None = WORKFLOW,
    there: References = THERE,
    earlier: Earlier | None = None,
) -> Any:
    run = make("WorkflowRun", "r", spec)

    def find(kind: str, name: str) -> Any:
        return workflow if kind == "Workflow" else there.find(kind, name)

    source, look = source_of(run, find, earlier)
    problems = check(source.spec) if source is not None else []
    found = there if source is None else collect(source.spec, look)
    return accept(run, source, found, problems=problems, earlier=earlier)


REF = {"workflowRef": {"name": "w"}}


def test_accept_freezes_everything_under_one_digest() -> None:
    verdict = decide(REF | {"inputs": {"i": 2}})
    assert isinstance(verdict, Accepted)
    assert verdict.inputs == {"i": 2}
    assert verdict.revision == names.digest(verdict.document)
    assert verdict.document["workflow"]["uid"] == "Workflow-w"
    assert verdict.document["models"] == {"m": {"model": "x"}}
    assert verdict.document["agents"] == {}


def test_accept_takes_the_agent_along() -> None:
    workflow = make("Workflow", "w", {"model": "m", "nodes": NODES, "runsOn": {"agent": "g"}})
    verdict = decide(REF, workflow)
    assert isinstance(verdict, Accepted)
    assert verdict.document["agents"] == {"g": {}}
    assert pool_of(make("WorkflowRun", "r", {}), verdict.source, "c") == "c/n/agent/g"


def test_accept_inline_workflow_has_a_pool_of_its_own() -> None:
    verdict = decide({"workflow": {"model": "m", "nodes": NODES}})
    assert isinstance(verdict, Accepted)
    assert verdict.source.name == ""
    assert pool_of(make("WorkflowRun", "r", {}), verdict.source, "c") == "c/n/run/WorkflowRun-r"


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        pytest.param(REF | {"inputs": {"i": "two"}}, "InvalidInputs", "integer", id="type"),
        pytest.param(REF | {"inputs": {"j": 1}}, "InvalidInputs", '"j"', id="unknown"),
        pytest.param(REF | {"replyTo": {}}, "NotSupported", "spec.replyTo", id="not-built"),
        pytest.param({"workflow": {"model": "m", "nodes": []}}, "InvalidGraph", "spec.workflow.nodes", id="graph"),
        pytest.param(
            {"workflowRef": {"name": "w", "revision": "00"}}, "RevisionNotFound", "spec.workflowRef", id="old"
        ),
    ],
)
def test_accept_rejects(spec: dict[str, Any], reason: str, words: str) -> None:
    verdict = decide(spec)
    assert isinstance(verdict, Rejected)
    assert verdict.reason == reason
    assert words in verdict.message


def test_accept_waits_for_what_is_not_there() -> None:
    verdict = decide(REF, None)
    assert isinstance(verdict, Waiting)
    assert (verdict.reason, verdict.seconds) == ("WorkflowNotFound", 300)
    verdict = decide(REF, WORKFLOW, References())
    assert isinstance(verdict, Waiting)
    assert verdict.reason == "ModelNotFound"


EARLIER = Earlier(
    "uid-1",
    ended=True,
    inputs={"i": 5, "gone": 1},
    document={
        "workflow": {"name": "old", "uid": "u", "generation": 4, "spec": {"model": "m", "nodes": NODES}},
        "workflows": {},
        "agents": {},
        "models": {"m": {"model": "frozen"}},
        "tools": {},
    },
)
RERUN = {"rerunOf": {"name": "before"}}


def test_accept_rerun_takes_the_earlier_inputs_that_the_workflow_still_has() -> None:
    verdict = decide(REF | RERUN, earlier=EARLIER)
    assert isinstance(verdict, Accepted)
    assert verdict.inputs == {"i": 5}
    verdict = decide(REF | RERUN | {"inputs": {"i": 6}}, earlier=EARLIER)
    assert verdict.inputs == {"i": 6}


def test_accept_rerun_without_a_workflow_is_of_the_earlier_ones_with_the_models_of_now() -> None:
    verdict = decide(RERUN, earlier=EARLIER)
    assert isinstance(verdict, Accepted)
    assert (verdict.source.name, verdict.source.generation) == ("old", 4)
    assert verdict.document["models"] == {"m": {"model": "x"}}
    verdict = decide(RERUN, there=References(), earlier=EARLIER)
    assert verdict.document["models"] == {"m": {"model": "frozen"}}


@pytest.mark.parametrize(
    ("spec", "earlier", "reason", "words"),
    [
        pytest.param(REF | RERUN, None, "RerunNotFound", '"before"', id="unknown"),
        pytest.param(REF | RERUN, replace(EARLIER, ended=False), "RerunNotPossible", "has not ended", id="active"),
        pytest.param(RERUN, replace(EARLIER, document=None), "RerunNotPossible", "set spec.workflowRef", id="lost"),
        pytest.param(
            REF | {"rerunOf": {"name": "before", "from": "z"}},
            EARLIER,
            "NodeNotFound",
            "Failed, Start or one of a",
            id="z",
        ),
    ],
)
def test_accept_refuses_a_rerun(spec: dict[str, Any], earlier: Earlier | None, reason: str, words: str) -> None:
    verdict = decide(spec, earlier=earlier)
    assert isinstance(verdict, Rejected)
    assert verdict.reason == reason
    assert words in verdict.message


@pytest.mark.parametrize("begin", ["Failed", "Start", "a"])
def test_accept_rerun_from(begin: str) -> None:
    assert isinstance(decide(REF | {"rerunOf": {"name": "before", "from": begin}}, earlier=EARLIER), Accepted)


def test_accept_dry_run_does_not_wait_for_what_is_missing() -> None:
    verdict = decide(REF | {"dryRun": True}, WORKFLOW, References())
    assert isinstance(verdict, Accepted)
    assert verdict.document["models"] == {}


@pytest.mark.parametrize(
    ("run", "workflow", "expected"),
    [
        pytest.param({}, {}, None, id="none"),
        pytest.param({"budget": {"maxTokens": 5}}, {}, {"maxTokens": 5}, id="run"),
        pytest.param({}, {"budget": {"maxCostUSD": "0.50", "period": "Run"}}, {"maxCostUSD": "0.50"}, id="workflow"),
        pytest.param({}, {"budget": {"maxCostUSD": "0.50", "period": "Day"}}, None, id="day"),
        pytest.param(
            {"budget": {"maxCostUSD": "10", "maxTokens": 5}},
            {"budget": {"maxCostUSD": "9.5", "maxTokens": 7}},
            {"maxCostUSD": "9.5", "maxTokens": 5},
            id="strictest-as-numbers",
        ),
    ],
)
def test_budget_of(run: dict[str, Any], workflow: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert budget_of(run, workflow) == expected


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        ({}, 0),
        ({"finally": {"tool": {}}}, 60),
        ({"nodes": [{"workflow": {"name": "inner"}}, {"workflow": {"name": "outer"}}], "finally": {}}, 9 + 40 + 0),
        ({"onFailure": {"workflow": {"name": "inner"}, "timeoutSeconds": 1, "retry": {"limit": 1}}}, 2 * (1 + 9) + 1),
        ({"finally": {"timeoutSeconds": 5}, "onFailure": {"timeoutSeconds": 7}}, 12),
        ({"finally": {"timeoutSeconds": 5, "retry": {}}}, 4 * 5 + 1 + 2 + 4),
        ({"finally": {"timeoutSeconds": 5, "retry": {"limit": 2, "backoffSeconds": 9, "maxBackoffSeconds": 10}}}, 34),
    ],
)
def test_handler_seconds(spec: dict[str, Any], seconds: float) -> None:
    inner = {"nodes": [], "finally": {"timeoutSeconds": 9}}
    outer = {"nodes": [{"workflow": {"name": "inner"}}], "onFailure": {"timeoutSeconds": 40}}
    document = {"workflow": {"spec": spec}, "workflows": {"inner": inner, "outer": outer}}
    assert handler_seconds(document) == seconds


def conditions(plan: Plan) -> dict[str, tuple[str, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in plan.conditions}


def summary(**changes: Any) -> Plan:
    return runstatus.summarize(make_run(**changes), Around(agent="g"), generation=1)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, {"Succeeded": ("Unknown", "Queued"), "Reconciling": ("True", "Queued")}, id="queued"),
        pytest.param(
            {"state": RunState.RUNNING, "pod": "p", "attempt": 1},
            {"Succeeded": ("Unknown", "Running"), "Reconciling": ("True", "Running")},
            id="running",
        ),
        pytest.param(
            {"attempt": 1},
            {"Succeeded": ("Unknown", "Recovering"), "Reconciling": ("True", "Recovering")},
            id="recovering",
        ),
        pytest.param(
            {"state": RunState.RUNNING, "cancel_reason": "Cancelled"},
            {"Succeeded": ("Unknown", "Stopping"), "Reconciling": ("True", "Stopping")},
            id="stopping",
        ),
        pytest.param(
            {"state": RunState.RUNNING, "parked": "Approval", "pending_approvals": 1},
            {
                "Succeeded": ("Unknown", "WaitingForApproval"),
                "WaitingForApproval": ("True", "ApprovalPending"),
                "Reconciling": ("True", "WaitingForApproval"),
            },
            id="approval",
        ),
        pytest.param(
            {"state": RunState.RUNNING, "pod": "p", "attempt": 1, "pending_approvals": 1},
            {
                "Succeeded": ("Unknown", "Running"),
                "WaitingForApproval": ("True", "ApprovalPending"),
                "Reconciling": ("True", "Running"),
            },
            id="approval-beside-other-work",
        ),
        pytest.param(
            {"state": RunState.RUNNING, "parked": "Turn"},
            {"Succeeded": ("Unknown", "Waiting"), "Reconciling": ("True", "Waiting")},
            id="turn",
        ),
        pytest.param(
            {"state": RunState.RUNNING, "parked": "Approval", "suspended": True},
            {"Succeeded": ("Unknown", "Suspended"), "Reconciling": ("True", "Suspended")},
            id="suspended",
        ),
        pytest.param(
            {"suspended": True},
            {"Succeeded": ("Unknown", "Suspended"), "Reconciling": ("True", "Suspended")},
            id="suspended-from-the-start",
        ),
        pytest.param(
            {"state": RunState.RUNNING, "parked": "Time", "cancel_reason": "Cancelled"},
            {"Succeeded": ("Unknown", "Stopping"), "Reconciling": ("True", "Stopping")},
            id="stopping-while-it-waits",
        ),
        pytest.param(
            {"state": RunState.SUCCEEDED, "reason": "DryRun", "finished_at": NOW},
            {"Succeeded": ("True", "DryRun")},
            id="dry-run",
        ),
        pytest.param(
            {"state": RunState.SUCCEEDED, "finished_at": NOW},
            {"Succeeded": ("True", "Succeeded")},
            id="succeeded",
        ),
        pytest.param(
            {"state": RunState.FAILED, "reason": "NodeFailed", "message": "no", "finished_at": NOW},
            {"Succeeded": ("False", "NodeFailed"), "Stalled": ("True", "NodeFailed")},
            id="failed",
        ),
        pytest.param(
            {"state": RunState.CANCELLED, "reason": "Cancelled", "finished_at": NOW},
            {"Succeeded": ("False", "Cancelled")},
            id="cancelled",
        ),
    ],
)
def test_summarize_conditions(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    found = conditions(summary(**changes))
    finished = found.pop("Finished")
    assert finished[0] == ("True" if "finished_at" in changes else "False")
    assert found == expected


def test_summarize_a_reason_that_no_condition_may_have_is_not_written() -> None:
    failed = summary(state=RunState.FAILED, reason="not a reason!", message="m", finished_at=NOW)
    assert conditions(failed)["Succeeded"] == ("False", "InternalError")


def test_summarize_fields() -> None:
    end = NOW + timedelta(minutes=2, seconds=5)
    status = summary(
        state=RunState.SUCCEEDED,
        finished_at=end,
        done=4,
        total=7,
        cost=13_400_000_000,
        input_tokens=3,
        output_tokens=4,
        output={"a": 1},
        attempt=2,
        pod="p",
    ).status
    assert status["cost"] == {"total": "0.0134", "currency": "USD"}
    assert (status["progress"], status["duration"], status["result"]) == ("4/7", "2m5s", '{"a":1}')
    assert status["usage"] == {"inputTokens": 3, "outputTokens": 4}


def test_summarize_says_what_people_decide_and_what_may_be_spent() -> None:
    record = make_run(state=RunState.RUNNING, pending_approvals=5, reused=2, current=("a[%5B]/b", "@finally"))
    around = Around(agent="", asks=tuple(f'node "n{n}" asks: {"?" * 400}' for n in range(5)), budget={"maxTokens": 3})
    plan = runstatus.summarize(record, around, generation=1)
    message = next(found.message for found in plan.conditions if found.type == "WaitingForApproval")
    assert 'node "n2" asks' in message
    assert "(and 2 more): see `fairlead approvals`" in message
    assert len(message) <= 1000
    status = plan.status
    assert (status["pendingApprovals"], status["reused"], status["budget"]) == (5, 2, {"maxTokens": 3})
    assert status["currentNodes"] == ["a[%5B]/b", "@finally"]
    ended = runstatus.summarize(replace(record, finished_at=NOW, state=RunState.FAILED), around, generation=1)
    assert ended.status["pendingApprovals"] is None
    assert "WaitingForApproval" not in conditions(ended)


def test_waiting_for_approval_is_only_there_while_it_is_true() -> None:
    run = make("WorkflowRun", "r", {})
    run["status"] = status_patch(run, summary(state=RunState.RUNNING, pending_approvals=1), now=NOW)
    after = status_patch(run, summary(state=RunState.RUNNING), now=NOW)
    assert "WaitingForApproval" not in {found["type"] for found in after["conditions"]}


def test_summarize_leaves_out_what_there_is_nothing_to_say_of() -> None:
    running = make("WorkflowRun", "r", {}) | {"status": {"currentNodes": ["a"]}}
    ended = status_patch(running, summary(state=RunState.SUCCEEDED, finished_at=NOW), now=NOW)
    assert ended["currentNodes"] is None
    assert not {"currentNodes", "progress"} & set(status_patch(make("WorkflowRun", "r", {}), summary(), now=NOW))


def test_summarize_says_that_answers_are_scripted() -> None:
    texts = {
        count: next(found.message for found in summary(state=RunState.SUCCEEDED, scripted_calls=count).conditions)
        for count in (0, 3)
    }
    assert texts[0] == "The run ended as it should."
    assert texts[3] == "The run ended as it should. Its answers are scripted: no model was asked."
    assert runstatus.event_of(make_run(state=RunState.SUCCEEDED, scripted_calls=3))[1] == texts[3]


def test_summarize_a_run_that_is_suspended_while_a_pod_has_it_says_so() -> None:
    holds = {"state": RunState.RUNNING, "pod": "p", "attempt": 1}
    texts = [summary(**holds, suspended=suspended).conditions[0].message for suspended in (False, True)]
    assert texts[0] == "Pod p has the run."
    assert texts[1].startswith("Pod p has the run. It is suspended: nothing new starts")


def test_summarize_an_unknown_price_is_never_zero() -> None:
    assert summary(cost=5, unpriced_calls=1).status["cost"]["total"] == "n/a"


@given(
    message=st.text(max_size=5000),
    output=st.text(max_size=5000),
    names=st.lists(st.text(max_size=200), max_size=40),
)
@example(message="\0" * 5000, output="\0" * 5000, names=["a" * 200] * 40)
@example(message='"' * 5000, output='\n"' * 5000, names=['"' * 200] * 40)
@example(message="\N{GRINNING FACE}" * 5000, output="\N{GRINNING FACE}" * 5000, names=["\N{GRINNING FACE}" * 63] * 40)
def test_status_stays_under_eight_kibibytes(message: str, output: str, names: list[str]) -> None:
    run: Run = make_run(state=RunState.FAILED, message=message, output=output, finished_at=NOW, current=tuple(names))
    around = Around(agent="g" * 253, waits_for=message, asks=(message,) * 9)
    for record in (run, replace(run, state=RunState.RUNNING, finished_at=None, pending_approvals=10**6)):
        plan = runstatus.summarize(record, around, generation=1)
        patch = status_patch(make("WorkflowRun", "r", {}), plan, now=NOW)
        assert len(orjson.dumps(patch)) < 8192
        assert len(str(patch.get("result", ""))) <= 1024


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.85, "850ms"), (12, "12s"), (60, "1m"), (185, "3m5s"), (7200, "2h"), (7800, "2h10m"), (-1, "0ms")],
)
def test_duration(seconds: float, text: str) -> None:
    assert runstatus.duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0"), (1, "0.000000000001"), (10**12, "1"), (1_500_000_000_000, "1.5")]
)
def test_dollars_are_exact(amount: int, text: str) -> None:
    assert runstatus.dollars(amount) == text


def test_status_patch_says_nothing_twice_and_keeps_transition_times() -> None:
    run = make("WorkflowRun", "r", {})
    plan = summary()
    run["status"] = status_patch(run, plan, now=NOW)
    assert status_patch(run, plan, now=NOW + timedelta(hours=1)) == {}
    changed = status_patch(run, summary(state=RunState.RUNNING), now=NOW + timedelta(hours=1))
    times = {found["type"]: found["lastTransitionTime"] for found in changed["conditions"]}
    assert times["Succeeded"] == run["status"]["conditions"][0]["lastTransitionTime"]


def test_hindered_says_so_in_the_summary_of_the_kind() -> None:
    for kind, summary_type in (("WorkflowRun", "Succeeded"), ("Agent", "Ready")):
        found = conditions(hindered(kind, Reason.PROGRESSING_WITH_RETRY, "later", generation=1))
        assert found[summary_type][1] == "ProgressingWithRetry"
        assert found["Reconciling"] == ("True", "ProgressingWithRetry")


@pytest.mark.parametrize(
    ("changes", "reason", "warning"),
    [
        ({"state": RunState.SUCCEEDED}, "RunSucceeded", False),
        ({"state": RunState.FAILED, "reason": "NodeFailed"}, "RunFailed", True),
        ({"state": RunState.CANCELLED}, "RunCancelled", False),
    ],
)
def test_event_of(changes: dict[str, Any], reason: str, *, warning: bool) -> None:
    found = runstatus.event_of(make_run(**changes))
    assert (found[0], found[2]) == (reason, warning)
