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
    "budget": {"maxTokens": 1, "period": "Day"},
    "concurrency": {"limit": 1, "policy": "Replace"},
    "onFailure": {"code": {"language": "python", "source": "1"}},
    "finally": {"agent": {"name": "x", "prompt": "y"}},
    "nodes": [
        {"name": "a", "llm": {"prompt": "x", "output": {}}, "retry": {}, "onError": "Continue", "forEach": "[1]"},
        {"name": "b", "needs": ["a"], "when": "true", "tool": {"name": "sql"}, "cache": {}},
        {"name": "c", "llm": {"prompt": "x", "tools": ["sql"], "maxTurns": 3}},
        {"name": "d", "agent": {"name": "x", "prompt": "y"}, "repeat": {"from": "d", "until": "true"}},
        {"name": "e", "workflow": {"name": "x"}},
        {"name": "f", "approval": {"message": "x"}},
        {"name": "g", "wait": {"seconds": 1}},
        {"name": "h", "code": {"language": "shell", "source": "true", "network": {"allow": ["example.com"]}}},
    ],
}
RUN = {
    "priority": -1,
    "suspend": True,
    "dryRun": True,
    "rerunOf": {"name": "x"},
    "budget": {"maxCostUSD": "1"},
    "workflow": RUNS,
}
AGENT = {
    "scale": {"min": 0, "max": 5, "targetQueue": 3},
    "graph": "a:b",
    "tools": ["sql"],
    "maxTurns": 3,
    "budget": {"maxTokens": 1},
}
MODEL = {"model": "x", "fallbacks": ["y"], "rateLimit": {"requestsPerMinute": 1}, "budget": {"maxTokens": 1}}
TOOL = {"http": {"url": "https://x"}, "requireApproval": True, "approvers": ["a"], "idempotent": True}


def paths(kind: str, spec: dict[str, Any]) -> list[str]:
    return [path for path, _ in unsupported(kind, spec)]


@pytest.mark.parametrize(
    ("kind", "spec"),
    [("Workflow", RUNS), ("WorkflowRun", RUN), ("Agent", AGENT), ("Model", MODEL), ("Tool", TOOL)],
)
def test_what_this_version_does_is_supported(kind: str, spec: dict[str, Any]) -> None:
    assert paths(kind, spec) == []


@pytest.mark.parametrize(
    ("kind", "spec", "path"),
    [
        ("Workflow", {"memory": {}}, "memory"),
        ("Workflow", {"nodes": [{}, {"memory": {}}]}, "nodes[1].memory"),
        ("WorkflowRun", {"replyTo": {}}, "replyTo"),
        ("WorkflowRun", {"workflow": {"nodes": [{"memory": {}}]}}, "workflow.nodes[0].memory"),
        ("Agent", {"memory": {}}, "memory"),
        ("Tool", {"mcp": {"url": "https://x"}}, "mcp"),
    ],
)
def test_unsupported_names_the_path(kind: str, spec: dict[str, Any], path: str) -> None:
    assert paths(kind, spec) == [path]


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("WorkflowRun", {"priority": 0, "suspend": False, "dryRun": False, "stop": True}),
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
        "Tool": (supported._TOOL, ()),
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
