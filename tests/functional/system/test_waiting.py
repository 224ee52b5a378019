"""Runs that wait, nest, are limited, stopped and run again, over real processes."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest

from fairlead.testing.kubectl import condition, wait_for
from fairlead.testing.system import System

API = "fairlead.dev/v1alpha1"
PUT = {"name": "json_query", "arguments": {"data": {"a": "{{ run.reason }}"}, "expression": "a"}}


def declare(system: System, kind: str, name: str, **spec: Any) -> None:
    system.kubectl.apply({"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec})


def ready(system: System, name: str, *nodes: dict[str, Any], **spec: Any) -> None:
    declare(
        system, "Workflow", name, **{"model": "waiting", "runsOn": {"agent": "waiting"}, "nodes": list(nodes), **spec}
    )
    system.kubectl("wait", f"workflow/{name}", "--for=condition=Ready", "--timeout=60s")


def status(system: System, name: str) -> str:
    return str(condition(system.kubectl.get("workflowrun", name), "Succeeded").get("reason"))


def nodes_of(system: System, name: str) -> dict[str, str]:
    """Read how a run's nodes stand from storage."""
    uid = system.kubectl.get("workflowrun", name)["metadata"]["uid"]  # type: ignore[index]  # it is there
    with sqlite3.connect(system.storage_url.removeprefix("sqlite:///")) as database:
        return dict(database.execute("SELECT node, state FROM nodes WHERE run_uid = ?", (uid,)).fetchall())


@pytest.fixture(scope="module", autouse=True)
def pool(system: System) -> None:
    """A model with a price, and a warm pool that also plays an agent."""
    script: dict[str, Any] = {
        "responses": [
            {"match": "^How many", "toolCalls": [{"name": "count", "arguments": {"data": [1, 2, 3]}}]},
            {"match": "3", "reply": "there are three"},
            {"reply": "done"},
        ],
        "usage": {"inputTokens": 100, "outputTokens": 10},
    }
    price = {"inputPerMillionTokens": "10000", "outputPerMillionTokens": "0"}
    declare(system, "Model", "waiting", scripted=script, price=price)
    declare(system, "Tool", "count", builtin={"name": "json_query", "config": {"expression": "length(@)"}})
    declare(system, "Agent", "waiting", model="waiting", tools=["count"], concurrency=8)
    system.kubectl("wait", "agents.fairlead.dev/waiting", "--for=condition=Ready", "--timeout=60s")


def test_run_with_a_pod_of_its_own_holds_none_while_people_decide(system: System) -> None:
    given = [
        {"name": "before", "llm": {"prompt": "x"}},
        {"name": "ship", "needs": ["before"], "approval": {"message": "Send this? {{ outputs.before }}"}},
        {"name": "after", "needs": ["ship"], "llm": {"prompt": "y"}},
    ]
    declare(system, "Workflow", "patient", model="waiting", nodes=given, output="{{ outputs.ship.comment }}")
    name = system.start_run("patient")
    wait_for("the approval", lambda: status(system, name) == "WaitingForApproval", seconds=90)
    wait_for("no living pod", lambda: not living(system, name))
    first = {pod["metadata"]["name"] for pod in pods(system, name)}
    system.kubectl("annotate", "run", name, "fairlead.dev/approve=ship=do it")
    run = system.finished(name, seconds=90)
    assert condition(run, "Succeeded")["reason"] == "Succeeded"
    assert run["status"]["result"] == "do it"
    assert run["status"]["agentPod"] not in first
    assert run["status"]["progress"] == "3/3"


def pods(system: System, run: str) -> list[dict[str, Any]]:
    return system.kubectl.list("pods", "-l", f"fairlead.dev/run={run}")


def living(system: System, run: str) -> list[str]:
    return [pod["metadata"]["name"] for pod in pods(system, run) if pod.get("status", {}).get("phase") != "Succeeded"]


def test_run_hands_work_to_an_agent_in_a_sub_workflow(system: System) -> None:
    ask = {"name": "ask", "agent": {"name": "waiting", "prompt": "How many are there?"}}
    ready(system, "inner", ask, output="{{ outputs.ask }}")
    ready(system, "outer", {"name": "nested", "workflow": {"name": "inner"}}, output="{{ outputs.nested }}")
    run = system.finished(system.start_run("outer"), seconds=90)
    assert run["status"]["result"] == "there are three", run["status"]
    assert run["status"]["usage"] == {"inputTokens": 200, "outputTokens": 20}
    assert run["status"]["cost"]["total"] == "2"


def test_run_that_waits_and_is_stopped_does_what_finally_says(system: System) -> None:
    ready(system, "tidy", {"name": "rest", "wait": {"seconds": 3600}}, **{"finally": {"tool": PUT}})
    name = system.start_run("tidy")
    wait_for("the wait", lambda: status(system, name) == "Waiting", seconds=60)
    system.kubectl("patch", "run", name, "--type=merge", "-p", json.dumps({"spec": {"stop": True}}))
    run = system.finished(name, seconds=60)
    assert condition(run, "Succeeded")["reason"] == "Cancelled"
    assert nodes_of(system, name)["@finally"] == "Succeeded"


def test_suspended_run_goes_on_where_it_was(system: System) -> None:
    ready(
        system,
        "pausing",
        {"name": "rest", "wait": {"seconds": 6}},
        {"name": "b", "needs": ["rest"], "llm": {"prompt": "x"}},
    )
    name = system.start_run("pausing")
    wait_for("the wait", lambda: status(system, name) in ("Waiting", "Running"), seconds=60)
    system.kubectl("patch", "run", name, "--type=merge", "-p", json.dumps({"spec": {"suspend": True}}))
    wait_for("the pause", lambda: status(system, name) == "Suspended", seconds=60)
    system.kubectl("patch", "run", name, "--type=merge", "-p", json.dumps({"spec": {"suspend": False}}))
    assert condition(system.finished(name, seconds=60), "Succeeded")["reason"] == "Succeeded"


def test_run_over_its_budget_says_so_and_shows_it(system: System) -> None:
    first, second = ({"name": n, "llm": {"prompt": "x", "parameters": {"max_tokens": 10}}} for n in ("a", "b"))
    ready(system, "thrifty", first, {**second, "needs": ["a"]}, budget={"maxTokens": 250})
    name = system.start_run("thrifty", budget={"maxTokens": 150})
    run = system.finished(name, seconds=60)
    assert run["status"]["budget"] == {"maxTokens": 150}
    assert condition(run, "Succeeded")["reason"] == "BudgetExceeded", run["status"]
    assert run["status"]["usage"] == {"inputTokens": 100, "outputTokens": 10}


def test_rerun_uses_what_went_well(system: System) -> None:
    broken = {"name": "json_query", "arguments": {"data": 1, "expression": "{{ inputs.how }}"}}
    ready(
        system,
        "twice",
        {"name": "good", "llm": {"prompt": "x"}},
        {"name": "bad", "needs": ["good"], "tool": broken},
        inputs=[{"name": "how"}],
    )
    failed = system.finished(system.start_run("twice", inputs={"how": "(("}), seconds=60)
    assert condition(failed, "Succeeded")["reason"] == "NodeFailed"
    rerun = {"name": failed["metadata"]["name"]}
    run = system.finished(system.start_run("twice", rerunOf=rerun, inputs={"how": "@"}), seconds=60)
    assert condition(run, "Succeeded")["reason"] == "Succeeded"
    assert run["status"]["reused"] == 1
    assert run["status"]["usage"] == {"inputTokens": 0, "outputTokens": 0}
