from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from fairlead.egress import EgressTransport, Policy, build_client
from fairlead.errors import Refused
from fairlead.testing.standins import StandIn, running_standin
from fairlead.tools.base import ToolContext, ToolFailed
from fairlead.tools.child import Children
from fairlead.tools.http_request import HttpRequest
from fairlead.tools.json_query import JsonQuery
from fairlead.tools.registry import Registry


async def no_config_map(name: str, key: str) -> bytes:
    raise AssertionError(name, key)


async def query(data: Any, expression: str, *, seconds: float = 10) -> Any:
    arguments = {"data": data, "expression": expression}
    return await Registry((JsonQuery(Children()),)).use("json_query", arguments, ToolContext(no_config_map, seconds))


async def test_json_query_finds() -> None:
    people = [{"name": "a", "age": 30}, {"name": "b", "age": 40}]
    assert await query(people, "[?age > `35`].name | [0]") == "b"
    assert await query(people, "nothing") is None


@pytest.mark.parametrize("expression", ["[?", "unknown_function(@)", "(" * 5000, "@" + ".a" * 3000])
async def test_json_query_bad_expression_is_told(expression: str) -> None:
    try:
        assert await query({"a": 1}, expression) is None
    except ToolFailed as failed:
        assert failed.reason in {"ToolFailed", "LimitExceeded"}  # noqa: PT017 - both are right


async def test_json_query_too_much_ends() -> None:
    with pytest.raises(ToolFailed) as failed:  # two to the power of forty
        await query("x", " | ".join(["[@, @]"] * 40), seconds=3)
    assert failed.value.reason in {"LimitExceeded", "ToolTimeout", "ToolFailed"}


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with running_standin() as server:
        yield server


async def request(policy: Policy, **arguments: Any) -> Any:
    async with build_client(EgressTransport(policy)) as client:
        tools = Registry((HttpRequest(client),))
        return await tools.use("http_request", arguments, ToolContext(no_config_map, 10))


async def test_http_request_posts_json(standin: StandIn) -> None:
    answer = await request(Policy(loopback=True), method="POST", url=f"{standin.url}/v1/messages", json={"model": "m"})
    assert answer["status"] == 200
    assert answer["json"]["model"] == "m"
    assert standin.seen[0].headers["content-type"] == "application/json"


async def test_http_request_cannot_forge_the_host(standin: StandIn) -> None:
    headers = {"Host": "other.example", "X-Mine": "yes"}
    await request(Policy(loopback=True), url=f"{standin.url}/v1/messages", headers=headers)
    assert standin.seen[0].headers["host"].startswith("127.0.0.1")
    assert standin.seen[0].headers["x-mine"] == "yes"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "http://169.254.169.254/", "http://[::1]/", "file:///etc/passwd"]
)
async def test_http_request_inside_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        await request(Policy(), url=url)


@pytest.mark.parametrize("headers", [{"X": "a\r\nEvil: 1"}, {"X\n": "a"}])
async def test_http_request_headers_cannot_be_smuggled(standin: StandIn, headers: dict[str, str]) -> None:
    with pytest.raises(Exception, match=r"cannot be sent|failed"):
        await request(Policy(loopback=True), url=f"{standin.url}/v1/messages", headers=headers)
    assert standin.seen == []


@pytest.mark.parametrize(
    "arguments",
    [{"body": "x", "json": 1}, {"method": "canary-1"}, {"url": ["canary-1"]}, {"timeoutSeconds": "canary-1"}],
)
async def test_http_request_wrong_arguments_are_told_without_what_is_in_them(arguments: dict[str, Any]) -> None:
    given = {"url": "https://example.com", "headers": {"Authorization": "Bearer canary-1"}, **arguments}
    with pytest.raises(ToolFailed) as failed:
        await request(Policy(), **given)
    assert failed.value.reason == "InvalidArguments"
    assert "canary" not in str(failed.value)


async def test_use_result_nested_beyond_measure_is_a_failed_tool() -> None:
    deep: Any = None
    for _ in range(600):
        deep = [deep]

    class Deep:
        name, description, schema = "deep", "nests", {"type": "object"}
        settings: Mapping[str, Any] = {}

        def is_idempotent(self, arguments: Any) -> bool:
            del arguments
            return True

        async def use(self, arguments: Any, context: ToolContext) -> Any:
            del arguments, context
            return deep

    with pytest.raises(ToolFailed, match="cannot be kept"):
        await Registry((Deep(),)).use("deep", {}, ToolContext(no_config_map, 10))
