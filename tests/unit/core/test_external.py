from __future__ import annotations

from typing import Any

import pytest

from fairlead.core import names
from fairlead.core.actions import Delete
from fairlead.core.estimates import price_of_call
from fairlead.core.external import Health, plan_external, read_health
from fairlead.core.planning import There, plan_run, secrets_needed
from fairlead.core.validation import validate_text

TOKEN = {"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
AGENT: dict[str, Any] = {
    "apiVersion": names.API_VERSION,
    "kind": "Agent",
    "metadata": {"name": "theirs", "namespace": "n", "uid": "u", "generation": 3},
    "spec": {"external": {"url": "https://a.example", "token": TOKEN, "costPerCallUSD": "0.5"}},
}


def lease(**notes: str) -> dict[str, Any]:
    shown = {f"fairlead.dev/{key.replace('_', '-')}": value for key, value in notes.items()}
    return {"metadata": {"name": "theirs-external", "annotations": shown}, "spec": {"holderIdentity": "u"}}


@pytest.mark.parametrize(
    ("health", "status", "reason", "words"),
    [
        pytest.param(Health(), "False", "Progressing", "has not read the card of https://a.example", id="not-asked"),
        pytest.param(
            Health(alive=True, card="Weather", version="2", skills=("rain",)),
            "True",
            "Available",
            'Its card is "Weather" 2; its skills are rain.',
            id="alive",
        ),
        pytest.param(
            Health(alive=True, card="Weather", reason="ExternalUnreachable", message="late"),
            "True",
            "Available",
            "it names no skills",
            id="alive-until-its-lease-ends",
        ),
        pytest.param(
            Health(card="Weather", reason="InvalidCard", message="It is HTML."),
            "False",
            "InvalidCard",
            "It is HTML.",
            id="of-no-use",
        ),
        pytest.param(Health(reason="Odd", message="x"), "False", "ExternalUnreachable", "x", id="unknown-reason"),
        pytest.param(
            Health(alive=True, card="Weather", digest=names.digest(AGENT["spec"]["external"])),
            "True",
            "Available",
            'Its card is "Weather"',
            id="still-there",
        ),
    ],
)
def test_plan_external_says_how_it_stands(health: Health, status: str, reason: str, words: str) -> None:
    plan = plan_external(AGENT, (), health)
    found = next(condition for condition in plan.conditions if condition.type == "Ready")
    assert (found.status, found.reason, words in found.message) == (status, reason, True), found
    assert plan.actions == ()
    assert plan.status["ready"] == int(status == "True")


def test_plan_external_of_an_agent_that_moved_says_nothing_of_where_it_was() -> None:
    moved = Health(alive=True, card="Weather", reason="InvalidCard", digest="of-another-spec")
    assert plan_external(AGENT, (), moved) == plan_external(AGENT, (), Health())


def test_plan_external_deletes_the_pods_that_it_had() -> None:
    pod = {"kind": "Pod", "metadata": {"name": "theirs-0", "uid": "p"}}
    assert [type(action) for action in plan_external(AGENT, (pod,), Health()).actions] == [Delete]


def test_read_health_says_what_is_on_the_lease() -> None:
    found = read_health(
        lease(card_name="W", version="1", capabilities="a,b", probe_reason="X", probe_message="y"), frozenset({"u"})
    )
    assert found == Health(alive=True, card="W", version="1", skills=("a", "b"), reason="X", message="y")
    assert read_health(lease(), frozenset()).alive is False
    assert read_health(None, frozenset()) == Health()


def test_plan_of_a_run_counts_what_calls_cost_and_needs_the_token() -> None:
    spec = {"nodes": [{"name": "a", "agent": {"name": "theirs", "prompt": "x"}, "retry": {"limit": 1}}]}
    there = There(models={}, agents={"theirs": AGENT["spec"]}, tools={}, workflows={}, secrets={})
    plan = plan_run(spec, None, there=there, name="w")
    (node,) = plan.nodes
    assert node.cost is not None
    assert (node.cost.least, node.cost.most) == (5 * 10**11, 10**12)
    assert secrets_needed(there, plan) == {("s", "k")}
    assert any(one.detail == "external: https://a.example" for one in plan.needed)
    assert price_of_call({}) is None


BAD = """
apiVersion: fairlead.dev/v1alpha1
kind: Agent
metadata: {name: theirs}
spec:
  external: {url: "https://a.example"}
  %s
---
apiVersion: fairlead.dev/v1alpha1
kind: Workflow
metadata: {name: w}
spec:
  nodes: [{name: a, agent: {name: theirs, prompt: x}}]
  %s
"""


@pytest.mark.parametrize(
    ("agent", "workflow", "words"),
    [
        pytest.param("description: x", "description: x", None, id="good"),
        pytest.param("scale: {min: 2}", "description: x", "remove scale", id="scale"),
        pytest.param("model: m", "description: x", "thinks elsewhere", id="model"),
        pytest.param("graph: 'a.b:c'", "description: x", "external and graph cannot be together", id="graph"),
        pytest.param("description: x", "runsOn: {agent: theirs}", "has no pods here", id="runs-on"),
    ],
)
def test_validation_of_an_external_agent(agent: str, workflow: str, words: str | None) -> None:
    found = [f"{one.message} {one.fix}" for one in validate_text(BAD % (agent, workflow)) if one.severity == "error"]
    assert (found == []) if words is None else any(words in text for text in found), found
