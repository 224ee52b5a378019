"""Tool objects: their secrets, their approvals, and what becomes of a call that a dead gateway leaves open."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from fairlead.testing.echo import Echo, running_echo
from fairlead.testing.world import Pod, World

CANARY = "canary-5c7e0d91b3a4"
CONTENT = {"data": {"a": 42}}


@pytest.fixture
def echo() -> Iterator[Echo]:
    with running_echo() as server:
        yield server


def declared(echo: Echo, **changes: Any) -> dict[str, Any]:
    secret = {"secretKeyRef": {"name": "tickets", "key": "token"}}
    http = {
        "method": "POST",
        "url": f"{echo.url}/tickets/{{id}}",
        "headers": [{"name": "Authorization", "valueFrom": secret, "prefix": "Bearer "}],
        "timeoutSeconds": 30,
        **changes.pop("http", {}),
    }
    return {"declared": {"description": "Writes to a ticket.", "http": http, **changes}}


async def put_secret(world: World) -> None:
    data = {"token": base64.b64encode(f"{CANARY}\n".encode()).decode()}
    metadata = {"name": "tickets", "namespace": world.namespace}
    await world.kube.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})


async def started(world: World, **given: Any) -> tuple[Any, Pod, dict[str, Any]]:
    run = await world.submit(**given)
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    return run, pod, task


async def use(pod: Pod, task: dict[str, Any], name: str, *, node: str = "", **arguments: Any) -> Any:
    request = {"name": name, "arguments": arguments}
    return await pod.call(task, node or name, action="tool", tool=request, digest=str(sorted(arguments.items())))


async def test_http_tool_secret_appears_nowhere(world: World, echo: Echo) -> None:
    await put_secret(world)
    run, pod, task = await started(
        world, tools=declared(echo, parameters={"type": "object", "properties": {"id": {}, "note": {}}})
    )

    reply = (await use(pod, task, "declared", id="7/../8", note="hi")).json()
    echo.statuses.append(403)
    request = {"name": "declared", "arguments": {"id": "9"}}
    failed = (await pod.call(task, "declared", number=2, action="tool", tool=request)).json()

    sent = echo.asked[0]
    assert (sent["method"], sent["path"], sent["body"]) == ("POST", "/tickets/7%2F..%2F8", '{"note":"hi"}')
    assert sent["headers"]["authorization"] == f"Bearer {CANARY}"
    assert reply["result"]["headers"]["authorization"] == "Bearer [redacted]", "the other side repeated it"
    assert (failed["error"]["reason"], failed["error"]["retryable"]) == ("ToolFailed", False)
    assert "answered 403" in failed["error"]["message"]
    spans, calls = await world.storage.spans_of_run(run.uid), await world.storage.calls_of_run(run.uid)
    kept = b"".join(path.read_bytes() for path in world.folder.iterdir()).decode(errors="replace")
    assert run.uid in kept, "the database and the log are what was looked at"
    for place in (reply, failed, spans, calls, task, kept):
        assert CANARY not in str(place)
        assert "5c7e0d91b3a4" not in str(place)


async def test_http_tool_without_its_secret_is_told(world: World, echo: Echo) -> None:
    _, pod, task = await started(world, tools=declared(echo))
    error = (await use(pod, task, "declared", id="7")).json()["error"]
    assert (error["reason"], error["retryable"]) == ("SecretNotFound", True)
    assert "Tool declared" in error["message"]
    assert echo.asked == []


async def test_http_tool_wrong_arguments_are_not_sent(world: World, echo: Echo) -> None:
    await put_secret(world)
    _, pod, task = await started(world, tools=declared(echo))
    error = (await use(pod, task, "declared", id=7)).json()["error"]
    assert (error["reason"], error["retryable"]) == ("InvalidArguments", False)
    assert echo.asked == []


async def test_tool_that_requires_approval_needs_one_for_these_arguments(world: World) -> None:
    run, pod, task = await started(world)
    key = "guarded/-/1/1/1"
    tool = {"name": "guarded", "arguments": CONTENT}
    before = await use(pod, task, "guarded", **CONTENT)
    await pod.task(task, "approvals", key=key, node="guarded", message="May I?", tool=tool)
    waiting = await use(pod, task, "guarded", **CONTENT)
    asked = (await world.storage.approvals_of_run(run.uid))[0]
    assert asked.tool == tool, "people see what they approve"
    await world.decide(run.name, key=key, approved=True)

    other = await use(pod, task, "guarded", data={"a": 666})
    alike = await use(pod, task, "guarded", data={"a": 42.0})
    request = {"name": "guarded", "arguments": CONTENT}
    elsewhere = await pod.call(task, "guarded", number=2, action="tool", tool=request)
    approved = await use(pod, task, "guarded", **CONTENT)

    refused = (before, waiting, other, alike, elsewhere)
    assert {(answer.status_code, answer.json()["reason"]) for answer in refused} == {(403, "ApprovalRequired")}
    assert approved.json()["result"] == 42, "what the Tool fixes was added"


async def test_tool_that_was_rejected_is_not_used(world: World) -> None:
    run, pod, task = await started(world)
    tool = {"name": "guarded", "arguments": CONTENT}
    await pod.task(task, "approvals", key="guarded/-/1/1/1", node="guarded", message="?", tool=tool)
    await world.decide(run.name, node="guarded", approved=False, comment="no")
    assert (await use(pod, task, "guarded", **CONTENT)).status_code == 403
