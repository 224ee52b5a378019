from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from fairlead.services.traces import exported_names, load_trace
from fairlead.storage import Storage
from fairlead.storage.base import CallAnswer, Effects, NodeRecord, Revision, Run, RunEnd, RunState, Span
from fairlead.testing.storage import NOW, claim, make_intent, make_revision, make_run, make_task, sqlite_storage
from fairlead.tracing.attributes import MAX_CONTENT
from fairlead.tracing.ids import call_span_id, node_span_id, span_id

MODEL = {"model": "gemini/gemini-2.5-flash", "parameters": {"temperature": 0.5, "max_tokens": 50, "stop": ["x"]}}


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def node_span(node: str, start: float, end: float, *, item: str | None = None) -> Span:
    own = node_span_id("run-1", node, item, 1)
    known: dict[str, Any] = {"fairlead.node": node, **({} if item is None else {"fairlead.item": item})}
    kind = "node" if item is None else "item"
    return Span("run-1", own, span_id("run-1"), node, kind, at(start), at(end), "ok", known)


def call_span(key: str, start: float, end: float, **known: Any) -> Span:
    own, attributes = call_span_id("run-1", key), {"fairlead.call.key": key, **known}
    return Span("run-1", own, "", "call", "call", at(start), at(end), "ok", attributes)


async def traced(storage: Storage) -> tuple[Run, dict[str, Span]]:
    """Keep a run of two nodes with a call of a model and one of a tool; return its trace by names."""
    nodes = [{"name": "ask", "llm": {"prompt": "?"}}, {"name": "look", "needs": ["ask"], "tool": {"name": "sql"}}]
    revision = make_revision(nodes=nodes)
    revision = Revision(revision.digest, {**revision.document, "models": {"default": MODEL}})
    run = make_run(revision=revision.digest, inputs={"message": "m" * 9000, "token": "canary"})
    await storage.submit(run, revision=revision, task=make_task())
    fence, _ = await claim(storage)
    ask = make_intent(
        "ask/-/1/1/0",
        request={
            "messages": [{"role": "user", "content": "what?"}],
            "parameters": {"max_tokens": 9},
            "output": {"type": "object"},
        },
    )
    look = make_intent("look/-/1/1/0", action="tool", target="sql", request={"arguments": {"q": "select 1"}})
    await storage.begin_call(fence, ask)
    reply = {"result": "that", "finishReason": "stop"}
    answer = CallAnswer(reply, at(3), input_tokens=11, output_tokens=7, cost=1_000_000)
    await storage.finish_call(ask.task_id, ask.key, answer, span=call_span(ask.key, 2, 3))
    await storage.begin_call(fence, look)
    done = CallAnswer({"result": {"rows": [1]}}, at(6), cost=0, priced=False)
    await storage.finish_call(look.task_id, look.key, done, span=call_span(look.key, 5.5, 6))
    records = (
        NodeRecord("run-1", "ask", state="Succeeded", output={"a": 1}, started_at=at(1), finished_at=at(3)),
        NodeRecord("run-1", "look", state="Succeeded", started_at=at(5), finished_at=at(6), reused="uid-0"),
    )
    end = RunEnd(RunState.SUCCEEDED, "Succeeded", "", "done", at(6))
    effects = Effects(nodes=records, spans=(node_span("look", 5, 5.5),), end=end)  # as spans of nodes were once kept
    await storage.append(fence, first=0, entries=[{"kind": "x"}], effects=effects, at=at(6))
    kept = await storage.get_run("run-1")
    assert kept is not None
    return kept, {one.attributes.get("fairlead.call.key") or one.name: one for one in await load_trace(storage, kept)}


async def test_load_trace_joins_inputs_outputs_tokens_and_costs(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        _, spans = await traced(storage)
    ask, look = spans["ask/-/1/1/0"].attributes, spans["look/-/1/1/0"].attributes
    assert orjson.loads(ask["gen_ai.input.messages"])[0]["parts"][0]["content"] == "what?"
    assert orjson.loads(ask["gen_ai.output.messages"])[0]["parts"][0]["content"] == "that"
    assert {name: ask[name] for name in ask if name.startswith("gen_ai") and "messages" not in name} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "gcp.gemini",
        "gen_ai.request.model": "gemini-2.5-flash",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.output.type": "json",
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.response.finish_reasons": ["stop"],
    }
    assert look["gen_ai.tool.call.arguments"] == '{"q":"select 1"}'
    assert look["gen_ai.tool.call.result"] == '{"rows":[1]}'
    assert spans["ask"].attributes["fairlead.output"] == '{"a":1}'
    assert spans["ask"].attributes["fairlead.cost.usd"] == "0.000001"
    assert spans["ask"].attributes["fairlead.usage.input_tokens"] == 11
    assert spans["look"].attributes["fairlead.reused"] == "uid-0"
    assert spans["look"].finished_at == at(6)
    assert len(spans) == 5, "nothing is there twice"


async def test_load_trace_says_how_long_nodes_were_ready_before_they_ran(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        _, spans = await traced(storage)
    assert spans["ask"].attributes["fairlead.queue_seconds"] == 1
    assert spans["look"].attributes["fairlead.queue_seconds"] == 2


async def test_load_trace_bounds_and_redacts_the_runs_inputs(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        run, spans = await traced(storage)
    root = spans["run-1"]
    assert (root.finished_at, root.status) == (run.finished_at, "ok")
    assert len(root.attributes["fairlead.input"]) == MAX_CONTENT
    assert "canary" not in str(root.attributes)
    assert root.attributes["fairlead.output"] == "done"
    assert root.attributes["gen_ai.operation.name"] == "invoke_workflow"
    assert not any(name.startswith("gen_ai.usage") for name in root.attributes)  # collectors add up every span's


async def test_load_trace_of_a_run_that_no_pod_took(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        revision = make_revision()
        await storage.submit(make_run(), revision=revision, task=make_task())
        await storage.end_run("run-1", RunEnd(RunState.FAILED, "Timeout", "nobody came", None, at(9)))
        run = await storage.get_run("run-1")
        assert run is not None
        (root,) = await load_trace(storage, run)
    assert (root.started_at, root.finished_at, root.status) == (NOW, at(9), "error")
    assert (root.attributes["error.type"], root.attributes["error.message"]) == ("Timeout", "nobody came")


async def test_load_trace_of_a_run_that_was_stopped_while_it_waited_says_so(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        await storage.submit(make_run(), revision=make_revision(), task=make_task())
        fence, _ = await claim(storage)
        root = Span("run-1", span_id("run-1"), "", "run-1", "run", at(0))
        record = NodeRecord("run-1", "ship", state="Waiting", reason="Approval", started_at=at(1))
        effects = Effects(nodes=(record,), spans=(root,))
        await storage.append(fence, first=0, entries=[{"kind": "x"}], effects=effects, at=at(1))
        await storage.park(fence, keys=["k"], wake_at=None, reason="Approval", at=at(1))
        run = await storage.cancel_run("run-1", reason="Cancelled", message="You stopped it.", at=at(9))
        assert run is not None
        spans = await load_trace(storage, run)
    assert [(one.kind, one.status, one.attributes["error.type"]) for one in spans] == [
        ("run", "unset", "Cancelled"),
        ("node", "unset", "Cancelled"),
    ]
    assert spans[1].attributes["fairlead.state"] == "Cancelled"


async def test_load_trace_says_why_a_run_was_ended_as_its_status_does(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        await storage.submit(make_run(), revision=make_revision(), task=make_task())
        fence, _ = await claim(storage)
        await storage.cancel_run("run-1", reason="Replaced", message="A newer run took its place.", at=at(2))
        known = {"error.type": "Stopped", "error.message": "the run was stopped"}
        root = Span("run-1", span_id("run-1"), "", "run-1", "run", at(0), at(3), "unset", known)
        end = RunEnd(RunState.CANCELLED, "Stopped", "the run was stopped", None, at(3))
        waits = NodeRecord("run-1", "ship", state="Retrying", reason="Unavailable", message="503", started_at=at(1))
        effects = Effects(nodes=(waits,), spans=(root,), end=end)
        await storage.append(fence, first=0, entries=[{"kind": "x"}], effects=effects, at=at(3))
        run = await storage.get_run("run-1")
        assert run is not None
        told, node = await load_trace(storage, run)
    assert (run.reason, told.attributes["error.type"]) == ("Replaced", "Replaced")
    assert told.attributes["error.message"] == "A newer run took its place."
    assert node.attributes["error.type"] == "Replaced"
    assert "503" not in str(node.attributes)


async def test_load_trace_finds_the_item_with_an_empty_name(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        await storage.submit(make_run(), revision=make_revision(), task=make_task())
        fence, _ = await claim(storage)
        record = NodeRecord("run-1", "each", item='""', output="of nothing", started_at=at(1), finished_at=at(2))
        effects = Effects(nodes=(record,))
        await storage.append(fence, first=0, entries=[{"kind": "x"}], effects=effects, at=NOW)
        run = await storage.get_run("run-1")
        assert run is not None
        _, item = await load_trace(storage, run)
    assert item.span_id == node_span_id("run-1", "each", "", 1)
    assert item.attributes["fairlead.output"] == "of nothing"


def test_exported_names_are_few() -> None:
    spans = [
        node_span("a[0]/b#2.1/c", 0, 1),
        node_span("each", 0, 1, item="x"),
        replace(node_span("run", 0, 1), kind="run", attributes={"gen_ai.workflow.name": "triage"}),
        replace(node_span("turn", 0, 1), kind="turn", attributes={"gen_ai.agent.name": "engineer"}),
        call_span("k", 0, 1, **{"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}),
        call_span("k", 0, 1),
    ]
    assert [one.name for one in exported_names(spans)] == [
        "a/b/c",
        "each",
        "invoke_workflow triage",
        "invoke_agent engineer",
        "chat m",
        "call",
    ]
