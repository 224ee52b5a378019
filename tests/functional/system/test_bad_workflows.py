"""Workflows that cannot run: refused with the place and the fix, and nobody gets excited about them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from fairlead.testing.kubectl import condition, wait_for
from fairlead.testing.system import System

API = "fairlead.dev/v1alpha1"
QUIET_SECONDS = 15
LLM = {"prompt": "hello"}


def workflow(name: str, *nodes: dict[str, Any]) -> dict[str, Any]:
    spec = {"model": "absent", "nodes": list(nodes)}
    return {"apiVersion": API, "kind": "Workflow", "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize(
    ("name", "nodes", "said"),
    [
        pytest.param(
            "two-actions",
            [{"name": "both", "llm": LLM, "tool": {"name": "sql"}}],
            ["spec.nodes[0]", "both", "exactly one action"],
            id="two-actions",
        ),
        pytest.param("no-action", [{"name": "none"}], ["spec.nodes[0]", "exactly one action"], id="no-action"),
        pytest.param(
            "wrong-type", [{"name": "a", "llm": {"prompt": 7}}], ["spec.nodes[0].llm.prompt", "string"], id="wrong-type"
        ),
        pytest.param("unknown-field", [{"name": "a", "lllm": LLM}], ["unknown field", "lllm"], id="unknown-field"),
        pytest.param("self-need", [{"name": "a", "needs": ["a"], "llm": LLM}], ["cannot need itself"], id="self-need"),
        pytest.param("bad-name", [{"name": "Loud", "llm": LLM}], ["spec.nodes[0].name"], id="bad-name"),
        pytest.param("no-nodes", [], ["spec.nodes"], id="no-nodes"),
    ],
)
def test_apply_refuses(system: System, name: str, nodes: list[dict[str, Any]], said: list[str]) -> None:
    done = system.kubectl.run("apply", "-f", "-", stdin=json.dumps(workflow(name, *nodes)), check=False)
    assert done.returncode != 0
    assert [word for word in said if word not in done.stderr] == [], done.stderr
    assert system.kubectl.get("workflow", name) is None


@pytest.mark.parametrize(
    ("name", "nodes", "said"),
    [
        pytest.param(
            "cycle",
            [{"name": "a", "needs": ["b"], "llm": LLM}, {"name": "b", "needs": ["a"], "llm": LLM}],
            ["a", "b", "cycle"],
            id="cycle",
        ),
        pytest.param(
            "unknown-need",
            [{"name": "draft", "llm": LLM}, {"name": "b", "needs": ["draf"], "llm": LLM}],
            ["nodes[1].needs", "draf", 'did you mean "draft"'],
            id="unknown-need",
        ),
        pytest.param("bad-cel", [{"name": "a", "when": "1 +", "llm": LLM}], ["a", "when"], id="bad-cel"),
        pytest.param(
            "no-ancestor",
            [{"name": "a", "llm": LLM}, {"name": "b", "llm": {"prompt": "{{ outputs.a }}"}}],
            ["b", "outputs.a", "needs"],
            id="no-ancestor",
        ),
    ],
)
def test_operator_stalls_and_stays_calm(
    system: System, name: str, nodes: list[dict[str, Any]], said: list[str]
) -> None:
    system.kubectl.apply(workflow(name, *nodes))
    found = wait_for("Stalled", lambda: condition(system.kubectl.get("workflow", name), "Stalled"))
    ready = condition(system.kubectl.get("workflow", name), "Ready")
    assert (found["status"], ready["status"], ready["reason"]) == ("True", "False", "InvalidGraph")
    assert [word for word in said if word not in ready["message"]] == [], ready["message"]
    if system.cluster.embedded:
        assert calls_about(system, name, seconds=QUIET_SECONDS) <= 1


def calls_about(system: System, name: str, *, seconds: float) -> int:
    """Count what the operator asks of the API server about one object while nothing changes."""
    before = len(system.cluster.audit())
    deadline = time.monotonic() + seconds
    wait_for("a quiet while", lambda: time.monotonic() > deadline, seconds=seconds + 5)
    return sum(
        record["name"] == name and record["userAgent"].startswith("fairlead-operator")
        for record in system.cluster.audit()[before:]
    )


def test_unsupported_feature_is_named(system: System) -> None:
    system.kubectl.apply(workflow("later", {"name": "gate", "memory": {"recall": 1}, "wait": {"seconds": 1}}))
    ready = wait_for(
        "a verdict",
        lambda: (
            (found := condition(system.kubectl.get("workflow", "later"), "Ready")).get("status") == "False" and found
        ),
    )
    assert ready["reason"] == "NotSupported"
    assert "memory" in ready["message"]


def test_missing_model_is_waited_for(system: System) -> None:
    given = workflow("early", {"name": "a", "llm": LLM})
    given["spec"]["model"] = "comes-later"
    system.kubectl.apply(given)
    waiting = wait_for("Reconciling", lambda: condition(system.kubectl.get("workflow", "early"), "Reconciling"))
    assert "comes-later" in waiting["message"]
    scripted = {"scripted": {"responses": [{"reply": "yes"}]}}
    system.kubectl.apply({"apiVersion": API, "kind": "Model", "metadata": {"name": "comes-later"}, "spec": scripted})
    system.kubectl("wait", "workflow/early", "--for=condition=Ready", "--timeout=20s")


def test_object_of_300_kb_is_refused_with_what_to_do(system: System) -> None:
    huge = {"name": "a", "llm": {"prompt": "x" * 60_000}}
    nodes = [{**huge, "name": f"n{index}"} for index in range(5)]
    done = system.kubectl.run("apply", "-f", "-", stdin=json.dumps(workflow("huge", *nodes)), check=False)
    assert done.returncode != 0
    assert "Too long" in done.stderr or "too long" in done.stderr or "too large" in done.stderr, done.stderr
    assert system.kubectl.get("workflow", "huge") is None


def test_yaml_bomb_is_refused(system: System) -> None:
    levels = "\n".join(f"  l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 10))
    bomb = f"apiVersion: {API}\nkind: Workflow\nmetadata: {{name: bomb}}\nspec:\n  l0: &l0 [lol]\n{levels}\n"
    done = system.kubectl.run("apply", "-f", "-", stdin=bomb, check=False)
    assert done.returncode != 0
    assert system.kubectl.get("workflow", "bomb") is None
