"""Who is registered and at work on what: as people are told, and who may ask."""

from __future__ import annotations

from typing import Any

import httpx

from fairlead.kube import Ref
from fairlead.testing.world import World


async def get(world: World, path: str, token: str) -> httpx.Response:
    client = await world.client()
    answer: httpx.Response = await client.get(
        f"/v1/namespaces/{world.namespace}/{path}", headers={"Authorization": f"Bearer {token}"}
    )
    return answer


async def test_agent_shows_its_pods_and_what_they_work_on(world: World) -> None:
    runs = [await world.submit() for _ in range(3)]
    busy, idle = await world.pod("agent-0"), await world.pod("agent-1")
    await world.pod("other-0", agent="other")
    (task,) = await busy.claim()
    token = await world.person("reader", "get")

    shown: dict[str, Any] = (await get(world, "agents/default", token)).json()
    assert (shown["name"], shown["queued"], shown["claimed"]) == ("default", 2, 1)
    assert [pod["pod"] for pod in shown["pods"]] == [busy.name, idle.name]
    first, second = shown["pods"]
    assert second["tasks"] == []
    assert first["tasks"] == [
        {"id": task["id"], "kind": "run", "run": runs[0].name, "runUid": runs[0].uid, "node": "", "attempt": 1}
    ]
    assert (first["version"], first["concurrency"]) == ("0.1.0", 2)
    pod = await world.kube.get(Ref("v1", "Pod", busy.name, world.namespace))
    assert pod is not None
    assert first["podUid"] == pod["metadata"]["uid"]
    assert (await get(world, "pods/agent-0", token)).json() == first
    assert not {"token", "tokenDigest", "session", "id"} & set(first)  # nothing that could be used


async def test_agent_without_pods_is_empty(world: World) -> None:
    token = await world.person("reader", "get")
    answer = await get(world, "agents/nobody", token)
    assert answer.json() == {"name": "nobody", "namespace": world.namespace, "queued": 0, "claimed": 0, "pods": []}


async def test_pod_that_is_not_registered_is_not_found(world: World) -> None:
    await world.pod("agent-0", registered=False)
    token = await world.person("reader", "get")
    answer = await get(world, "pods/agent-0", token)
    assert (answer.status_code, answer.json()["reason"]) == (404, "NotFound")


async def test_roster_is_refused_to_whom_runs_are(world: World) -> None:
    pod = await world.pod("agent-0")
    nobody = await world.person("nobody")
    for path in ("agents/default", "pods/agent-0"):
        assert (await get(world, path, nobody)).status_code == 403
        assert (await get(world, path, "nonsense")).status_code == 401
        assert (await get(world, path, pod.session)).status_code in {401, 403}
