"""What happens to calls when the gateway ends, in order or not."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fairlead.testing.echo import Echo, running_echo
from fairlead.testing.gateway import stop_gateway
from fairlead.testing.world import NODES, World

SLOW = {"model": "default", "messages": [{"role": "user", "content": "slow"}]}

NAP: dict[str, Any] = {"name": "nap", "code": {"language": "shell", "source": "sleep 1; echo done"}}
NAPPED = {"output": None, "stdout": "done\n", "stderr": "", "files": {}, "notes": []}


@pytest.fixture
def own_gateway() -> dict[str, str]:
    return {"allow_loopback_tools": "true", "sandbox": "bubblewrap"}


@pytest.fixture
def echo() -> Iterator[Echo]:
    with running_echo() as server:
        yield server


async def intent_of(world: World, uid: str) -> None:
    """Wait until the call is committed, and so perhaps sent."""
    deadline = asyncio.get_running_loop().time() + 10
    while not await world.storage.calls_of_run(uid):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)


async def test_sigterm_lets_a_call_finish(world: World) -> None:
    run = await world.submit()
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    calling = asyncio.create_task(pod.call(task, "slow", llm=SLOW))
    await intent_of(world, run.uid)

    world.gateway.process.send_signal(signal.SIGTERM)

    assert (await calling).json()["result"] == "late"
    assert await asyncio.to_thread(world.gateway.process.wait, 20) == 0


async def test_sigterm_ends_a_waiting_claim_at_once(world: World) -> None:
    pod = await world.pod("agent-0")
    waiting = asyncio.create_task(pod.claim(waitSeconds=30))
    await asyncio.wait((waiting,), timeout=0.3)
    world.gateway.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(waiting, 10) == []
    assert await asyncio.to_thread(world.gateway.process.wait, 20) == 0


@pytest.mark.parametrize(
    ("node", "request_", "result"),
    [
        pytest.param("slow", {"llm": SLOW}, "late", id="model"),
        pytest.param("nap", {"action": "code", "code": {}}, NAPPED, id="program", marks=pytest.mark.bubblewrap),
    ],
)
async def test_kill_in_a_call_repeats_it_after_the_restart(
    world: World, node: str, request_: dict[str, Any], result: Any
) -> None:
    run = await world.submit(nodes=[*NODES, NAP])
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    await pod.append(task, 0, {"kind": "NodeStarted", "node": node})
    calling = asyncio.create_task(pod.call(task, node, **request_))
    await intent_of(world, run.uid)

    world.gateway.process.kill()
    await asyncio.gather(calling, return_exceptions=True)
    assert isinstance(calling.exception(), httpx.HTTPError)
    stop_gateway(world.gateway)
    world.start()
    pod.client = await world.client()  # the authority is the same; the session still holds

    reply = (await pod.call(task, node, **request_)).json()
    assert (reply["result"], reply["replayed"]) == (result, False)
    (call,) = await world.storage.calls_of_run(run.uid)
    assert call.repeats == 1
    grown = await pod.append(task, 1, {"kind": "NodeFinished", "node": node, "state": "Succeeded"})
    assert grown.json()["length"] == 2
    (node,) = await world.storage.nodes_of_run(run.uid)
    assert node.started_at is not None, "known from the journal, not from the process that died"


async def test_kill_of_the_pod_keeps_the_answer(world: World) -> None:
    run = await world.submit()
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    calling = asyncio.create_task(pod.call(task, "slow", llm=SLOW))
    await intent_of(world, run.uid)
    calling.cancel()  # the connection is gone with the pod
    await asyncio.gather(calling, return_exceptions=True)
    await pod.register()

    (again,) = await pod.claim()
    reply = (await pod.call(again, "slow", llm=SLOW)).json()

    assert reply["result"] == "late"
    (call,) = await world.storage.calls_of_run(run.uid)
    assert (call.repeats, call.intent.started_at < (call.answer.finished_at if call.answer else run.created_at)) == (
        0,
        True,
    )


async def test_kill_in_a_tool_call_repeats_only_what_may_be_repeated(world: World, echo: Echo) -> None:
    """An http Tool that posts is not sent again: nobody knows whether the other side did what it was asked."""
    nodes = [{"name": name, "tool": {"name": name, "arguments": {}}} for name in ("posts", "asks")]
    tools = {
        name: {"http": {"method": "POST", "url": f"{echo.url}/{name}"}, **more}
        for name, more in (("posts", {}), ("asks", {"idempotent": True}))
    }
    run = await world.submit(nodes=nodes, tools=tools)
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    echo.go.clear()
    asked: dict[str, dict[str, Any]] = {
        name: {"action": "tool", "tool": {"name": name, "arguments": {}}} for name in tools
    }
    calling = [asyncio.create_task(pod.call(task, name, **body)) for name, body in asked.items()]
    deadline = asyncio.get_running_loop().time() + 20
    while len(echo.asked) < len(tools):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)
    world.gateway.process.kill()
    await asyncio.gather(*calling, return_exceptions=True)
    echo.go.set()
    stop_gateway(world.gateway)
    world.start()
    pod.client = await world.client()

    answers = await asyncio.gather(*(pod.call(task, name, **body) for name, body in asked.items()))

    posted, asking = [answer.json() for answer in answers]
    assert (posted["error"]["reason"], posted["error"]["retryable"]) == ("OutcomeUnknown", False)
    assert asking["result"]["path"] == "/asks"
    assert sorted(seen["path"] for seen in echo.asked) == ["/asks", "/asks", "/posts"]
    assert {call.intent.node: call.repeats for call in await world.storage.calls_of_run(run.uid)} == {
        "posts": 0,
        "asks": 1,
    }
    again = (await pod.call(task, "posts", **asked["posts"])).json()
    assert again["error"] == posted["error"], "it stays unknown, and is never sent again"
