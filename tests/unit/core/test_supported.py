from typing import Any

import pytest

from fairlead.api.schema import schema_of
from fairlead.core.supported import unsupported

RUNS = {
    "inputs": [{"name": "a"}],
    "model": "default",
    "runsOn": {"agent": "default"},
    "startPolicy": "OnApply",
    "timeoutSeconds": 5,
    "nodes": [
        {"name": "a", "llm": {"prompt": "x", "output": {}}, "retry": {}, "onError": "Continue", "forEach": "[1]"},
        {"name": "b", "needs": ["a"], "when": "true", "tool": {"name": "sql"}},
    ],
}


def paths(kind: str, spec: dict[str, Any]) -> list[str]:
    return [path for path, _ in unsupported(kind, spec)]


def test_workflow_of_this_version_is_supported() -> None:
    assert paths("Workflow", RUNS) == []


@pytest.mark.parametrize(
    ("kind", "spec", "path"),
    [
        ("Workflow", {"budget": {"maxTokens": 1}}, "budget"),
        ("Workflow", {"concurrency": {"limit": 1}}, "concurrency"),
        ("Workflow", {"onFailure": {"tool": {"name": "x"}}}, "onFailure"),
        ("Workflow", {"finally": {"tool": {"name": "x"}}}, "finally"),
        ("Workflow", {"memory": {}}, "memory"),
        ("Workflow", {"nodes": [{}, {"approval": {"message": "x"}}]}, "nodes[1].approval"),
        ("Workflow", {"nodes": [{"repeat": {"from": "a"}}]}, "nodes[0].repeat"),
        ("Workflow", {"nodes": [{"cache": {}}]}, "nodes[0].cache"),
        ("Workflow", {"nodes": [{"llm": {"prompt": "x", "tools": ["sql"]}}]}, "nodes[0].llm.tools"),
        ("WorkflowRun", {"priority": -1}, "priority"),
        ("WorkflowRun", {"suspend": True}, "suspend"),
        ("WorkflowRun", {"rerunOf": {"name": "x"}}, "rerunOf"),
        ("WorkflowRun", {"replyTo": {}}, "replyTo"),
        ("WorkflowRun", {"dryRun": True}, "dryRun"),
        ("WorkflowRun", {"workflow": {"nodes": [{"wait": {"seconds": 1}}]}}, "workflow.nodes[0].wait"),
        ("Agent", {"graph": "a:b"}, "graph"),
        ("Agent", {"external": {"url": "https://x"}}, "external"),
        ("Agent", {"scale": {"max": 3}}, "scale.max"),
        ("Agent", {"scale": {"targetQueue": 3}}, "scale.targetQueue"),
        ("Model", {"fallbacks": ["x"]}, "fallbacks"),
        ("Model", {"rateLimit": {}}, "rateLimit"),
        ("Model", {"budget": {}}, "budget"),
    ],
)
def test_unsupported_names_the_path(kind: str, spec: dict[str, Any], path: str) -> None:
    assert paths(kind, spec) == [path]


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("WorkflowRun", {"priority": 0, "suspend": False, "dryRun": False, "stop": True}),
        ("Agent", {"scale": {"min": 2, "max": 2}, "concurrency": 4}),
        ("Agent", {"scale": {"max": 1}}),
        ("Secret", {"budget": 1}),
        ("Workflow", {"nodes": "no list"}),
    ],
)
def test_unsupported_lets_defaults_and_shapes_of_others_pass(kind: str, spec: dict[str, Any]) -> None:
    assert unsupported(kind, spec) == []


def test_every_gap_is_a_field_of_the_schema() -> None:
    """A field that was renamed in the schema would be let through unseen."""
    from fairlead.core import supported

    tables = {
        "Workflow": (supported._WORKFLOW, ()),
        "WorkflowRun": (supported._RUN, ()),
        "Agent": (supported._AGENT, ()),
        "Model": (supported._MODEL, ()),
    }
    node = schema_of("Workflow")["properties"]["spec"]["properties"]["nodes"]["items"]
    for kind, (gaps, _) in tables.items():
        for gap in gaps:
            assert has_field(schema_of(kind)["properties"]["spec"], gap.path), (kind, gap.path)
    for gap in supported._NODE:
        assert has_field(node, gap.path), gap.path


def has_field(schema: dict[str, Any], path: str) -> bool:
    for name in path.split("."):
        if name not in schema.get("properties", {}):
            return False
        schema = schema["properties"][name]
    return True
