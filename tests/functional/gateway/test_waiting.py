"""Tasks that wait without a pod: parked, woken by a decision, a turn's answer, a time or the end of a suspension."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from fairlead.services.traces import load_trace
from fairlead.storage.base import RunState
from fairlead.testing.world import Pod, World
from fairlead_agent.protocol import RESUME, call_key

KEY = call_key("ship", None, 1, 1, 1)
TURN = call_key("fix", None, 1, 1, 1)
WAITING = {"kind": "Waiting", "node": "ship", "wait": {"kind": "Approval", "key": KEY}}
TOLD = {"key": TURN, "node": "fix", "agent": "engineer", "prompt": "mend it"}


async def started(world: World, **given: Any) -> tuple[Any, Pod, dict[str, Any]]:
    run = await world.submit(**given)
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    return run, pod, task


async def ask(pod: Pod, task: dict[str, Any], **changes: Any) -> httpx.Response:
    return await pod.task(task, "approvals", **{"key": KEY, "node": "ship", "message": "Ship it?"} | changes)


async def parked(pod: Pod, task: dict[str, Any], **asked: Any) -> dict[str, Any]:
    answer = await pod.task(task, "park", **asked)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


async def test_claim_tells_all_that_the_engine_needs(world: World) -> None:
    _, _, task = await started(world)

    assert task["kind"] == "run"
    assert task["workflows"]["small"]["nodes"][0]["name"] == "greet"
    assert task["tools"]["sql"]["parameters"]["required"] == ["query"]
    guarded = task["tools"]["guarded"]
    assert guarded["requireApproval"] is True
    assert guarded["parameters"]["required"] == ["data"], "what the Tool fixes, nobody has to give"
    assert "expression" not in guarded["parameters"]["properties"]
    assert set(task["definitions"]) >= {"model:default", "agent:engineer", "tool:guarded"}
    assert (task["signals"], task["suspended"], task["cancel"], task["rerun"]) == ([], False, False, None)


async def test_park_until_a_person_decides(world: World) -> None:
    run, pod, task = await started(world)
    await pod.append(task, 0, {"kind": "NodeStarted", "node": "ship"}, WAITING)
    assert (await ask(pod, task)).status_code == 204
    assert (await ask(pod, task, message="Something else?")).status_code == 204

    assert (await parked(pod, task, keys=[KEY], reason="Approval")) == {"parked": True, "signals": []}
    assert await pod.claim() == []
    assert (await pod.append(task, 2)).status_code == 409, "a parked task is nobody's"
    stored = await world.storage.get_run(run.uid)
    assert stored is not None
    assert (stored.state, stored.parked, stored.pending_approvals) == (RunState.RUNNING, "Approval", 1)
    (node,) = await world.storage.nodes_of_run(run.uid)
    assert (node.state, node.reason) == ("Waiting", "Approval")
    decided = await world.decide(run.name, node="ship", approved=True, comment="fine")
    assert decided.json()["message"] == "Ship it?"

    (again,) = await pod.claim(waitSeconds=20)
    (signal,) = again["signals"]
    assert (signal["key"], signal["value"]["approved"], signal["value"]["comment"]) == (KEY, True, "fine")
    assert signal["value"]["by"] == decided.json()["decidedBy"] != ""
    assert [entry["kind"] for entry in again["journal"]] == ["NodeStarted", "Waiting"]
    stored = await world.storage.get_run(run.uid)
    assert stored is not None
    assert (stored.attempt, stored.parked, stored.pending_approvals) == (1, "", 0), "parking is no attempt"


async def test_approval_node_succeeds_only_with_the_decision_of_a_person(world: World) -> None:
    run, pod, task = await started(world)
    key = call_key("ship", None, 1, 1, 0)
    forged = {"kind": "NodeFinished", "node": "ship", "state": "Succeeded", "output": {"approved": True, "by": "boss"}}
    await pod.append(task, 0, {"kind": "NodeStarted", "node": "ship"})
    unasked = await pod.append(task, 1, forged)
    await ask(pod, task, key=key)
    undecided = await pod.append(task, 1, forged)
    assert [(one.status_code, one.json()["reason"]) for one in (unasked, undecided)] == [(403, "NotApproved")] * 2

    decided = await world.decide(run.name, node="ship", approved=True, comment="fine")
    for _ in range(2):
        assert (await pod.append(task, 1, forged)).json()["length"] == 2

    (node,) = await world.storage.nodes_of_run(run.uid)
    assert node.output["by"] == decided.json()["decidedBy"] != "boss"
    assert (node.state, node.output["approved"], node.output["comment"]) == ("Succeeded", True, "fine")
    journal = await world.storage.journal(task["id"])
    assert journal[1]["output"] == node.output


async def test_park_with_a_signal_that_is_there_gives_it_at_once(world: World) -> None:
    run, pod, task = await started(world)
    await ask(pod, task)
    await world.decide(run.name, key=KEY, approved=False)
    answer = await parked(pod, task, keys=[KEY])
    assert answer["parked"] is False
    assert [signal["value"]["approved"] for signal in answer["signals"]] == [False]
    assert (await pod.append(task, 0)).is_success, "it is still this pod's"


async def test_signals_are_told_while_the_task_goes_on(world: World) -> None:
    run, pod, task = await started(world)
    await ask(pod, task)
    waiting = asyncio.create_task(pod.task(task, "signals", keys=[KEY], waitSeconds=30))
    await asyncio.wait((waiting,), timeout=0.3)
    assert not waiting.done()

    await world.decide(run.name, node="ship", approved=True)

    (signal,) = (await asyncio.wait_for(waiting, 10)).json()["signals"]
    assert signal["key"] == KEY


async def test_signals_of_another_key_are_not_told(world: World) -> None:
    run, pod, task = await started(world)
    await ask(pod, task)
    await world.decide(run.name, node="ship", approved=True)
    answer = await pod.task(task, "signals", keys=["ship/-/1/1/2"], waitSeconds=0)
    assert answer.json() == {"signals": []}


async def test_park_until_a_time(world: World) -> None:
    _, pod, task = await started(world)
    assert (await parked(pod, task, wakeSeconds=0.2, reason="Time"))["parked"]
    (again,) = await pod.claim(waitSeconds=20)
    assert again["id"] == task["id"]


async def test_suspend_reaches_the_pod_and_resume_queues_it_again(world: World) -> None:
    run, pod, task = await started(world)
    await world.storage.suspend_run(run.uid, suspended=True, at=run.created_at)
    assert (await pod.post("/heartbeat", {"tasks": [task["id"]]})).json()["suspend"] == [task["id"]]
    assert (await parked(pod, task, keys=[RESUME], reason="Suspended"))["parked"]
    assert await pod.claim() == []

    await world.storage.suspend_run(run.uid, suspended=False, at=run.created_at)

    (again,) = await pod.claim(waitSeconds=20)
    assert again["suspended"] is False
    assert (await parked(pod, again, keys=[RESUME]))["parked"] is False


async def test_turn_is_a_task_of_the_agents_pool(world: World) -> None:
    run, pod, task = await started(world)
    await pod.append(task, 0, {"kind": "NodeStarted", "node": "fix"})
    assert (await pod.task(task, "turns", **TOLD)).status_code == 204
    assert (await pod.task(task, "turns", **TOLD)).status_code == 204
    assert (await parked(pod, task, keys=[TURN], reason="Turn"))["parked"]
    engineer = await world.pod("engineer-0", agent="engineer")

    (turn,) = await engineer.claim(waitSeconds=20)
    assert await engineer.claim() == [], "one turn, however often it was asked for"
    assert (turn["kind"], turn["run"]["uid"], turn["spec"]) == ("turn", run.uid, {})
    told = {name: turn["turn"][name] for name in ("agent", "prompt", "instructions", "model", "maxTurns", "node")}
    assert told == {
        "agent": "engineer",
        "prompt": "mend it",
        "instructions": "You mend things.",
        "model": "default",
        "maxTurns": 7,
        "node": "fix",
    }
    assert set(turn["tools"]) == {"json_query", "guarded"}
    asked = {"model": "default", "messages": [{"role": "user", "content": "hello"}], "tools": ["json_query"]}
    reply = (await engineer.call(turn, "fix", llm=asked)).json()
    assert reply["result"] == "hi there"
    ended = {"kind": "TurnFinished", "state": "Succeeded", "output": {"mended": True}}
    assert (await engineer.append(turn, 0, ended)).json()["length"] == 1
    assert (await engineer.append(turn, 0, ended)).json()["length"] == 1, "told twice is told once"

    (again,) = await pod.claim(waitSeconds=20)
    (signal,) = again["signals"]
    assert (signal["key"], signal["value"]["output"]) == (TURN, {"mended": True})
    spans = {span.kind: span for span in await load_trace(world.storage, run)}
    assert spans["call"].parent_id == spans["turn"].span_id
    assert spans["turn"].parent_id == spans["node"].span_id
    assert (spans["turn"].status, spans["turn"].name) == ("ok", "invoke_agent engineer")
    (call,) = await world.storage.calls_of_run(run.uid)
    assert call.intent.agent == "engineer"


async def test_turn_that_nobody_waits_for_is_lost(world: World) -> None:
    _, pod, task = await started(world)
    await pod.task(task, "turns", **TOLD)
    engineer = await world.pod("engineer-0", agent="engineer")
    (turn,) = await engineer.claim(waitSeconds=20)
    assert (await pod.task(task, "turns/cancel", keys=[TURN])).status_code == 204
    assert (await engineer.post("/heartbeat", {"tasks": [turn["id"]]})).json()["lost"] == [turn["id"]]
    assert (await engineer.append(turn, 0, {"kind": "TurnFinished", "state": "Succeeded"})).status_code == 409


async def test_turn_of_a_stopped_run_is_not_cancelled_with_it(world: World) -> None:
    """The run's ``finally`` may need an agent."""
    run, pod, task = await started(world)
    await pod.task(task, "turns", **TOLD)
    engineer = await world.pod("engineer-0", agent="engineer")
    (turn,) = await engineer.claim(waitSeconds=20)
    await world.storage.cancel_run(run.uid, reason="Stopped", message="", at=run.created_at)
    assert (await pod.post("/heartbeat", {"tasks": [task["id"]]})).json()["cancel"] == [task["id"]]
    answer = (await engineer.post("/heartbeat", {"tasks": [turn["id"]]})).json()
    assert (answer["cancel"], answer["lost"]) == ([], [])


async def test_cache_gives_the_result_of_an_earlier_run(world: World) -> None:
    run, pod, task = await started(world)
    kept = {"kind": "NodeFinished", "node": "kept", "state": "Succeeded", "output": 42, "digest": "d1"}
    other = {"kind": "NodeFinished", "node": "greet", "state": "Succeeded", "output": 1, "digest": "d2"}
    await pod.append(task, 0, kept | {"cacheSeconds": 60}, other | {"cacheSeconds": 60})

    await world.submit()
    (later,) = await pod.claim()

    async def found(digest: str, seconds: int = 60, node: str = "kept") -> Any:
        return (await pod.task(later, "cache", node=node, digest=digest, maxAgeSeconds=seconds)).json()

    assert await found("d1") == {"found": True, "output": 42, "run": run.uid}
    assert (await found("d1", 0))["found"] is False, "too old"
    assert (await found("d2", node="greet"))["found"] is False, "the node greet has no cache"
    assert (await found("d1", node="guarded"))["found"] is False, "it does something else"
    assert (await found("d3"))["found"] is False


async def test_rerun_is_told_what_succeeded(world: World) -> None:
    run, pod, task = await started(world)
    good = {"kind": "NodeFinished", "node": "greet", "state": "Succeeded", "output": "hi", "digest": "d1"}
    bad = {"kind": "NodeFinished", "node": "slow", "state": "Failed", "digest": "d2"}
    await pod.append(task, 0, good, bad, {"kind": "RunFinished", "state": "Failed"})

    again = await world.submit(run={"rerun_of": run.uid, "rerun_from": "slow"})
    (later,) = await pod.claim()

    assert (later["rerun"]["uid"], later["rerun"]["from"]) == (run.uid, "slow")
    assert [(entry["node"], entry["output"], entry["digest"]) for entry in later["rerun"]["entries"]] == [
        ("greet", "hi", "d1")
    ]
    reused = {**good, "reused": run.uid, "reason": "Reused"}
    await pod.append(later, 0, reused)
    stored = await world.storage.get_run(again.uid)
    (node,) = await world.storage.nodes_of_run(again.uid)
    assert stored is not None
    assert (stored.reused, node.reused, node.reason) == (1, run.uid, "Reused")


async def test_sub_workflows_nodes_lie_in_their_node(world: World) -> None:
    run, pod, task = await started(world)
    inner = {"kind": "NodeStarted", "node": "inner/greet"}
    assert (await pod.append(task, 0, {"kind": "NodeStarted", "node": "inner"}, inner)).json()["length"] == 2
    asked = {"model": "default", "messages": [{"role": "user", "content": "hello"}]}
    assert (await pod.call(task, "inner/greet", llm=asked)).json()["result"] == "hi there"
    spans = {span.name: span for span in await load_trace(world.storage, run)}
    assert spans["inner/greet"].parent_id == spans["inner"].span_id
    assert spans["chat default"].parent_id == spans["inner/greet"].span_id


async def test_stopped_run_that_nobody_holds_is_handed_out_to_run_its_finally(world: World) -> None:
    handler = {"llm": {"prompt": "hello", "tools": ["json_query"]}}
    run, pod, task = await started(world, **{"finally": handler})
    assert (await parked(pod, task, wakeSeconds=3600, reason="Time"))["parked"]

    await world.storage.cancel_run(run.uid, reason="Stopped", message="by a person", at=run.created_at, handlers=True)

    (again,) = await pod.claim(waitSeconds=20)
    assert (again["cancel"], again["attempt"] > task["attempt"]) == (True, True)
    asked = {"model": "default", "messages": [{"role": "user", "content": "hello"}], "tools": ["json_query"]}
    assert (await pod.call(again, "@finally", llm=asked)).json()["result"] == "hi there"
    done = {"kind": "NodeFinished", "node": "@finally", "state": "Succeeded", "output": "hi there"}
    ending = {"kind": "RunEnding", "state": "Cancelled", "reason": "Stopped"}
    await pod.append(again, 0, ending, done, {"kind": "RunFinished", "state": "Cancelled"})
    stored = await world.storage.get_run(run.uid)
    assert stored is not None
    assert (stored.state, stored.reason) == (RunState.CANCELLED, "Stopped")
