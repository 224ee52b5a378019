"""What workflows refer to, through whatever is in between, and what a revision holds of it."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.core import names
from fairlead.core.references import References, Source, collect, freeze, missing, revision_of, thawed, uses_of


def make(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    meta = {"name": name, "namespace": "n", "uid": f"{kind}-{name}", "generation": 1}
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": meta, "spec": spec}


OBJECTS = {
    ("Model", "fast"): make("Model", "fast", {"model": "x", "fallbacks": ["spare"]}),
    ("Model", "spare"): make("Model", "spare", {"model": "y", "fallbacks": ["fast"]}),
    ("Model", "deep"): make("Model", "deep", {"model": "z"}),
    ("Model", "unused"): make("Model", "unused", {"model": "u"}),
    ("Agent", "engineer"): make("Agent", "engineer", {"model": "deep", "tools": ["search", "sql"]}),
    ("Agent", "pool"): make("Agent", "pool", {"model": "unused", "tools": ["unused"]}),
    ("Tool", "search"): make("Tool", "search", {"http": {"url": "https://x/{q}"}}),
    ("Tool", "alarm"): make("Tool", "alarm", {"http": {"url": "https://y", "method": "POST"}}),
    ("Workflow", "inner"): make(
        "Workflow",
        "inner",
        {
            "runsOn": {"agent": "elsewhere"},
            "nodes": [
                {"name": "a", "agent": {"name": "engineer", "prompt": "x"}},
                {"name": "b", "workflow": {"name": "innermost"}},
            ],
        },
    ),
    ("Workflow", "innermost"): make(
        "Workflow", "innermost", {"nodes": [{"name": "a", "tool": {"name": "json_query"}}]}
    ),
}
OUTER = Source(
    "outer",
    "u",
    1,
    {
        "runsOn": {"agent": "pool"},
        "nodes": [
            {"name": "a", "llm": {"prompt": "x", "model": "fast", "tools": ["sql"]}},
            {"name": "b", "workflow": {"name": "inner"}},
        ],
        "onFailure": {"tool": {"name": "alarm"}},
    },
)


def find(kind: str, name: str) -> Any:
    return OBJECTS.get((kind, name))


def without(kind: str, name: str) -> References:
    return collect(OUTER.spec, lambda *key: find(*key) if key != (kind, name) else None)


def test_freeze_holds_everything_that_is_used_and_nothing_else() -> None:
    document = freeze(OUTER, collect(OUTER.spec, find))
    assert set(document["models"]) == {"fast", "spare", "deep"}
    assert set(document["agents"]) == {"pool", "engineer"}
    assert set(document["tools"]) == {"search", "alarm"}
    assert set(document["workflows"]) == {"inner", "innermost"}
    assert document["workflows"]["innermost"] == OBJECTS["Workflow", "innermost"]["spec"]


def test_missing_nothing() -> None:
    assert missing(OUTER, collect(OUTER.spec, find)) is None


@pytest.mark.parametrize(
    ("kind", "name", "reason", "where"),
    [
        ("Model", "fast", "ModelNotFound", "spec.nodes[0].llm.model"),
        ("Model", "spare", "ModelNotFound", 'spec of Model "fast".fallbacks[0]'),
        ("Model", "deep", "ModelNotFound", 'spec of Agent "engineer".model'),
        ("Agent", "pool", "AgentNotFound", "spec.runsOn.agent"),
        ("Agent", "engineer", "AgentNotFound", 'spec of Workflow "inner".nodes[0].agent.name'),
        ("Tool", "search", "ToolNotFound", 'spec of Agent "engineer".tools[0]'),
        ("Tool", "alarm", "ToolNotFound", "spec.onFailure.tool.name"),
        ("Workflow", "inner", "SubWorkflowNotFound", "spec.nodes[1].workflow.name"),
        ("Workflow", "innermost", "SubWorkflowNotFound", 'spec of Workflow "inner".nodes[1].workflow.name'),
    ],
)
def test_missing_names_the_place(kind: str, name: str, reason: str, where: str) -> None:
    found = missing(OUTER, without(kind, name))
    assert found is not None
    assert (found[0], f"correct {where}" in found[1]) == (reason, True), found


def test_missing_tool_that_is_nearly_a_built_in_one_says_which() -> None:
    source = Source("w", "u", 1, {"nodes": [{"name": "a", "tool": {"name": "jsonquery"}}]})
    found = missing(source, References())
    assert found is not None
    assert 'did you mean "json_query"?' in found[1]


def test_missing_agent_that_cannot_have_turns() -> None:
    source = Source("w", "u", 1, {"nodes": [{"name": "a", "agent": {"name": "g", "prompt": "x"}}]})
    found = missing(source, References(agents={"g": make("Agent", "g", {})}))
    assert found is not None
    assert "nothing to think with: set spec.model" in found[1]


def test_missing_agent_that_someone_else_runs_thinks_elsewhere_and_has_no_pods_for_runs() -> None:
    there = References(agents={"g": make("Agent", "g", {"external": {"url": "https://x"}})})
    asking = Source("w", "u", 1, {"nodes": [{"name": "a", "agent": {"name": "g", "prompt": "x"}}]})
    assert missing(asking, there) is None
    found = missing(Source("w", "u", 1, {"runsOn": {"agent": "g"}, "nodes": []}), there)
    assert found is not None
    assert (found[0], "has no pods here" in found[1]) == ("InvalidSpec", True)


def test_missing_agent_whose_pods_alone_are_used_needs_no_model() -> None:
    source = Source("w", "u", 1, {"runsOn": {"agent": "g"}, "nodes": []})
    assert missing(source, References(agents={"g": make("Agent", "g", {})})) is None


def test_revision_follows_what_is_used_far_away() -> None:
    before = revision_of(OUTER, collect(OUTER.spec, find))
    changed = make("Tool", "search", {"http": {"url": "https://other/{q}"}})
    after = collect(OUTER.spec, lambda *key: changed if key == ("Tool", "search") else find(*key))
    assert revision_of(OUTER, after) != before


def test_collect_ends_where_workflows_run_each_other() -> None:
    loop = make("Workflow", "loop", {"nodes": [{"name": "a", "workflow": {"name": "loop"}}]})
    found = collect(loop["spec"], lambda kind, name: loop if (kind, name) == ("Workflow", "loop") else None)
    assert set(found.workflows) == {"loop"}


@pytest.mark.parametrize(
    "spec",
    [
        {"nodes": "x", "runsOn": 3, "model": ["m"], "finally": True},
        {"nodes": [None, {"llm": "x", "tool": {"name": 3}, "agent": []}, {"llm": {"tools": [1, {}], "model": True}}]},
    ],
)
def test_uses_of_passes_over_what_has_another_shape(spec: dict[str, Any]) -> None:
    assert list(uses_of(spec)) == []


def test_thawed_workflows_are_frozen_and_the_rest_is_as_it_is_now() -> None:
    document = freeze(OUTER, collect(OUTER.spec, find))
    newer = {
        ("Model", "fast"): make("Model", "fast", {"model": "new"}),
        ("Workflow", "inner"): make("Workflow", "inner", {"nodes": []}),
    }
    source, look = thawed(document, lambda *key: newer.get(key))
    there = collect(source.spec, look)
    assert source == OUTER
    assert there.specs("Workflow") == document["workflows"]
    assert there.specs("Model") == {"fast": {"model": "new"}, "deep": {"model": "z"}}
    assert missing(source, there) is None
