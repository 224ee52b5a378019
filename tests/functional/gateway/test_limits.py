"""What is too large, malformed or badly timed."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator

import httpx
import pytest

from fairlead.testing.world import World

ENDED = {"kind": "RunFinished", "state": "Succeeded"}


async def test_append_output_over_a_mebibyte_is_refused(world: World) -> None:
    await world.submit()
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()

    answer = await pod.append(task, 0, ENDED | {"output": "x" * (1 << 20)})

    assert (answer.status_code, answer.json()["reason"]) == (413, "TooLarge")
    assert (await pod.append(task, 0, ENDED | {"output": "x" * ((1 << 20) - 2)})).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_over_the_limit_is_refused(world: World, chunked: bool) -> None:
    pod = await world.pod("agent-0")
    block = b" " * (1 << 20)

    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(26):
            yield block

    content = blocks() if chunked else block * 26
    headers = {"Authorization": f"Bearer {pod.session}"}
    try:
        answer = await pod.client.post("/v1/heartbeat", content=content, headers=headers)
    except (httpx.WriteError, httpx.RemoteProtocolError):
        return  # hung up on in the middle: as good
    assert (answer.status_code, answer.json()["reason"]) == (413, "TooLarge")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"limit": 0}', '{"limit": "many"}', "\x00", '{"limit": 1e400}'])
async def test_body_that_is_malformed_is_told(world: World, content: str) -> None:
    pod = await world.pod("agent-0")
    headers = {"Authorization": f"Bearer {pod.session}"}
    answer = await pod.client.post("/v1/claim", content=content, headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (422, "InvalidRequest")


async def test_path_that_is_unknown_is_told(world: World) -> None:
    client = await world.client()
    answer = await client.get("/v2/nothing")
    assert (answer.status_code, answer.json()["reason"]) == (404, "NotFound")
    assert (await client.get("/v1/claim")).json()["reason"] == "MethodNotAllowed"


async def test_health_says_that_it_lives_and_can_work(world: World) -> None:
    client = await world.client()
    assert [(await client.get(path)).text for path in ("/healthz", "/readyz")] == ["ok", "ok"]


async def test_storage_that_is_locked_means_try_again(world: World) -> None:
    await world.submit()
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    lock = sqlite3.connect(world.gateway.storage_url.removeprefix("sqlite:///"), isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    try:
        answer = await pod.append(task, 0, {"kind": "NodeStarted", "node": "greet"})
    finally:
        lock.execute("ROLLBACK")
        lock.close()
    assert (answer.status_code, answer.json()["reason"]) == (503, "Unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert (await pod.append(task, 0, {"kind": "NodeStarted", "node": "greet"})).json()["length"] == 1


async def test_log_lines_are_bounded_and_redacted(world: World) -> None:
    run = await world.submit()
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    texts = ["x" * 20_000, "Authorization: Bearer abcdefghijkl-canary"]
    lines = [{"at": "2026-01-02T03:04:05Z", "text": text} for text in texts]
    answer = await pod.post(f"/tasks/{task['id']}/logs", {"attempt": 1, "first": 0, "lines": lines})
    assert answer.status_code == 204
    long, secret = await world.storage.logs_of_run(run.uid)
    assert len(long.text) < 17_000
    assert "canary" not in secret.text
