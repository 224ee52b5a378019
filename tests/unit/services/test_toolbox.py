from __future__ import annotations

from typing import Any

import pytest

from fairlead.errors import InvalidObject, NotSupported
from fairlead.services.tasks import TaskContext
from fairlead.services.toolbox import Toolbox
from fairlead.testing.kube import FakeKube
from fairlead.tools.base import ToolFailed
from fairlead.tools.child import Children
from fairlead.tools.http_request import HttpRequest
from fairlead.tools.json_query import JsonQuery
from fairlead.tools.registry import Registry
from fairlead.tools.sql import Sql
from fairlead_agent.protocol import ToolRequest

NOBODY: Any = None
QUERY = {"builtin": {"name": "json_query", "config": {"expression": "a.b"}}}
PUTS = {"builtin": {"name": "http_request", "config": {"method": "PUT"}}}
POSTS = {"http": {"method": "POST", "url": "https://api.example/{id}"}}


def toolbox() -> Toolbox:
    children = Children()
    registry = Registry((HttpRequest(NOBODY), JsonQuery(children), Sql(children)))
    kube: Any = FakeKube()
    return Toolbox(kube, registry, NOBODY, children=children, timeout_seconds=10)


def context(**tools: Any) -> TaskContext:
    document = {"workflow": {"name": "w", "spec": {}}, "tools": tools}
    return TaskContext("t", "r", "ns", "run", "w", None, document)


def test_info_of_a_built_in_tool_is_its_own() -> None:
    info = toolbox().info(context(), "sql")
    assert info is not None
    assert "DuckDB" in info.description
    assert info.parameters["required"] == ["query"]
    assert info.require_approval is False


def test_info_of_a_configured_tool_hides_what_is_fixed() -> None:
    spec = {**QUERY, "description": "Finds b.", "requireApproval": True, "approvers": ["boss"]}
    info = toolbox().info(context(find=spec), "find")
    assert info is not None
    assert (info.description, info.require_approval, info.approvers) == ("Finds b.", True, ("boss",))
    assert set(info.parameters["properties"]) == {"data"}
    assert info.parameters["required"] == ["data"]


def test_info_of_an_object_stands_before_the_built_in_tool_of_its_name() -> None:
    info = toolbox().info(context(sql=POSTS), "sql")
    assert info is not None
    assert info.parameters["required"] == ["id"]


def test_info_of_an_unknown_tool_is_none() -> None:
    assert toolbox().info(context(), "absent") is None


def test_info_of_a_broken_tool_is_told() -> None:
    with pytest.raises(InvalidObject, match="Tool bad"):
        toolbox().info(context(bad={"http": {"method": "BREW"}}), "bad")


@pytest.mark.parametrize(
    ("name", "spec", "arguments", "expected"),
    [
        pytest.param("sql", None, {}, True, id="sql"),
        pytest.param("http_request", None, {}, True, id="get"),
        pytest.param("http_request", None, {"method": "POST"}, False, id="post"),
        pytest.param("t", PUTS, {}, False, id="fixed-put"),
        pytest.param("t", QUERY, {}, True, id="configured"),
        pytest.param("t", POSTS, {}, False, id="http-post"),
        pytest.param("t", {"http": {"method": "GET", "url": "https://a.example"}}, {}, True, id="http-get"),
        pytest.param("t", {**POSTS, "idempotent": True}, {}, True, id="said-to-be"),
        pytest.param("t", {**QUERY, "idempotent": False}, {}, False, id="said-not-to-be"),
        pytest.param("absent", None, {}, False, id="unknown"),
    ],
)
def test_is_idempotent(name: str, spec: Any, arguments: dict[str, Any], expected: bool) -> None:
    given = context(**({} if spec is None else {name: spec}))
    assert toolbox().is_idempotent(given, ToolRequest(name=name, arguments=arguments)) is expected


async def test_use_configured_tool_adds_what_is_fixed() -> None:
    request = ToolRequest(name="find", arguments={"data": {"a": {"b": 7}}})
    outcome = await toolbox().use(context(find=QUERY), request, timeout_seconds=10)
    assert outcome.reply.result == 7


async def test_use_configured_tool_cannot_be_given_what_is_fixed() -> None:
    request = ToolRequest(name="find", arguments={"data": {}, "expression": "@"})
    with pytest.raises(ToolFailed) as failed:
        await toolbox().use(context(find=QUERY), request, timeout_seconds=10)
    assert failed.value.reason == "InvalidArguments"


async def test_use_mcp_is_not_supported() -> None:
    mcp = {"mcp": {"url": "https://a.example"}}
    with pytest.raises(NotSupported):
        await toolbox().use(context(t=mcp), ToolRequest(name="t"), timeout_seconds=10)


@pytest.mark.parametrize("reference", ["http://127.0.0.1:9/schema", "file:///etc/passwd"])
async def test_use_schema_that_refers_elsewhere_is_not_fetched(reference: str) -> None:
    spec = {**POSTS, "parameters": {"$ref": reference}}
    with pytest.raises(ToolFailed, match="no JSON Schema"):
        await toolbox().use(context(t=spec), ToolRequest(name="t"), timeout_seconds=10)


async def test_use_schema_that_makes_much_work_is_refused() -> None:
    links = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    spec = {**POSTS, "parameters": {"type": "object", "$defs": links | {"d40": {}}, "$ref": "#/$defs/d0"}}
    with pytest.raises(ToolFailed, match="it unfolds to more than"):
        await toolbox().use(context(t=spec), ToolRequest(name="t"), timeout_seconds=10)
