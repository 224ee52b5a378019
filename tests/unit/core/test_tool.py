"""What is said of Tools."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fairlead.core import names
from fairlead.core.statuses import status_patch
from fairlead.core.tool import plan_tool, tool_type

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ID = {"type": "object", "properties": {"id": {"type": "string"}}}


def make(spec: dict[str, Any]) -> dict[str, Any]:
    meta = {"name": "t", "namespace": "n", "uid": "u", "generation": 1}
    return {"apiVersion": names.API_VERSION, "kind": "Tool", "metadata": meta, "spec": spec}


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        pytest.param({"builtin": {"name": "sql"}}, "Accepted", "built-in tool sql", id="builtin"),
        pytest.param({"http": {"url": "https://api.example.com/x"}}, "Accepted", "go to api.example.com", id="http"),
        pytest.param(
            {"builtin": {"name": "sql"}, "requireApproval": True}, "Accepted", "needs an approval", id="approval"
        ),
        pytest.param({"http": {"url": "https://x/{id}"}, "parameters": ID}, "Accepted", "", id="parameters"),
        pytest.param({"mcp": {"url": "https://x"}}, "NotSupported", "spec.mcp", id="mcp"),
        pytest.param({"builtin": {"name": "sqll"}}, "ToolNotFound", 'did you mean "sql"?', id="unknown-builtin"),
        pytest.param({"http": {"url": "https://{host}/x"}}, "InvalidSpec", "cannot choose the host", id="host"),
        pytest.param({"http": {"url": "https://x?{a b}"}}, "InvalidSpec", "is no argument", id="no-argument"),
        pytest.param(
            {"http": {"url": "https://x/{ids}"}, "parameters": ID},
            "InvalidSpec",
            'spec.http.url: "ids" is no parameter: did you mean "id"?',
            id="no-parameter",
        ),
        pytest.param(
            {"http": {"url": "https://x", "query": ["q"]}, "parameters": {"type": "object"}},
            "InvalidSpec",
            "spec.http.query",
            id="query",
        ),
        pytest.param(
            {"http": {"url": "https://x", "query": ["q"], "body": ["q"]}}, "InvalidSpec", "remove one", id="twice"
        ),
        pytest.param(
            {"http": {"url": "https://x"}, "parameters": {"type": "objekt"}}, "InvalidSpec", "JSON Schema", id="schema"
        ),
        pytest.param(
            {"http": {"url": "https://x"}, "parameters": {"type": "object", "allOf": [{"$ref": "#"}] * 2}},
            "InvalidSpec",
            "spec.parameters: no JSON Schema: it unfolds to more than",
            id="schema-without-end",
        ),
        pytest.param(
            {"http": {"url": "https://x"}, "parameters": {"type": "array"}}, "InvalidSpec", "type: object", id="array"
        ),
    ],
)
def test_plan_tool(spec: dict[str, Any], reason: str, words: str) -> None:
    plan = plan_tool(make(spec))
    ready = plan.conditions[0]
    assert (ready.status, ready.reason) == ("True" if reason == "Accepted" else "False", reason)
    assert words in ready.message
    assert len(plan.conditions) == (1 if reason == "Accepted" else 2)


def test_plan_tool_again_changes_nothing() -> None:
    tool = make({"http": {"url": "https://x/{id}"}})
    tool["status"] = status_patch(tool, plan_tool(tool), now=NOW)
    assert tool["status"]["type"] == "http"
    assert status_patch(tool, plan_tool(tool), now=NOW) == {}


@pytest.mark.parametrize(
    ("spec", "expected"), [({"builtin": {"name": "sql"}}, "sql"), ({"mcp": {"url": "x"}}, "mcp"), ({}, "")]
)
def test_tool_type(spec: dict[str, Any], expected: str) -> None:
    assert tool_type(spec) == expected


@pytest.mark.parametrize(
    ("config", "words"),
    [
        pytest.param({"network": {"allow": ["api.example.com"]}, "limits": {"memoryMiB": 64}}, "", id="good"),
        pytest.param({"source": "output = 1", "files": {"lib.py": "x"}, "inputs": {"a": 1}}, "", id="a-fixed-program"),
        pytest.param({"command": "ls"}, 'unknown field "command"', id="the-other-tool-s"),
        pytest.param({"limits": {"memoryMiB": 1}}, "spec.builtin.config.limits.memoryMiB: 1 is too small", id="limit"),
        pytest.param({"limits": {"memory": 1}}, 'unknown field "memory"', id="no-limit"),
        pytest.param({"network": {"allow": ["https://a"]}}, "spec.builtin.config.network.allow[0]", id="no-host"),
        pytest.param({"files": {"../x": ""}}, "spec.builtin.config.files: a file's name is", id="file"),
    ],
)
def test_plan_tool_that_runs_programs(config: dict[str, Any], words: str) -> None:
    ready = plan_tool(make({"builtin": {"name": "python", "config": config}})).conditions[0]
    assert ready.reason == ("InvalidSpec" if words else "Accepted")
    assert words in ready.message
