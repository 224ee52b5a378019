from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fairlead.services.effects import View, fold
from fairlead.services.profiling import Profiling, read_workflow_profile, show_workflow_profile
from fairlead.storage import Storage
from fairlead.storage.base import CallAnswer, Fence, Revision, Run, Span, Verdict
from fairlead.testing.clock import FakeClock
from fairlead.testing.storage import (
    CLUSTER,
    NAMESPACE,
    NOW,
    claim,
    make_approval,
    make_intent,
    make_revision,
    make_run,
    make_session,
    make_task,
    sqlite_storage,
)
from fairlead.tracing.ids import call_span_id, node_span_id, suspension_span_id
from fairlead_agent.protocol import Entry


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


async def append(
    storage: Storage, fence: Fence, *entries: dict[str, Any], first: int = 0, spans: tuple[Span, ...] = ()
) -> None:
    """Append entries with the effects that the gateway finds in them."""
    told = [Entry.model_validate(one) for one in entries]
    earlier = [Entry.model_validate(one) for one in await storage.journal(fence.task_id)]
    view, _ = fold(View("run-1", "run-1"), earlier[:first], attempt=fence.attempt, at=NOW)
    _, effects = fold(view, told, attempt=fence.attempt, at=NOW)
    wire = [one.model_dump(mode="json", by_alias=True, exclude_defaults=True) for one in told]
    effects = replace(effects, spans=(*effects.spans, *spans))
    await storage.append(fence, first=first, entries=wire, effects=effects, at=NOW)


async def call(storage: Storage, fence: Fence, key: str, start: float, *, end: float, action: str = "llm") -> None:
    intent = make_intent(key, action=action, started_at=at(start))
    await storage.begin_call(fence, intent)
    span = Span(
        run_uid="run-1",
        span_id=call_span_id("run-1", key),
        parent_id="",
        name="chat",
        kind="call",
        started_at=at(start),
        finished_at=at(end),
        attributes={"fairlead.call.key": key, "fairlead.action": action},
    )
    answer = CallAnswer({"result": "x"}, at(end), input_tokens=10, output_tokens=2, cost=1000)
    await storage.finish_call(intent.task_id, intent.key, answer, span=span)


async def submitted(storage: Storage, *nodes: dict[str, Any]) -> Run:
    revision: Revision = make_revision(nodes=list(nodes))
    run = make_run(revision=revision.digest)
    task = make_task()
    await storage.submit(run, revision=revision, task=task)
    return run


def entry(kind: str, seconds: float, node: str = "", **more: Any) -> dict[str, Any]:
    return {"kind": kind, "at": at(seconds).isoformat(), "node": node, **more}


def suspension(start: float, end: float | None = None) -> Span:
    return Span(
        run_uid="run-1",
        span_id=suspension_span_id("run-1", at(start)),
        parent_id="",
        name="suspended",
        kind="suspension",
        started_at=at(start),
        finished_at=None if end is None else at(end),
    )


async def test_run_profile_of_a_suspended_run_has_no_overhead_for_that_time(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        await submitted(storage, {"name": "a", "llm": {"prompt": "hi"}}, {"name": "b", "needs": ["a"]})
        fence, _ = await claim(storage)
        await append(storage, fence, entry("NodeStarted", 1, "a"))
        await storage.suspend_run("run-1", suspended=True, at=at(2), span=suspension(2))
        await call(storage, fence, "a/-/1/1/0", 1, end=5)
        await append(storage, fence, entry("NodeFinished", 5, "a", state="Succeeded", output="x"), first=1)
        await storage.park(fence, keys=["$resume"], wake_at=None, reason="Suspended", at=at(5))
        await storage.suspend_run("run-1", suspended=False, at=at(105), span=suspension(2, 105))
        session = make_session("pod-2")
        await storage.register(session, at=at(106))
        (again,) = await storage.claim(session, limit=1, at=at(108))
        await append(
            storage,
            Fence(again.task.id, session.id, again.task.attempt),
            entry("NodeStarted", 108, "b"),
            entry("NodeFinished", 109, "b", state="Succeeded", output="x"),
            entry("RunFinished", 109, state="Succeeded", output="x"),
            first=2,
        )
        run = await storage.get_run("run-1")
        assert run is not None
        shown = await Profiling(storage, FakeClock(), cluster=CLUSTER).run(run)
    spent = {kind: part["seconds"] for kind, part in shown["shares"].items() if part["seconds"]}
    assert spent == {"model": 4, "time": 100, "queue": 3, "overhead": 2}


async def test_run_profile_names_models_people_times_and_the_queue(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        await submitted(
            storage,
            {"name": "ask", "llm": {"prompt": "hi"}},
            {"name": "ship", "needs": ["ask"], "approval": {"message": "?"}},
            {"name": "nap", "needs": ["ship"], "wait": {"seconds": 5}},
        )
        fence, _ = await claim(storage)
        key = "ship/-/1/1/0"
        await append(storage, fence, entry("NodeStarted", 1, "ask"))
        await call(storage, fence, "ask/-/1/1/0", 2, end=5)
        await storage.open_approval(fence, make_approval(key, requested_at=at(6)))
        waits = {"wait": {"kind": "Approval", "key": key}}
        await append(
            storage,
            fence,
            entry("NodeFinished", 6, "ask", state="Succeeded", output="x"),
            entry("NodeStarted", 6, "ship"),
            entry("Waiting", 6, "ship", **waits),
            first=1,
        )
        await storage.decide(fence.task_id, key, Verdict(approved=True, by="ann", at=at(16)))
        await append(
            storage,
            fence,
            entry("NodeFinished", 18, "ship", state="Succeeded", output={}),
            entry("NodeStarted", 18, "nap"),
            entry("Waiting", 18, "nap", wait={"kind": "Time", "until": at(23).isoformat()}),
            entry("NodeFinished", 24, "nap", state="Succeeded", output={}),
            entry("RunFinished", 24, state="Succeeded", output="x"),
            first=4,
        )
        run = await storage.get_run("run-1")
        assert run is not None
        shown = await Profiling(storage, FakeClock(), cluster=CLUSTER).run(run)

    seconds = {kind: part["seconds"] for kind, part in shown["shares"].items() if part["seconds"]}
    assert sum(seconds.values()) == shown["seconds"] == 24
    assert seconds == {"model": 3, "people": 10, "time": 5, "queue": 3, "overhead": 3}
    assert shown["slowestNode"] == "ship"
    ask = next(node for node in shown["nodes"] if node["node"] == "ask")
    assert (ask["calls"], ask["tokens"], ask["cost"]) == (1, 12, "0.000000001")


async def test_run_profile_counts_what_an_attempt_left_behind_as_queue(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        await submitted(storage, {"name": "a", "tool": {"name": "sql"}})
        fence, _ = await claim(storage)
        await append(storage, fence, entry("NodeStarted", 1, "a"))
        await storage.requeue_pod("pod-1-uid", at=at(3))
        again, _ = await claim(storage, "pod-2")
        await append(
            storage,
            again,
            entry("TryFailed", 11, "a", retryAt=at(15).isoformat(), error={"reason": "X", "message": "y"}),
            entry("NodeFinished", 20, "a", state="Succeeded", tryNumber=2),
            entry("RunFinished", 20, state="Succeeded"),
            first=1,
        )
        run = await storage.get_run("run-1")
        assert run is not None
        shown = await Profiling(storage, FakeClock(), cluster=CLUSTER).run(run)
    seconds = {kind: part["seconds"] for kind, part in shown["shares"].items() if part["seconds"]}
    assert seconds == {"queue": 10, "time": 4, "overhead": 6}


async def test_run_profile_takes_no_deadline_of_a_workflow_for_a_wait(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        revision = make_revision(nodes=[{"name": "a", "workflow": {"name": "inner"}}])
        inner = {"nodes": [{"name": "b", "tool": {"name": "sql"}}]}
        revision = Revision(revision.digest, {**revision.document, "workflows": {"inner": inner}})
        await storage.submit(make_run(revision=revision.digest), revision=revision, task=make_task())
        fence, _ = await claim(storage)
        await append(
            storage,
            fence,
            entry("NodeStarted", 0, "a"),
            entry("Waiting", 0, "a", wait={"kind": "Time", "until": at(100).isoformat()}),
            entry("NodeStarted", 1, "a/b"),
            entry("NodeFinished", 5, "a/b", state="Succeeded"),
            entry("NodeFinished", 6, "a", state="Succeeded"),
            entry("RunFinished", 6, state="Succeeded"),
        )
        run = await storage.get_run("run-1")
        assert run is not None
        shown = await Profiling(storage, FakeClock(), cluster=CLUSTER).run(run)
    assert {kind: part["seconds"] for kind, part in shown["shares"].items() if part["seconds"]} == {"overhead": 6}
    assert [one["node"] for one in shown["criticalPath"]] == ["a", "a/b", "a"]


async def test_run_profile_says_how_long_a_turn_waited_for_a_pod(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        await submitted(storage, {"name": "fix", "agent": {"name": "engineer", "prompt": "?"}})
        fence, _ = await claim(storage)
        wait = {"kind": "Turn", "key": "fix/-/1/1/0"}
        await append(storage, fence, entry("NodeStarted", 0, "fix"), entry("Waiting", 0, "fix", wait=wait))
        parent = node_span_id("run-1", "fix", None, 1)
        turn = Span("run-1", "0" * 16, parent, "invoke_agent engineer", "turn", at(0), at(9))
        await call(storage, fence, "fix/-/1/1/1", 4, end=6)
        await append(
            storage,
            fence,
            entry("NodeFinished", 11, "fix", state="Succeeded"),
            entry("RunFinished", 11, state="Succeeded"),
            first=2,
            spans=(turn,),
        )
        run = await storage.get_run("run-1")
        assert run is not None
        shown = await Profiling(storage, FakeClock(), cluster=CLUSTER).run(run)
    assert [(one["spent"], one["seconds"]) for one in shown["criticalPath"]] == [
        ("queue", 4),
        ("model", 2),
        ("overhead", 3),
        ("queue", 2),
    ]


async def test_run_profile_of_a_run_that_goes_on_ends_now(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        run = await submitted(storage, {"name": "a", "tool": {"name": "sql"}})
        shown = await Profiling(storage, FakeClock(at(7)), cluster=CLUSTER).run(run)
    assert shown["seconds"] == 7
    assert [one["spent"] for one in shown["criticalPath"]] == ["queue"]


async def test_workflow_profile_over_finished_runs_survives_the_wire(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        await submitted(storage, {"name": "ask", "llm": {"prompt": "hi"}})
        fence, _ = await claim(storage)
        await append(storage, fence, entry("NodeStarted", 1, "ask"))
        await call(storage, fence, "ask/-/1/1/0", 1, end=9)
        await append(
            storage,
            fence,
            entry("NodeFinished", 10, "ask", state="Succeeded"),
            entry("RunFinished", 10, state="Succeeded"),
            first=1,
        )
        profiling = Profiling(storage, FakeClock(), cluster=CLUSTER)
        profile = await profiling.workflow(NAMESPACE, "triage")
        assert (await profiling.workflow(NAMESPACE, "other")).runs == 0
    assert (profile.runs, profile.slowest) == (1, "ask")
    assert read_workflow_profile(show_workflow_profile(NAMESPACE, "triage", profile)) == profile
