"""What people read, and who may."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import orjson
import pytest

from fairlead.testing.world import Pod, World

ASKED = {"model": "default", "messages": [{"role": "user", "content": "hello"}]}


async def get(world: World, path: str, token: str) -> httpx.Response:
    client = await world.client()
    return await client.get(f"/v1{path}", headers={"Authorization": f"Bearer {token}"} if token else {})


async def finished(world: World) -> tuple[Any, Pod]:
    run = await world.submit()
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    await pod.append(task, 0, {"kind": "NodeStarted", "node": "greet"})
    await pod.call(task, "greet", llm=ASKED)
    line = {"at": "2026-01-02T03:04:05Z", "text": "half way", "node": "greet"}
    await pod.post(f"/tasks/{task['id']}/logs", {"attempt": 1, "first": 0, "lines": [line]})
    node = {"kind": "NodeFinished", "node": "greet", "state": "Succeeded", "output": {"a": 1}}
    await pod.append(task, 1, node, {"kind": "RunFinished", "state": "Succeeded", "output": {"a": 1}})
    return run, pod


async def test_reader_sees_everything_of_a_run(world: World) -> None:
    run, _ = await finished(world)
    token = await world.person("reader", "get")
    base = f"/namespaces/{world.namespace}/runs"

    (listed,) = (await get(world, base, token)).json()["items"]
    by_name, by_uid = [(await get(world, f"{base}/{key}", token)).json() for key in (run.name, run.uid)]
    assert by_name == by_uid
    assert by_name["scriptedCalls"] == 1
    assert listed["uid"] == run.uid
    assert (by_name["state"], by_name["reason"], by_name["attempt"]) == ("Succeeded", "Succeeded", 1)
    assert by_name["cost"] == {"total": "0", "known": "0", "unpricedCalls": 0, "currency": "USD"}
    assert by_name["usage"]["inputTokens"] > 0
    assert [(node["node"], node["state"]) for node in by_name["nodes"]] == [("greet", "Succeeded")]
    parts = {
        part: (await get(world, f"{base}/{run.name}/{part}", token)).json()
        for part in ("output", "logs", "trace", "journal", "calls")
    }
    assert parts["output"]["output"] == {"a": 1}
    assert [line["text"] for line in parts["logs"]["items"]] == ["half way"]
    assert [span["kind"] for span in parts["trace"]["items"]] == ["run", "node", "call"]
    assert [entry["kind"] for entry in parts["journal"]["items"]] == ["NodeStarted", "NodeFinished", "RunFinished"]
    assert parts["calls"]["items"][0]["reply"]["result"] == "hi there"
    costs = (await get(world, f"/costs?namespace={world.namespace}", token)).json()
    (row,) = costs["items"]
    assert (row["workflow"], row["calls"], row["cost"], row["scriptedCalls"]) == ("triage", 1, "0", 1)


@pytest.mark.parametrize(
    ("role", "path", "status", "reason"),
    [
        pytest.param("get", "/namespaces/{ns}/runs/none", 404, "NotFound", id="no-such-run"),
        pytest.param("get", "/namespaces/default/runs", 403, "Forbidden", id="another-namespace"),
        pytest.param("get", "/costs", 403, "Forbidden", id="all-namespaces"),
        pytest.param("", "/namespaces/{ns}/runs", 403, "Forbidden", id="no-role"),
        pytest.param("list", "/namespaces/{ns}/runs", 403, "Forbidden", id="another-verb"),
        pytest.param("get", "/namespaces/{ns}/runs?limit=0", 422, "InvalidRequest", id="bad-query"),
    ],
)
async def test_reader_is_refused(world: World, role: str, path: str, status: int, reason: str) -> None:
    token = await world.person("reader", *filter(None, [role]))
    answer = await get(world, path.format(ns=world.namespace), token)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)


@pytest.mark.parametrize("token", ["", "nonsense"])
async def test_nobody_is_refused(world: World, token: str) -> None:
    assert (await get(world, f"/namespaces/{world.namespace}/runs", token)).status_code == 401


async def test_agents_session_reads_nothing(world: World) -> None:
    run, pod = await finished(world)
    for token in (pod.session, pod.token):
        answer = await get(world, f"/namespaces/{world.namespace}/runs/{run.name}", token)
        assert answer.status_code in {401, 403}


async def test_run_of_another_namespace_is_not_found_by_uid(world: World) -> None:
    run, _ = await finished(world)
    token = world.server.admin_token
    if not token:
        pytest.skip("the cluster's administrator has no token")
    assert (await get(world, f"/namespaces/default/runs/{run.uid}", token)).status_code == 404


async def test_logs_are_followed_to_the_end(world: World) -> None:
    run = await world.submit()
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    token = await world.person("reader", "get")

    async def follow() -> list[str]:
        client = await world.client()
        path = f"/v1/namespaces/{world.namespace}/runs/{run.name}/logs?follow=true"
        async with client.stream("GET", path, headers={"Authorization": f"Bearer {token}"}) as answer:
            assert answer.headers["content-type"] == "application/x-ndjson"
            return [orjson.loads(line)["text"] async for line in answer.aiter_lines()]

    following = asyncio.create_task(follow())
    for first, text in enumerate(("one", "two")):
        line = {"at": "2026-01-02T03:04:05Z", "text": text}
        await pod.post(f"/tasks/{task['id']}/logs", {"attempt": 1, "first": first, "lines": [line]})
    await pod.append(task, 0, {"kind": "RunFinished", "state": "Succeeded"})
    assert await asyncio.wait_for(following, 20) == ["one", "two"]
