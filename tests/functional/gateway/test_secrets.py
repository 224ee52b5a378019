"""A provider's key is where it is needed and nowhere else."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from fairlead.testing.standins import Failure, StandIn, running_standin
from fairlead.testing.world import World

KEY = "sk-canary-7b1e5f0a9cd2"
ASKED = {"model": "cloud", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with running_standin() as server:
        yield server


def cloud(standin: StandIn, **changes: Any) -> dict[str, Any]:
    key = {"valueFrom": {"secretKeyRef": {"name": "provider", "key": "key"}}}
    return {"model": "openai/gpt-4o-mini", "baseURL": f"{standin.url}/v1", "apiKey": key, "retries": 1, **changes}


async def put_key(world: World) -> None:
    data = {"key": base64.b64encode(f"{KEY}\n".encode()).decode()}
    metadata = {"name": "provider", "namespace": world.namespace}
    await world.kube.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})


async def test_call_key_appears_nowhere(world: World, standin: StandIn) -> None:
    await put_key(world)
    run = await world.submit(models={"cloud": cloud(standin)})
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    replies = [(await pod.call(task, "cloud", llm=ASKED)).json()]
    standin.failures += [Failure(401, f"wrong key {KEY}"), Failure(500, f"{KEY} boom"), Failure(500, f"{KEY} boom")]
    replies += [(await pod.call(task, "cloud", number=n, llm=ASKED)).json() for n in (2, 3)]

    assert [seen.headers["authorization"] for seen in standin.asked] == [f"Bearer {KEY}"] * 4
    assert replies[0]["result"] == standin.text
    assert replies[0]["cost"] == "0.00000585"  # 11 in at 0.15 and 7 out at 0.60 dollars a million
    assert [reply["error"]["reason"] for reply in replies[1:]] == ["AuthenticationFailed", "ModelUnavailable"]
    spans, calls = await world.storage.spans_of_run(run.uid), await world.storage.calls_of_run(run.uid)
    kept = b"".join(path.read_bytes() for path in world.folder.iterdir())
    assert run.uid.encode() in kept, "the database and the log are what was looked at"
    for place in (str(replies), str(spans), str(calls), task, kept.decode(errors="replace")):
        assert KEY not in str(place)
        assert "7b1e5f0a9cd2" not in str(place)


async def test_call_key_that_is_missing_is_told(world: World, standin: StandIn) -> None:
    await world.submit(models={"cloud": cloud(standin)})
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    error = (await pod.call(task, "cloud", llm=ASKED)).json()["error"]
    assert (error["reason"], error["retryable"]) == ("SecretNotFound", True)
    assert "Secret" in error["message"]
    assert standin.seen == []


async def test_call_of_an_unpriced_model_is_counted(world: World, standin: StandIn) -> None:
    await put_key(world)
    run = await world.submit(models={"cloud": cloud(standin, model="openai/own-server")})
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    assert (await pod.call(task, "cloud", llm=ASKED)).json()["cost"] is None
    stored = await world.storage.get_run(run.uid)
    assert stored is not None
    assert (stored.unpriced_calls, stored.cost, stored.input_tokens) == (1, 0, 11)


async def test_call_priced_by_the_model_is_exact(world: World, standin: StandIn) -> None:
    await put_key(world)
    price = {"inputPerMillionTokens": "3", "outputPerMillionTokens": "15.000001"}
    await world.submit(models={"cloud": cloud(standin, price=price)})
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    assert (await pod.call(task, "cloud", llm=ASKED)).json()["cost"] == "0.000138000007"


async def test_call_rate_limit_is_waited_out(world: World, standin: StandIn) -> None:
    await put_key(world)
    standin.failures.append(Failure(429, "slow", {"retry-after": "1"}))
    await world.submit(models={"cloud": cloud(standin)})
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    assert (await pod.call(task, "cloud", llm=ASKED)).json()["result"] == standin.text
    assert len(standin.asked) == 2
