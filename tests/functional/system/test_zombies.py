"""A pod that was thought dead and is not: it comes back after its lease was lost, and can write nothing."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections import Counter
from typing import Any

import pytest

from fairlead.testing.kubectl import condition, wait_for
from fairlead.testing.system import System

pytestmark = pytest.mark.process_runtime

API = "fairlead.dev/v1alpha1"
OBJECTS: list[dict[str, Any]] = [
    {
        "apiVersion": API,
        "kind": "Model",
        "metadata": {"name": "haunted"},
        "spec": {"scripted": {"responses": [{"reply": "done", "latencyMs": 1500}]}},
    },
    {
        "apiVersion": API,
        "kind": "Agent",
        "metadata": {"name": "haunted"},
        "spec": {"scale": {"min": 2}, "concurrency": 1, "leaseDurationSeconds": 5},
    },
    {
        "apiVersion": API,
        "kind": "Workflow",
        "metadata": {"name": "haunted"},
        "spec": {
            "model": "haunted",
            "runsOn": {"agent": "haunted"},
            "nodes": [
                {"name": f"step_{number}", "needs": [f"step_{number - 1}"] if number else [], "llm": {"prompt": "x"}}
                for number in range(6)
            ],
        },
    },
]


def journal(system: System, uid: str) -> list[dict[str, Any]]:
    with sqlite3.connect(system.storage_url.removeprefix("sqlite:///")) as database:
        rows = database.execute(
            "SELECT j.entry, j.attempt FROM journal j JOIN tasks t ON t.id = j.task_id WHERE t.run_uid = ?"
            " ORDER BY j.seq",
            (uid,),
        ).fetchall()
    return [{**json.loads(entry), "attempt": attempt} for entry, attempt in rows]


def test_zombie_writes_nothing(system: System) -> None:
    system.kubectl.apply(*OBJECTS)
    system.kubectl("wait", "agents.fairlead.dev/haunted", "--for=condition=Ready", "--timeout=60s")
    name = system.start_run("haunted")
    uid = (system.kubectl.get("workflowrun", name) or {})["metadata"]["uid"]
    wait_for("two nodes", lambda: sum(entry["kind"] == "NodeFinished" for entry in journal(system, uid)) >= 2)
    holder = wait_for("its pod", lambda: (system.kubectl.get("workflowrun", name) or {})["status"].get("agentPod"))
    pod = (system.kubectl.get("pod", holder) or {})["metadata"]["uid"]
    system.players.paused = True  # nobody starts another process in the zombie's pod
    zombie = system.players.processes.pop(pod)
    try:
        zombie.send_signal(signal.SIGSTOP)
        run = system.finished(name, seconds=90)
        assert condition(run, "Succeeded")["status"] == "True"
        assert run["status"]["agentPod"] != holder
        told, said = journal(system, uid), len(system.players.log(pod))
        zombie.send_signal(signal.SIGCONT)
        wait_for("the zombie to notice", lambda: len(system.players.log(pod)) > said or zombie.poll() is not None)
        wait_for("it to give up", lambda: zombie.poll() is not None or "register" in system.players.log(pod)[said:])
    finally:
        zombie.kill()
        zombie.wait()
        system.players.paused = False
    assert journal(system, uid) == told
    attempts = [entry["attempt"] for entry in told]
    assert attempts == sorted(attempts), "an earlier attempt wrote after a later one"
    assert set(attempts) == {1, 2}
    ends = Counter(entry["node"] for entry in told if entry["kind"] == "NodeFinished")
    assert set(ends.values()) == {1}
