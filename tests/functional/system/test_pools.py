"""Pools with real processes: a kill, a rolling replacement under load, and a pool that follows its work."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import pytest

from fairlead.core import names
from fairlead.testing.kubectl import condition, wait_for
from fairlead.testing.system import System

pytestmark = pytest.mark.process_runtime

LEASE_SECONDS = 3
STEPS = 4


def declared(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def declare(system: System, name: str, *, latency: int, **agent: Any) -> None:
    """Apply a Model, an Agent and a workflow of a few steps that runs on it."""
    nodes = [{"name": f"s{n}", "needs": [f"s{n - 1}"] if n else [], "llm": {"prompt": "x"}} for n in range(STEPS)]
    system.kubectl.apply(
        declared("Model", name, {"scripted": {"responses": [{"reply": "done", "latencyMs": latency}]}}),
        declared("Agent", name, {"leaseDurationSeconds": LEASE_SECONDS, **agent}),
        declared("Workflow", name, {"model": name, "runsOn": {"agent": name}, "nodes": nodes}),
    )
    system.kubectl("wait", f"agents.fairlead.dev/{name}", "--for=condition=Ready", "--timeout=90s")
    system.kubectl("wait", f"workflow/{name}", "--for=condition=Ready", "--timeout=90s")


def asked(system: System, query: str, uid: str) -> list[Any]:
    """Return what the storage answers about a run: at once, which kubectl does not."""
    with sqlite3.connect(system.storage_url.removeprefix("sqlite:///")) as database:
        return database.execute(query, (uid,)).fetchall()


def uid_of(system: System, run: str) -> str:
    return str((system.kubectl.get("workflowrun", run) or {})["metadata"]["uid"])


def journal(system: System, uid: str) -> list[dict[str, Any]]:
    """Return a run's journal, with attempts."""
    query = (
        "SELECT j.entry, j.attempt FROM journal j JOIN tasks t ON t.id = j.task_id WHERE t.run_uid = ? ORDER BY j.seq"
    )
    return [{**json.loads(entry), "attempt": attempt} for entry, attempt in asked(system, query, uid)]


def finished_nodes(system: System, uid: str) -> Counter[str]:
    return Counter(entry["node"] for entry in journal(system, uid) if entry["kind"] == "NodeFinished")


EACH_ONCE = Counter(f"s{n}" for n in range(STEPS))


def pods(system: System, agent: str) -> list[dict[str, Any]]:
    return system.kubectl.list("pods", "-l", f"{names.AGENT_LABEL}={agent}")


def told(system: System, agent: str) -> set[str]:
    """Return what the events of an Agent say."""
    events = system.kubectl.list("events", "--field-selector", f"involvedObject.name={agent}")
    return {event["reason"] for event in events}


def test_kill_takes_the_pod_out_of_the_registry_and_its_run_goes_on_elsewhere(system: System) -> None:
    declare(system, "killed", latency=1500, scale={"min": 2}, concurrency=1)
    run = system.start_run("killed")
    uid = uid_of(system, run)
    wait_for("a node", lambda: finished_nodes(system, uid))
    [(pod_uid, holder)] = asked(
        system, "SELECT t.pod_uid, r.pod FROM tasks t JOIN runs r ON r.uid = t.run_uid WHERE r.uid = ?", uid
    )
    system.players.paused = True  # nobody starts another process in the pod
    try:
        system.players.kill(pod_uid)
        killed = time.monotonic()
        wait_for("the Lease to go", lambda: system.kubectl.get("lease", holder) is None)
        took = time.monotonic() - killed
        finished = system.finished(run)
    finally:
        system.players.paused = False
    assert condition(finished, "Succeeded")["status"] == "True"
    assert finished["status"]["agentPod"] != holder
    assert finished["status"]["attempt"] == 2
    assert finished_nodes(system, uid) == EACH_ONCE
    assert {"AgentRegistered", "AgentLost"} <= told(system, "killed")
    assert took < 3 * (LEASE_SECONDS + 2)  # on a machine that others use; the bound itself is held in simulated time


@contextmanager
def load(system: System, workflow: str) -> Iterator[list[str]]:
    """Start a run of a workflow again and again."""
    runs: list[str] = []
    enough = Event()

    def start() -> None:
        while not enough.wait(0.5):
            runs.append(system.start_run(workflow))

    thread = Thread(target=start)
    thread.start()
    try:
        yield runs
    finally:
        enough.set()
        thread.join()


def test_rolling_replacement_under_load_loses_no_run_and_repeats_no_finished_node(system: System) -> None:
    declare(system, "rolled", latency=300, scale={"min": 2}, concurrency=3)
    before = {pod["metadata"]["uid"] for pod in pods(system, "rolled")}
    seen: list[int] = []
    with load(system, "rolled") as runs:
        wait_for("the first runs", lambda: len(runs) > 2)
        change = json.dumps({"spec": {"concurrency": 4}})
        system.kubectl("patch", "agents.fairlead.dev/rolled", "--type=merge", "-p", change)

        def replaced() -> bool:
            there = pods(system, "rolled")
            status = (system.kubectl.get("agents.fairlead.dev", "rolled") or {})["status"]
            seen.append(status["ready"])
            return not before & {pod["metadata"]["uid"] for pod in there} and status["pods"] == "2/2"

        wait_for("the replacement", replaced)
    assert min(seen) == 2, "the pool was never smaller than it should be"
    for run in runs:
        finished = system.finished(run)
        assert condition(finished, "Succeeded")["status"] == "True", run
        assert finished_nodes(system, finished["metadata"]["uid"]) == EACH_ONCE, run
        assert finished["status"]["attempt"] == 1, "a pod that had drained was given work"
    assert "AgentLost" not in told(system, "rolled")


def test_pool_follows_its_work_from_no_pod_and_back(system: System) -> None:
    declare(system, "elastic", latency=300, scale={"min": 0, "max": 2}, concurrency=1)
    assert pods(system, "elastic") == []
    runs = [system.start_run("elastic") for _ in range(4)]
    most = 0
    for run in runs:
        finished = system.finished(run)
        assert condition(finished, "Succeeded")["status"] == "True"
        most = max(most, len(pods(system, "elastic")))
    assert most == 2
    wait_for("the pods to go", lambda: not pods(system, "elastic"))

    def idle() -> bool:
        agent = system.kubectl.get("agents.fairlead.dev", "elastic")
        return condition(agent, "Ready").get("reason") == "ScaledToZero" and not condition(agent, "Reconciling")

    wait_for("the Agent to say so", idle)
    assert "AgentLost" not in told(system, "elastic")


def test_model_whose_key_is_refused_is_said_on_it_and_on_its_agent(system: System) -> None:
    declare(system, "locked", latency=1, model="locked")
    refusing = {"scripted": {"responses": [{"error": {"status": 401, "message": "no such key"}}]}}
    system.kubectl.apply(declared("Model", "locked", refusing))

    def reasons() -> set[str]:
        kinds = ("models.fairlead.dev", "agents.fairlead.dev")
        return {condition(system.kubectl.get(kind, "locked"), "Ready").get("reason", "") for kind in kinds}

    wait_for("the operator to have seen it", lambda: reasons() == {"Accepted", "Available"})
    failed = system.finished(system.start_run("locked"))
    assert condition(failed, "Succeeded")["reason"] == "NodeFailed"
    wait_for("the news", lambda: reasons() == {"AuthenticationFailed"})
