"""A gateway in memory for the agent's engine.

One `World` is one run with its turns, its calls, its approvals and its cache. It survives the agent: `World.live` runs
one process, which can be made to die before or after everything that it asks of the gateway (`World.kill_at`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fairlead_agent.engine import Execution
from fairlead_agent.failures import AppendRefused, Fenced
from fairlead_agent.graph import output_size
from fairlead_agent.protocol import (
    RESUME,
    AskApproval,
    AwaitSignals,
    CacheAnswer,
    CacheLookup,
    Call,
    CallReply,
    CancelTurns,
    Decision,
    Entry,
    ErrorInfo,
    Kind,
    LogLine,
    Park,
    Parked,
    Progress,
    Rerun,
    RunInfo,
    Signal,
    StartTurn,
    Task,
    ToolInfo,
    TurnAnswer,
    TurnInfo,
)
from fairlead_agent.turn import TurnExecution

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
RUN: Final = "t"
"""The id of the run's task."""
MAX_APPEND: Final = 4 << 20
TURN_KINDS: Final = frozenset({Kind.WAITING, Kind.CHECKPOINT, Kind.TURN_FINISHED})
Handler = Callable[[Call], Awaitable[Any]]
Decide = Callable[[AskApproval], Decision | None]


class Killed(Exception):
    """The process died."""


class ToolError(Exception):
    """What a handler raises to make a call fail."""

    def __init__(self, reason: str, *, retryable: bool = True, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.info = ErrorInfo(reason=reason, message="no", retryable=retryable, retry_after_seconds=retry_after)


@dataclass(eq=False)
class Job:
    """A task of the work queue: the run itself, or a turn."""

    id: str
    journal: list[Entry] = field(default_factory=list)
    signals: dict[str, Signal] = field(default_factory=dict)
    attempt: int = 0
    turn: TurnInfo | None = None
    parent: str = ""
    key: str = ""
    deadline: datetime | None = None
    parked: Park | None = None
    wake_at: datetime | None = None
    done: bool = False


class Broken(AssertionError):
    """The agent did what it must never do."""


@dataclass
class World:
    """A gateway and its storage, for one run. Survives attempts, as the real ones do.

    Attributes:
        spec: the workflow.
        handler: answers calls: it returns a `CallReply` or its result, or raises `ToolError`.
        decide: decides approvals, `decide_seconds` after they were asked for; None: nobody does.
        agents: what the turns of each Agent are, without what the node says.
        seconds: how long each call takes.
        kill_at: the process dies at this boundary (counting from 0): before or after something is asked of the gateway.
        sent: how often each call went out to the world.
    """

    spec: dict[str, Any]
    inputs: dict[str, Any] = field(default_factory=dict)
    handler: Handler | None = None
    remaining: float | None = None
    seconds: float = 0.0
    append_seconds: float = 0.0
    workflows: dict[str, dict[str, Any]] = field(default_factory=dict)
    tools: dict[str, ToolInfo] = field(default_factory=dict)
    agents: dict[str, TurnInfo] = field(default_factory=dict)
    definitions: dict[str, str] = field(default_factory=dict)
    rerun: Rerun | None = None
    decide: Decide | None = None
    decide_seconds: float = 60.0
    cache: dict[str, tuple[Any, str, datetime]] = field(default_factory=dict)
    uid: str = "u"
    suspended: bool = False
    stopped: bool = False
    jobs: dict[str, Job] = field(default_factory=lambda: {RUN: Job(RUN)})
    sent: Counter[str] = field(default_factory=Counter)
    calls: dict[str, tuple[str, asyncio.Task[CallReply]]] = field(default_factory=dict)
    approvals: dict[str, AskApproval] = field(default_factory=dict)
    approved: dict[str, Decision] = field(default_factory=dict)
    started: set[tuple[str, str | None]] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    parks: list[Park] = field(default_factory=list)
    death: asyncio.Event = field(default_factory=asyncio.Event)
    kill_at: int = -1
    boundaries: int = 0
    fenced: bool = False
    cancelled: bool = False
    """What appends are told."""
    broken: list[str] = field(default_factory=list)
    """What the agent must never do, and did."""
    refuse: Callable[[Sequence[Entry]], str] = lambda _entries: ""
    executions: dict[str, Execution | TurnExecution] = field(default_factory=dict)
    _buried: asyncio.Event = field(default_factory=asyncio.Event)
    _stirred: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def journal(self) -> list[Entry]:
        """The run's journal."""
        return self.jobs[RUN].journal

    @journal.setter
    def journal(self, entries: list[Entry]) -> None:
        self.jobs[RUN].journal = entries
        self.jobs[RUN].done = False

    @property
    def attempt(self) -> int:
        """How often the run was claimed."""
        return self.jobs[RUN].attempt

    def now(self) -> datetime:
        """Return the simulated time."""
        return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())

    async def boundary(self) -> None:
        """Die here, if that is what the test wants."""
        self.boundaries += 1
        if self.boundaries - 1 == self.kill_at:
            self.death.set()
        if self.death.is_set():
            await self._buried.wait()
            raise Killed

    def must(self, condition: object, text: str) -> None:
        """Hold the agent to its promises: `live` fails with what it broke."""
        if not condition:
            self.broken.append(text)
            raise Broken(text)

    def task(self, job: Job) -> Task:
        """Claim a job."""
        job.attempt += 1
        job.parked, job.wake_at = None, None
        remaining = None if self.remaining is None else self.remaining - asyncio.get_running_loop().time()
        if job.turn is not None:
            remaining = None if job.deadline is None else (job.deadline - self.now()).total_seconds()
        return Task(
            id=job.id,
            attempt=job.attempt,
            kind="turn" if job.turn else "run",
            run=RunInfo(uid=self.uid, namespace="ns", name="r", workflow="w"),
            spec={} if job.turn else self.spec,
            inputs={} if job.turn else self.inputs,
            remaining_seconds=remaining,
            journal=tuple(job.journal),
            workflows={} if job.turn else self.workflows,
            tools=self.tools,
            definitions=self.definitions,
            signals=tuple(job.signals.values()),
            suspended=self.suspended,
            cancel=self.stopped and job.turn is None,
            rerun=None if job.turn else self.rerun,
            turn=job.turn,
        )

    def execution(self, task_id: str = RUN) -> Execution | TurnExecution:
        """Start another attempt, from the journal so far."""
        job = self.jobs[task_id]
        kind = TurnExecution if job.turn else Execution
        made = kind(self.task(job), port=Door(self, job), now=self.now)
        self.executions[task_id] = made
        return made

    async def live(self) -> None:
        """Run one process until the run has ended, or to its death."""
        self.death, self._buried, self._stirred = asyncio.Event(), asyncio.Event(), asyncio.Event()
        running: dict[str, asyncio.Task[Any]] = {}
        watch = [asyncio.ensure_future(self.death.wait())]
        try:
            while not self.jobs[RUN].done or running:
                for job in self._ready(running):
                    running[job.id] = asyncio.ensure_future(self.execution(job.id).run())
                stirred = asyncio.ensure_future(self._stirred.wait())
                await asyncio.wait((*running.values(), *watch, stirred), return_when=asyncio.FIRST_COMPLETED)
                stirred.cancel()
                self._stirred.clear()
                if self.death.is_set():
                    raise Killed
                for task_id in [one for one, task in running.items() if task.done() or self._is_lost(one)]:
                    self.executions.pop(task_id, None)
                    await self._look(task_id, running.pop(task_id))
        finally:
            self.executions.clear()
            self._buried.set()
            await _end(*running.values(), *watch)
            if self.broken:
                raise Broken("; ".join(self.broken))

    def _is_lost(self, task_id: str) -> bool:
        """Whether a turn was ended by somebody else: its pod is told to drop it."""
        job = self.jobs[task_id]
        return job.done and job.turn is not None and Kind.TURN_FINISHED not in {entry.kind for entry in job.journal}

    async def _look(self, task_id: str, task: asyncio.Task[Any]) -> None:
        if not task.done():
            await _end(task)
            return
        try:
            task.result()
        except Fenced:
            if not self.jobs[task_id].done:
                raise

    def _ready(self, running: dict[str, Any]) -> list[Job]:
        return [
            job
            for job in self.jobs.values()
            if job.id not in running and not job.done and self._may_go_on(job) and not self.jobs[RUN].done
        ]

    def _may_go_on(self, job: Job) -> bool:
        """Whether a job is queued; sees to it that a parked one will be."""
        if job.parked is None:
            return not self.suspended or not job.journal
        if any(key in job.signals for key in job.parked.keys):
            return True
        if job.wake_at is not None and not self.suspended:
            if job.wake_at <= self.now():
                return True
            delay = (job.wake_at - self.now()).total_seconds()
            asyncio.get_running_loop().call_later(delay, self._stirred.set)
        return RESUME in job.parked.keys and not self.suspended

    def stir(self) -> None:
        """Say that something may be ready to run now."""
        self._stirred.set()

    def signal(self, job: Job, key: str, value: dict[str, Any]) -> None:
        """Bring a signal about."""
        job.signals.setdefault(key, Signal(key=key, value=value))
        self.stir()

    def stop(self) -> None:
        """Stop the run."""
        self.stopped = True
        if RUN in self.executions:
            self.executions[RUN].stop()
        self.jobs[RUN].parked = None
        self._stirred.set()

    def suspend(self) -> None:
        """Suspend the run."""
        self.suspended = True
        for execution in self.executions.values():
            execution.suspend()

    def resume(self) -> None:
        """Let the run go on."""
        self.suspended = False
        for execution in self.executions.values():
            execution.resume()
        self._stirred.set()

    def verdict(self, key: str, decision: Decision) -> None:
        """Decide an approval; the first decision stands."""
        job_id, _, own = key.partition(":")
        if key not in self.approved:
            self.approved[key] = decision
            self.signal(self.jobs[job_id], own, decision.model_dump(mode="json"))

    def of(self, kind: Kind, node: str = "") -> list[Entry]:
        """Return the journal's entries of one kind."""
        return [entry for entry in self.journal if entry.kind is kind and node in ("", entry.node)]

    def node(self, name: str) -> Entry:
        """Return how a node ended."""
        (entry,) = self.of(Kind.NODE_FINISHED, name)
        return entry

    @property
    def end(self) -> Entry:
        """How the run ended."""
        (entry,) = self.of(Kind.RUN_FINISHED)
        self.must(self.journal[-1] is entry, "something was written after the end")
        return entry


@dataclass(frozen=True)
class Door:
    """One task's way into the world: an engine's `Port`."""

    world: World
    job: Job

    def _check(self, attempt: int) -> None:
        if self.world.fenced or self.job.done or attempt != self.job.attempt:
            raise Fenced("this attempt is over")

    async def append(self, first: int, entries: Sequence[Entry], progress: Progress | None) -> bool:
        """Add to the journal."""
        world, journal = self.world, self.job.journal
        await world.boundary()
        if world.append_seconds:
            await asyncio.sleep(world.append_seconds)
        if world.fenced or self.job.done:
            raise Fenced("this attempt is over")
        if reason := world.refuse(entries):
            raise AppendRefused(reason, "no")
        world.must(first == len(journal), "an append left a gap or repeated something")
        world.must(not (journal and journal[-1].kind in (Kind.RUN_FINISHED, Kind.TURN_FINISHED)), "the task had ended")
        world.must(sum(output_size(entry.output) for entry in entries) < MAX_APPEND, "an append is too large")
        kept = [Entry.model_validate_json(entry.model_dump_json(by_alias=True)) for entry in entries]
        fits = not self.job.turn or all(entry.kind in TURN_KINDS for entry in kept)
        world.must(fits, "that is no entry of a turn")
        journal += kept
        self._follow(kept)
        world.progress += [progress] if progress else []
        await world.boundary()
        return world.cancelled

    def _follow(self, entries: Sequence[Entry]) -> None:
        world = self.world
        for entry in entries:
            world.started.add((entry.node, entry.item))
            if entry.cache_seconds is not None:
                world.cache[entry.digest] = (entry.output, world.uid, entry.at + timedelta(seconds=entry.cache_seconds))
            if entry.kind in (Kind.RUN_FINISHED, Kind.TURN_FINISHED):
                for job in (self.job,) if self.job.turn else world.jobs.values():
                    job.done = True
                world.stir()
            if entry.kind is Kind.TURN_FINISHED:
                answer = TurnAnswer(output=entry.output, error=entry.error)
                world.signal(world.jobs[self.job.parent], self.job.key, answer.model_dump(mode="json", by_alias=True))

    async def call(self, call: Call) -> CallReply:
        """Make a call, once."""
        world = self.world
        await world.boundary()
        self._check(call.attempt)
        began = self.job.turn or (call.node, call.item) in world.started
        world.must(began, "a call went out before its start was committed")
        key = call.key if self.job.turn is None else f"{self.job.id}:{call.key}"
        self._check_approved(call)
        if key not in world.calls:  # the gateway's own task: it goes on when the pod dies
            world.calls[key] = (call.digest, asyncio.create_task(self._answer(key, call)))
        digest, answer = world.calls[key]
        world.must(digest == call.digest, f"the same call with another request: {key}")
        reply = await asyncio.shield(answer)
        await world.boundary()
        return reply

    def _check_approved(self, call: Call) -> None:
        tool = call.tool
        if tool is not None and tool.name in self.world.tools and self.world.tools[tool.name].require_approval:
            key = f"{self.job.id}:{call.key}"
            decision = self.world.approved.get(key)
            self.world.must(decision is not None and decision.approved, f"{tool.name} was used without approval")
            self.world.must(self.world.approvals[key].tool == tool, "something else was approved")

    async def _answer(self, key: str, call: Call) -> CallReply:
        world = self.world
        world.sent[key] += 1
        if world.seconds:
            await asyncio.sleep(world.seconds)
        try:
            result = await world.handler(call) if world.handler else f"did {call.node}"
        except ToolError as error:
            return CallReply(error=error.info)
        return result if isinstance(result, CallReply) else CallReply(result=result)

    async def ask(self, question: AskApproval) -> None:
        """Ask people."""
        world = self.world
        await world.boundary()
        self._check(question.attempt)
        key = f"{self.job.id}:{question.key}"
        if key not in world.approvals:
            world.approvals[key] = question
            self._arrange(key, question)
        await world.boundary()

    def _arrange(self, key: str, question: AskApproval) -> None:
        world, loop = self.world, asyncio.get_running_loop()
        decision = world.decide(question) if world.decide else None
        if decision is not None:
            loop.call_later(world.decide_seconds, world.verdict, key, decision)
        else:
            approves = question.on_timeout == "Approve"
            at = world.now() + timedelta(seconds=question.timeout_seconds)
            timed_out = Decision(approved=approves, at=at, via="timeout")
            loop.call_later(question.timeout_seconds, world.verdict, key, timed_out)

    async def start_turn(self, turn: StartTurn) -> None:
        """Queue a turn."""
        world = self.world
        await world.boundary()
        self._check(turn.attempt)
        task_id = f"{self.job.id}/{turn.key}"
        if task_id not in world.jobs:
            names = ("agent", "prompt", "output", "node", "item", "iteration")
            info = world.agents[turn.agent].model_copy(update={name: getattr(turn, name) for name in names})
            seconds = turn.timeout_seconds
            deadline = None if seconds is None else world.now() + timedelta(seconds=seconds)
            world.jobs[task_id] = Job(task_id, turn=info, parent=self.job.id, key=turn.key, deadline=deadline)
            world.stir()
        await world.boundary()

    async def cancel_turns(self, turns: CancelTurns) -> None:
        """End turns."""
        await self.world.boundary()
        self._check(turns.attempt)
        for job in self.world.jobs.values():
            if job.parent == self.job.id and job.key in turns.keys:
                job.done = True
        self.world.stir()
        await self.world.boundary()

    async def signals(self, wanted: AwaitSignals) -> tuple[Signal, ...]:
        """Wait for signals."""
        await self.world.boundary()
        loop = asyncio.get_running_loop()
        end = loop.time() + wanted.wait_seconds
        while not (found := self._found(wanted.keys)) and loop.time() < end:
            self._check(wanted.attempt)
            await asyncio.sleep(0.5)
        return found

    def _found(self, keys: Sequence[str]) -> tuple[Signal, ...]:
        resumed = (Signal(key=RESUME, value={}),) if RESUME in keys and not self.world.suspended else ()
        return (*(self.job.signals[key] for key in keys if key in self.job.signals), *resumed)

    async def park(self, park: Park) -> Parked:
        """Give the task back."""
        await self.world.boundary()
        self._check(park.attempt)
        found = self._found(park.keys)
        if not found:
            self.job.parked = park
            self.job.attempt += 1  # whoever held it is fenced
            seconds = park.wake_seconds
            self.job.wake_at = None if seconds is None else self.world.now() + timedelta(seconds=seconds)
            self.world.parks.append(park)
        await self.world.boundary()
        return Parked(parked=not found, signals=found)

    async def cached(self, lookup: CacheLookup) -> CacheAnswer:
        """Look into the cache."""
        await self.world.boundary()
        output, run, expires = self.world.cache.get(lookup.digest, (None, "", EPOCH))
        found = bool(run) and expires > self.world.now()
        return CacheAnswer(found=found, output=output if found else None, run=run if found else "")

    def log(self, line: LogLine) -> None:
        """Keep a line."""
        self.world.lines.append(f"{line.node}: {line.text}")

    async def flush(self) -> None:
        """Do nothing: lines are kept at once."""


async def _end(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
