"""Runs with every construct, told in simulated time, while gateways or operators die where a test says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import fairlead_agent.loop  # noqa: F401 - importing it takes a thread and real time
from fairlead.core import names
from fairlead.core.workflow import is_finished
from fairlead.kube import Ref
from fairlead.storage.base import CallRecord, Revision, Run, Storage, Verdict
from fairlead.testing.agentworld import EPOCH
from fairlead.testing.inline import InlineStorage
from fairlead.testing.lives import Gateways, LoopClock, Operators, Outside, Pod
from fairlead.testing.memorycluster import MemoryCluster
from fairlead.testing.operatorworld import AUTHORITY
from fairlead.testing.simulation import Simulation
from fairlead.testing.storage import CLUSTER, NAMESPACE, POOL, make_run, make_session, make_task
from fairlead_agent.protocol import CallReply, CodeRequest, Entry, ErrorInfo, LlmRequest, ToolRequest, ToolUse

THINKERS = names.agent_pool(CLUSTER, NAMESPACE, "thinker")
UID = "run-1"
MODEL: dict[str, Any] = {"model": "m"}
THINKER: dict[str, Any] = {"model": "default", "tools": ["echo"]}
TOOL: dict[str, Any] = {"builtin": {"name": "json_query"}}
TOOLS = ("echo", "flaky", "broken")
_PATIENCE = 400
"""Simulated seconds, of which a run takes some thirty."""


def tool(name: str, uses: str = "echo", **keys: Any) -> dict[str, Any]:
    """Return a node that uses a tool."""
    return {"name": name, "tool": {"name": uses, "arguments": keys.pop("arguments", {"from": name})}, **keys}


SHAPE = {"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string"}}}
EVERYTHING: dict[str, Any] = {
    "model": "default",
    "inputs": [{"name": "list", "type": "array"}],
    "nodes": [
        tool("load", arguments={"rows": "{{ inputs.list }}"}, cache={"ttlSeconds": 600}),
        {
            "name": "sort",
            "needs": ["load"],
            "forEach": "outputs.load.rows",
            "maxParallel": 2,
            "onError": "Continue",
            "llm": {"prompt": "sort {{ item }}", "output": SHAPE},
        },
        tool("flaky", "flaky", needs=["load"], retry={"limit": 2, "backoffSeconds": 2}, arguments={"n": "x"}),
        tool("never", needs=["load"], when="size(outputs.load.rows) > 100"),
        {
            "name": "sum",
            "needs": ["load"],
            "code": {"language": "python", "source": "...", "inputs": {"rows": "{{ outputs.load.rows }}"}},
        },
        {"name": "look", "needs": ["load"], "llm": {"prompt": "look it up", "tools": ["echo"], "maxTurns": 3}},
        {"name": "think", "needs": ["look"], "agent": {"name": "thinker", "prompt": "think of {{ outputs.look }}"}},
        {"name": "inner", "needs": ["flaky"], "workflow": {"name": "part", "inputs": {"x": "{{ outputs.flaky.n }}"}}},
        {"name": "draft", "needs": ["sort"], "llm": {"prompt": "draft {{ iteration }}"}},
        {
            "name": "judge",
            "needs": ["draft"],
            "llm": {"prompt": "judge {{ outputs.draft }}", "output": {"type": "object"}},
            "repeat": {"from": "draft", "until": "outputs.judge.kind == 'good'", "maxIterations": 3},
        },
        {"name": "pause", "needs": ["judge"], "wait": {"seconds": 7}},
        {"name": "gate", "needs": ["pause", "inner", "think", "sum"], "approval": {"message": "go on?"}},
        tool("ship", needs=["gate"], arguments={"all": "{{ outputs.sort }}"}),
    ],
    "output": {
        "sorted": "{{ outputs.ship.all }}",
        "by": "{{ outputs.gate.by }}",
        "thought": "{{ outputs.think }}",
        "sum": "{{ outputs.sum.output }}",
    },
    "finally": {"tool": {"name": "echo", "arguments": {"end": "{{ run.state }}"}}},
}
FAILING: dict[str, Any] = {
    "model": "default",
    "nodes": [
        tool("first"),
        tool("bad", "broken", needs=["first"]),
        tool("after", needs=["bad"]),
        {"name": "inner", "workflow": {"name": "long"}},
        {"name": "gate", "approval": {"message": "never answered"}},
    ],
    "onFailure": {"tool": {"name": "echo", "arguments": {"why": "{{ run.reason }}"}}},
    "finally": {"llm": {"prompt": "sum it up"}},
}
PART = {
    "inputs": [{"name": "x"}],
    "model": "default",
    "nodes": [
        tool("step", arguments={"x": "{{ inputs.x }}"}),
        {"name": "ask", "needs": ["step"], "llm": {"prompt": "part {{ outputs.step.x }}"}},
    ],
    "output": "{{ outputs.ask }}",
    "finally": {"tool": {"name": "echo", "arguments": {"part": "{{ run.state }}"}}},
}
LONG = {
    "nodes": [{"name": "nap", "wait": {"seconds": 3600}}],
    "finally": {"tool": {"name": "echo", "arguments": {"nap": "{{ run.state }} {{ run.reason }}"}}},
}
WORKFLOWS = {"part": PART, "long": LONG}


def answer(request: LlmRequest | ToolRequest | CodeRequest, number: int) -> CallReply:
    """Answer as models, tools and programs do: always the same, but for the tool that fails at first."""
    match request:
        case CodeRequest(inputs=inputs):
            return CallReply(result={"output": len(inputs["rows"])})
        case ToolRequest(name=name, arguments=given):
            failed = name == "broken" or (name == "flaky" and number == 1)
            return CallReply(error=ErrorInfo(reason="ToolFailed", message="no")) if failed else CallReply(result=given)
        case LlmRequest():
            return _said(request)


def _said(request: LlmRequest) -> CallReply:
    said = request.messages[-1].content
    if said == "look it up":
        return CallReply(tool_calls=(ToolUse(id="1", name="echo", arguments={"found": "it"}),))
    if said.startswith("sort"):
        kind = said.removeprefix("sort ")
        return CallReply(result='{"kind": "' + kind + '"}' if kind != "c" else "no idea")
    if said.startswith("judge"):
        return CallReply(result='{"kind": "good"}' if "draft 2" in said else '{"kind": "bad"}')
    return CallReply(result=f"answer to: {said[:60]}")


@dataclass
class Story:
    """What became of a run."""

    run: Run
    nodes: dict[tuple[str, str, int], tuple[str, str, Any]]
    journal: list[Entry]
    calls: list[CallRecord]
    sent: Counter[str]
    boundaries: int
    """How many points of the life that was left there were."""
    deaths: int
    shown: Any = None
    """What the object says at the end."""

    @property
    def final(self) -> Any:
        """What must be the same whatever happened."""
        return self.run.state, self.run.reason, self.run.output, self.nodes, self.shown


Kill = Callable[[int], int]
"""Where each life ends, by its number; -1: never."""


def _immortal(_life: int) -> int:
    return -1


class Teller:
    """Runs workflows in simulated time, with gateways or operators that die where they are told to."""

    def __init__(self) -> None:
        self._storage = InlineStorage()
        asyncio.run(self._storage.migrate())

    def gateways(self, spec: dict[str, Any], kill_at: Kill = _immortal) -> Story:
        """Run a workflow that is queued already; gateways die."""
        self._storage.wipe()
        told: Story = Simulation().run(lambda: _tell(self._storage, spec, kill_at))
        return told

    def operators(self, spec: dict[str, Any], kill_at: Kill = _immortal) -> Story:
        """Run a workflow from its objects to the end that the object shows, suspended on the way; operators die."""
        self._storage.wipe()
        told: Story = Simulation().run(lambda: _tell_operated(self._storage, spec, kill_at))
        return told


async def _tell(storage: Storage, spec: dict[str, Any], kill_at: Kill) -> Story:
    async with AsyncExitStack() as stack:
        await _submit(storage, spec)
        outside, gateways = await _world(storage, stack, kill_at)
        async with asyncio.timeout(_PATIENCE):
            while not (run := await storage.get_run(UID) or _gone()).state.final:  # noqa: ASYNC110 - simulated time
                await asyncio.sleep(1)
        deaths = gateways.number + gateways.life.dead.is_set()
        return await _story(storage, run, outside, boundaries=gateways.life.boundaries, deaths=deaths)


async def _tell_operated(storage: Storage, spec: dict[str, Any], kill_at: Kill) -> Story:
    async with AsyncExitStack() as stack:
        outside, _ = await _world(storage, stack, _immortal)
        kube = MemoryCluster()
        kube.add({"apiVersion": "v1", "kind": "ConfigMap", **AUTHORITY})
        ref = _declare(kube, spec)
        operators = Operators(kube, storage, kill_at=kill_at)
        for job in (operators.keep(), _suspend_and_resume(kube, ref)):
            stack.push_async_callback(_end, asyncio.ensure_future(job))
        async with asyncio.timeout(_PATIENCE):
            while not is_finished(kube.objects[ref]):  # noqa: ASYNC110 - simulated time
                await asyncio.sleep(1)
        (run,) = await storage.list_runs(CLUSTER)
        deaths = operators.number + operators.life.dead.is_set()
        told = await _story(storage, run, outside, boundaries=operators.life.boundaries, deaths=deaths)
        return replace(told, shown=_shown(kube.objects[ref]))


def _shown(obj: dict[str, Any]) -> Any:
    """Return what the object says at the end, but for when."""
    status = obj["status"]
    conditions = {(one["type"], one["status"], one["reason"]) for one in status["conditions"]}
    return conditions, {key: status.get(key) for key in ("progress", "result", "usage", "cost", "revision")}


async def _world(storage: Storage, stack: AsyncExitStack, kill_at: Kill) -> tuple[Outside, Gateways]:
    """Start what runs workflows: the world outside, gateways, pods, and a person who says yes."""
    outside = Outside(answer)
    sessions = [make_session("runner", pool=POOL), make_session("thinker", pool=THINKERS)]
    for session in sessions:
        await storage.register(session, at=EPOCH)
    gateways = Gateways(storage, outside, kill_at=kill_at)
    for job in (gateways.keep(), _people(storage), *(Pod(gateways, session).live() for session in sessions)):
        stack.push_async_callback(_end, asyncio.ensure_future(job))
    return outside, gateways


def inputs_of(spec: dict[str, Any]) -> dict[str, Any]:
    """Return what a run of a workflow is given."""
    return {"list": ["a", "b", "c"]} if "inputs" in spec else {}


async def _submit(storage: Storage, spec: dict[str, Any]) -> None:
    document = {
        "workflow": {"name": "w", "uid": "w", "generation": 1, "spec": spec},
        "workflows": WORKFLOWS,
        "agents": {"thinker": THINKER},
        "models": {"default": MODEL},
        "tools": dict.fromkeys(TOOLS, TOOL),
    }
    revision = Revision(names.digest(document), document)
    run = make_run(UID, revision=revision.digest, inputs=inputs_of(spec))
    await storage.submit(run, revision=revision, task=make_task(UID))


def _declare(kube: MemoryCluster, spec: dict[str, Any]) -> Ref:
    """Create every object; return the run."""
    objects: list[tuple[str, str, dict[str, Any]]] = [
        ("Model", "default", MODEL),
        ("Agent", "thinker", THINKER),
        ("Agent", "default", {}),
        *(("Tool", name, TOOL) for name in TOOLS),
        *(("Workflow", name, inner) for name, inner in WORKFLOWS.items()),
        ("Workflow", "w", {**spec, "runsOn": {"agent": "default"}}),
        ("WorkflowRun", "r", {"workflowRef": {"name": "w"}, "inputs": inputs_of(spec)}),
    ]
    meta = {"creationTimestamp": "2026-01-01T00:00:00Z"}
    for kind, name, given in objects:
        made = kube.add(
            {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": name, **meta}, "spec": given}
        )
    return Ref.of(made)


async def _suspend_and_resume(kube: MemoryCluster, ref: Ref) -> None:
    for seconds, suspend in ((4, True), (8, False)):
        await asyncio.sleep(seconds)
        obj = kube.objects[ref]
        kube.add({**obj, "spec": {**obj["spec"], "suspend": suspend}})


async def _people(storage: Storage) -> None:
    """Say yes to everything that was asked three seconds ago."""
    while True:
        await asyncio.sleep(1)
        now = LoopClock().now()
        for asked in await storage.pending_approvals(CLUSTER):
            if now - asked.requested_at > timedelta(seconds=3) and asked.message == "go on?":
                await storage.decide(asked.task_id, asked.key, Verdict(approved=True, by="anna", at=now))


async def _story(storage: Storage, run: Run, outside: Outside, *, boundaries: int, deaths: int) -> Story:
    nodes = {
        (one.node, one.item, one.iteration): (one.state, one.reason, one.output)
        for one in await storage.nodes_of_run(run.uid)
    }
    (task,) = [task for task in await storage.tasks_of_run(run.uid) if task.kind == "run"]
    journal = [Entry.model_validate(entry) for entry in await storage.journal(task.id)]
    calls = await storage.calls_of_run(run.uid)
    return Story(run, _timeless(nodes), journal, calls, outside.sent, boundaries, deaths)


def _timeless(nodes: dict[Any, Any]) -> dict[Any, Any]:
    """Leave out when: the end of a wait, the moment of a decision."""
    return {
        key: (state, reason, {**output, "until": "", "at": ""} if isinstance(output, dict) else output)
        for key, (state, reason, output) in nodes.items()
    }


async def _end(job: asyncio.Future[Any]) -> None:
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)


def _gone() -> Run:
    raise AssertionError("the run is gone")
