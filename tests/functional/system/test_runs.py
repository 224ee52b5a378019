"""Runs from `kubectl apply` to their result, over real processes: what a user sees, and what it costs the cluster."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from typing import Any

import pytest

from fairlead.testing.kubectl import condition, wait_for
from fairlead.testing.system import System

API = "fairlead.dev/v1alpha1"
MAX_WRITES = 6


def model(name: str, *, latency_ms: int = 0) -> dict[str, Any]:
    responses = [{"match": "slow", "reply": "done", "latencyMs": latency_ms}, {"reply": "done"}]
    spec = {"scripted": {"responses": responses, "usage": {"inputTokens": 10, "outputTokens": 5}}}
    return {"apiVersion": API, "kind": "Model", "metadata": {"name": name}, "spec": spec}


def agent(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": API, "kind": "Agent", "metadata": {"name": name}, "spec": {"concurrency": 8, **spec}}


def workflow(name: str, nodes: list[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    given = {"model": "system", "runsOn": {"agent": "system"}, "nodes": nodes, **spec}
    return {"apiVersion": API, "kind": "Workflow", "metadata": {"name": name}, "spec": given}


COUNT = {"name": "json_query", "arguments": {"data": [1, 2, 3], "expression": "length(@)"}}
FIVE_NODES: list[dict[str, Any]] = [
    {"name": "a", "llm": {"prompt": "first {{ inputs.message }}"}},
    {"name": "b", "needs": ["a"], "llm": {"prompt": "second {{ outputs.a }}"}},
    {"name": "c", "needs": ["a"], "llm": {"prompt": "third {{ outputs.a }}"}},
    {"name": "d", "needs": ["b", "c"], "tool": COUNT},
    {"name": "e", "needs": ["d"], "llm": {"prompt": "last {{ outputs.d }}"}},
]


@pytest.fixture(scope="module", autouse=True)
def pool(system: System) -> None:
    """One model and one warm pool for every test here."""
    system.kubectl.apply(model("system", latency_ms=2000), agent("system"))
    system.kubectl("wait", "agents.fairlead.dev/system", "--for=condition=Ready", "--timeout=60s")


def ready(system: System, name: str, nodes: list[dict[str, Any]], **spec: Any) -> None:
    system.kubectl.apply(workflow(name, nodes, **spec))
    system.kubectl("wait", f"workflow/{name}", "--for=condition=Ready", "--timeout=30s")


def journal(system: System, uid: str) -> list[dict[str, Any]]:
    """Read a run's journal from storage, past everything that could hide something."""
    with sqlite3.connect(system.storage_url.removeprefix("sqlite:///")) as database:
        rows = database.execute(
            "SELECT j.entry FROM journal j JOIN tasks t ON t.id = j.task_id WHERE t.run_uid = ? ORDER BY j.seq", (uid,)
        ).fetchall()
    return [json.loads(row[0]) for row in rows]


def test_run_from_apply_to_result(system: System) -> None:
    ready(system, "five", FIVE_NODES, inputs=[{"name": "message", "required": True}], output="{{ outputs.d }}")
    run = system.finished(system.start_run("five", inputs={"message": "hello"}))
    status = run["status"]
    summary = condition(run, "Succeeded")
    assert (summary["status"], summary["reason"]) == ("True", "Succeeded")
    assert (status["progress"], status["result"]) == ("5/5", "3")
    assert status["usage"] == {"inputTokens": 40, "outputTokens": 20}
    assert not condition(run, "Reconciling")
    assert len(json.dumps(status)) < 8192
    assert not {"finalizers", "annotations"} & set(run["metadata"])
    row = system.kubectl("get", "run", run["metadata"]["name"], "--no-headers").split()
    assert row[1:4] == ["five", "Succeeded", "5/5"]


def test_run_of_five_nodes_costs_at_most_six_writes(system: System) -> None:
    if not system.cluster.embedded:
        pytest.skip("another cluster's audit log cannot be read from here")
    ready(system, "counted", FIVE_NODES, inputs=[{"name": "message", "default": "hello"}])
    before = len(system.writes())
    system.finished(system.start_run("counted"))
    made = [each for each in system.writes()[before:] if each["namespace"] == system.kubectl.namespace]
    assert 1 <= len(made) <= MAX_WRITES, made


def test_run_with_a_misspelt_input_says_what_is_missing(system: System) -> None:
    ready(system, "strict", FIVE_NODES, inputs=[{"name": "message", "required": True}])
    run = system.finished(system.start_run("strict", inputs={"mesage": "typo"}))
    summary = condition(run, "Succeeded")
    assert summary["status"] == "False"
    assert "message" in summary["message"]
    assert condition(run, "Stalled")["status"] == "True"


def test_run_goes_on_where_a_killed_agent_left_it(system: System) -> None:
    nodes = [
        {"name": "before", "llm": {"prompt": "quick"}},
        {"name": "during", "needs": ["before"], "llm": {"prompt": "slow one"}},
        {"name": "after", "needs": ["during"], "llm": {"prompt": "quick {{ outputs.during }}"}},
    ]
    ready(system, "interrupted", nodes)
    name = system.start_run("interrupted")
    run = system.kubectl.get("workflowrun", name)
    assert run is not None
    uid = run["metadata"]["uid"]
    wait_for(
        "the second node",
        lambda: [e for e in journal(system, uid) if e["kind"] == "NodeStarted" and e["node"] == "during"],
    )
    pod = system.kubectl.list("pods", "-l", "fairlead.dev/agent=system")[0]
    system.players.kill(pod["metadata"]["uid"])
    run = system.finished(name, seconds=90)
    assert condition(run, "Succeeded")["status"] == "True"
    ends = Counter(e["node"] for e in journal(system, uid) if e["kind"] == "NodeFinished")
    assert ends == {"before": 1, "during": 1, "after": 1}
    assert run["status"]["attempt"] == 2


def test_deleted_run_is_cancelled_and_its_history_stays(system: System) -> None:
    ready(system, "deleted", [{"name": "only", "llm": {"prompt": "slow one"}, "retry": {"limit": 1}}])
    name = system.start_run("deleted")
    run = wait_for("the run's status", lambda: (system.kubectl.get("workflowrun", name) or {}).get("status") and name)
    uid = (system.kubectl.get("workflowrun", run) or {})["metadata"]["uid"]
    system.kubectl("delete", "run", name)

    def state() -> str:
        with sqlite3.connect(system.storage_url.removeprefix("sqlite:///")) as database:
            return str(database.execute("SELECT state FROM runs WHERE uid = ?", (uid,)).fetchone()[0])

    wait_for("the end in storage", lambda: state() in {"Cancelled", "Succeeded"})


def test_run_without_a_pool_gets_a_pod_of_its_own(system: System) -> None:
    given = workflow("alone", [{"name": "only", "llm": {"prompt": "quick"}}])
    del given["spec"]["runsOn"]
    system.kubectl.apply(given)
    name = system.start_run("alone")
    run = system.finished(name, seconds=90)
    assert condition(run, "Succeeded")["status"] == "True"
    assert run["status"]["agentPod"].startswith(name)


def test_operator_killed_in_the_middle_finishes_the_run(system: System) -> None:
    ready(system, "restarted", [{"name": "only", "llm": {"prompt": "slow one"}}])
    name = system.start_run("restarted")
    wait_for("the start", lambda: condition(system.kubectl.get("workflowrun", name), "Succeeded"))
    system.operator.kill()
    system.operator.start()
    assert condition(system.finished(name, seconds=90), "Succeeded")["status"] == "True"


def test_gateway_killed_in_the_middle_finishes_the_run(system: System) -> None:
    ready(system, "rerouted", [{"name": "only", "llm": {"prompt": "slow one"}}])
    name = system.start_run("rerouted")
    wait_for("the start", lambda: condition(system.kubectl.get("workflowrun", name), "Succeeded"))
    system.gateway.kill()
    system.gateway.start()
    assert condition(system.finished(name, seconds=120), "Succeeded")["status"] == "True"
