"""The wire contract, spoken to a real gateway process over TLS."""

from __future__ import annotations

import asyncio

from fairlead.kube import Ref
from fairlead.services.traces import load_trace
from fairlead.storage.base import RunState
from fairlead.testing.world import World


async def test_register_gives_a_session_and_a_lease(world: World) -> None:
    pod = await world.pod("agent-0")

    assert pod.info["pool"] == f"{world.cluster}/{world.namespace}/agent/default"
    assert pod.info["leaseDurationSeconds"] == 15
    lease = await world.kube.get(Ref("coordination.k8s.io/v1", "Lease", "agent-0", world.namespace))
    assert lease is not None
    owner = lease["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Pod", "agent-0", lease["spec"]["holderIdentity"])
    assert lease["metadata"]["labels"]["fairlead.dev/agent"] == "default"


async def test_heartbeat_renews_the_lease(world: World) -> None:
    pod = await world.pod("agent-0")
    ref = Ref("coordination.k8s.io/v1", "Lease", "agent-0", world.namespace)
    before = (await world.kube.get(ref))["spec"]["renewTime"]

    answer = await pod.post("/heartbeat", {"tasks": ["unknown"]})

    assert answer.json() == {"cancel": [], "lost": ["unknown"], "suspend": [], "drain": False}
    assert (await world.kube.get(ref))["spec"]["renewTime"] > before


async def test_claim_runs_a_workflow_to_its_end(world: World) -> None:
    run = await world.submit()
    pod = await world.pod("agent-0")

    (task,) = await pod.claim()
    assert task["run"]["uid"] == run.uid
    assert task["attempt"] == 1
    assert task["inputs"] == {"message": "m"}
    asked = {"model": "default", "messages": [{"role": "user", "content": "hello you"}]}
    reply = (await pod.call(task, "greet", llm=asked)).json()
    assert (reply["result"], reply["scripted"], reply["replayed"], reply["cost"]) == ("hi there", True, False, "0")
    started = {"kind": "NodeStarted", "node": "greet"}
    finished = {"kind": "NodeFinished", "node": "greet", "state": "Succeeded", "output": "hi there"}
    ended = {"kind": "RunFinished", "state": "Succeeded", "output": "hi there"}
    progress = {"done": 0, "total": 1, "current": ["greet"]}
    assert (await pod.append(task, 0, started, progress=progress)).json()["length"] == 1
    assert (await pod.append(task, 1, finished, ended)).json()["length"] == 3

    stored = await world.storage.get_run(run.uid)
    assert (stored.state, stored.output) == (RunState.SUCCEEDED, "hi there")
    assert stored.input_tokens > 0
    (node,) = await world.storage.nodes_of_run(run.uid)
    assert (node.state, node.output) == ("Succeeded", "hi there")
    spans = {span.kind: span for span in await load_trace(world.storage, stored)}
    assert spans["call"].parent_id == spans["node"].span_id
    assert spans["node"].parent_id == spans["run"].span_id
    assert {span.status for span in spans.values()} == {"ok"}


async def test_claim_waits_for_work(world: World) -> None:
    pod = await world.pod("agent-0")
    waiting = asyncio.create_task(pod.claim(waitSeconds=30))
    await asyncio.wait((waiting,), timeout=0.3)
    assert not waiting.done()

    run = await world.submit()

    (task,) = await asyncio.wait_for(waiting, 10)
    assert task["run"]["uid"] == run.uid
