"""What happens to calls when the gateway ends, in order or not."""

from __future__ import annotations

import asyncio
import signal

import httpx
import pytest

from fairlead.testing.gateway import stop_gateway
from fairlead.testing.world import World

SLOW = {"model": "default", "messages": [{"role": "user", "content": "slow"}]}


@pytest.fixture
def own_gateway() -> dict[str, str]:
    return {}


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


async def test_kill_in_a_call_repeats_it_after_the_restart(world: World) -> None:
    run = await world.submit()
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    await pod.append(task, 0, {"kind": "NodeStarted", "node": "slow"})
    calling = asyncio.create_task(pod.call(task, "slow", llm=SLOW))
    await intent_of(world, run.uid)

    world.gateway.process.kill()
    await asyncio.gather(calling, return_exceptions=True)
    assert isinstance(calling.exception(), httpx.HTTPError)
    stop_gateway(world.gateway)
    world.start()
    pod.client = await world.client()  # the authority is the same; the session still holds

    reply = (await pod.call(task, "slow", llm=SLOW)).json()
    assert (reply["result"], reply["replayed"]) == ("late", False)
    (call,) = await world.storage.calls_of_run(run.uid)
    assert call.repeats == 1
    assert (await pod.append(task, 1, {"kind": "NodeFinished", "node": "slow", "state": "Succeeded"})).json() == {
        "length": 2
    }
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
