"""Profiles, sums of costs and prices over the wire, and who may read them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from fairlead.services.planning import read_prices
from fairlead.testing.storage import NOW
from fairlead.testing.world import World

PRICED = {
    "scripted": {"responses": [{"reply": "hi there"}], "usage": {"inputTokens": 1000, "outputTokens": 10}},
    "price": {"inputPerMillionTokens": "0.15", "outputPerMillionTokens": "0.6"},
}


async def get(world: World, path: str, token: str) -> httpx.Response:
    client = await world.client()
    return await client.get(f"/v1{path}", headers={"Authorization": f"Bearer {token}"})


async def finish(world: World) -> Any:
    """Run a run of two nodes, one of which asks a model that has a price."""
    run = await world.submit(models={"default": PRICED})
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    asked = {"model": "default", "messages": [{"role": "user", "content": "hello"}]}
    done = {"state": "Succeeded", "output": "x"}
    await pod.append(task, 0, {"kind": "NodeStarted", "node": "greet", "at": NOW.isoformat()})
    await pod.call(task, "greet", llm=asked)
    await pod.append(
        task,
        1,
        {"kind": "NodeFinished", "node": "greet", **done},
        {"kind": "RunFinished", **done},
    )
    return run


async def test_a_run_is_explained_to_its_reader(world: World) -> None:
    run = await finish(world)
    token = await world.person("reader", "get")
    base = f"/namespaces/{world.namespace}"

    profile = (await get(world, f"{base}/runs/{run.name}/profile", token)).json()
    total = sum(part["seconds"] for part in profile["shares"].values())
    assert total == pytest.approx(profile["seconds"])
    assert sum(part["seconds"] for part in profile["criticalPath"]) == pytest.approx(profile["seconds"])
    (node,) = profile["nodes"]
    assert (node["node"], node["calls"], node["cost"]) == ("greet", 1, "0.000156")

    of_workflow = (await get(world, f"{base}/workflows/triage/profile?limit=5", token)).json()
    assert (of_workflow["runs"], of_workflow["cost"]) == (1, {"p50": "0.000156", "p95": "0.000156"})
    assert [one["node"] for one in of_workflow["nodes"]] == ["greet"]

    of_run = (await get(world, f"{base}/runs/{run.name}/costs", token)).json()
    assert [(row["node"], row["cost"]) for row in of_run["items"]] == [("greet", "0.000156")]
    by_node = (await get(world, f"/costs?by=node&workflow=triage&namespace={world.namespace}", token)).json()
    assert by_node["items"] == of_run["items"]
    by_model = (await get(world, f"/costs?by=model,day&namespace={world.namespace}", token)).json()
    (row,) = by_model["items"]
    assert (row["model"], row["cost"], row["usage"]) == (
        "default",
        "0.000156",
        {"inputTokens": 1000, "outputTokens": 10},
    )


async def test_prices_of_models_that_the_list_knows(world: World) -> None:
    token = await world.person("reader", "get")
    path = f"/namespaces/{world.namespace}/prices?model=openai/gpt-4.1-mini&model=acme/nothing"
    found = read_prices((await get(world, path, token)).json())
    assert list(found) == ["openai/gpt-4.1-mini"]
    price = found["openai/gpt-4.1-mini"]
    assert 0 < price.input < price.output
    assert price.max_output_tokens


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/costs?by=user&namespace={ns}", 422, "InvalidRequest"),
        ("/costs?by=node&namespace={ns}", 422, "InvalidRequest"),
        ("/costs?by=model", 403, "Forbidden"),
        ("/costs?since=yesterday&namespace={ns}", 422, "InvalidRequest"),
        ("/namespaces/default/workflows/triage/profile", 403, "Forbidden"),
        ("/namespaces/default/prices?model=x", 403, "Forbidden"),
        ("/namespaces/{ns}/prices", 422, "InvalidRequest"),
        ("/namespaces/{ns}/runs/none/profile", 404, "NotFound"),
        ("/namespaces/{ns}/runs/none/costs", 404, "NotFound"),
        ("/namespaces/{ns}/workflows/triage/profile?limit=0", 422, "InvalidRequest"),
    ],
)
async def test_what_cannot_be_explained_is_refused(world: World, path: str, status: int, reason: str) -> None:
    token = await world.person("reader", "get")
    answer = await get(world, path.format(ns=world.namespace), token)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
