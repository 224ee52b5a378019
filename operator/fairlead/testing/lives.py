"""A gateway that dies: its real services on a storage that stops answering before or after a chosen write.

What an agent asks of it goes to whichever gateway lives (`Line`), and is asked again when that one dies, as the agent's
client does over HTTPS.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from fairlead.clock import Clock
from fairlead.kube import KubeClient, Ref
from fairlead.services.approvals import Approvals
from fairlead.services.calls import BUDGET_TOPIC, AgentCaller, Calls
from fairlead.services.handout import Handout
from fairlead.services.journal import Journal
from fairlead.services.outcomes import Outcome
from fairlead.services.results import Results
from fairlead.services.sessions import TOPIC as QUEUE
from fairlead.services.sessions import Sessions
from fairlead.services.tasks import TaskContext, Tasks
from fairlead.services.turns import Turns
from fairlead.services.waiting import TOPIC as SIGNALS
from fairlead.services.waiting import Waiting
from fairlead.services.wakeups import Wakeups
from fairlead.storage.base import AgentSession, BudgetLine, Fence, Reservation, Storage
from fairlead.testing.agentworld import EPOCH
from fairlead.testing.clock import FakeClock
from fairlead.testing.memorycluster import MemoryCluster
from fairlead.testing.operatorworld import compose
from fairlead_agent.engine import Execution
from fairlead_agent.failures import Fenced
from fairlead_agent.protocol import (
    Append,
    AskApproval,
    AwaitSignals,
    CacheAnswer,
    CacheLookup,
    Call,
    CallReply,
    CancelTurns,
    Claim,
    CodeRequest,
    Entry,
    Heartbeat,
    HeartbeatReply,
    LlmRequest,
    LogLine,
    Park,
    Parked,
    Progress,
    Signal,
    StartTurn,
    Task,
    ToolInfo,
    ToolRequest,
    Usage,
)
from fairlead_agent.turn import TurnExecution

T = TypeVar("T")
Request = LlmRequest | ToolRequest | CodeRequest
_WRITES: Final = frozenset(
    {"claim", "append", "release", "park", "signal", "open_approval", "start_turn", "cancel_turns", "drop_expired"}
    | {"begin_call", "repeat_call", "finish_call", "add_logs"}
)
"""Everything that a gateway writes for a run. (Its own beat says only that it lives; `wake` writes when it is due.)"""
_CHANGES: Final = frozenset({"create", "merge_patch", "delete"})
_DECISIONS: Final = frozenset({"submit", "cancel_run", "end_run", "suspend_run", "decide", "delete_run"})
_PAUSE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.5
_CLAIM_SECONDS: Final = 0.5
_BEAT_SECONDS: Final = 5.0
TOKEN_COST: Final = 1_000_000
"""Picodollars, for a token of either direction."""


class LoopClock:
    """The event loop's time, which a simulated loop moves."""

    def now(self) -> datetime:
        """Return the wall-clock time."""
        return EPOCH + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class Mortal:
    """A process's view of something: once it is dead, nothing comes back any more."""

    def __init__(self, kill_at: int = -1) -> None:
        self.dead = asyncio.Event()
        self.boundaries = 0
        self._kill_at = kill_at

    async def boundary(self) -> None:
        """Die here, if that is what the test wants; once dead, nothing goes on from here."""
        if not self.dead.is_set():
            self.boundaries += 1
            if self.boundaries - 1 == self._kill_at:
                self.dead.set()
        if self.dead.is_set():
            raise asyncio.CancelledError

    def through(self, thing: Any, is_write: Callable[[str], bool]) -> Any:
        """Return *thing* as this process sees it, with a boundary before and after every write."""
        return _Through(self, thing, is_write)


class _Through:
    def __init__(self, life: Mortal, thing: Any, is_write: Callable[[str], bool]) -> None:
        self._life = life
        self._thing = thing
        self._is_write = is_write

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._thing, name)
        if not self._is_write(name):
            return method

        async def wrapped(*args: Any, **keys: Any) -> Any:
            await self._life.boundary()
            result = await method(*args, **keys)
            await self._life.boundary()
            return result

        return wrapped


def writes(name: str) -> bool:
    """Whether a method of `Storage` changes something of a run."""
    return name in _WRITES


class Outside:
    """Models, tools and sandboxes: what they answer, and how often each request was sent.

    Args:
        answer: returns what comes of a request, given how often it was sent by now; `sent` counts by its JSON.
        seconds: how long an answer takes.
    """

    def __init__(self, answer: Callable[[Request, int], CallReply], *, seconds: float = 1.0) -> None:
        self._answer = answer
        self._seconds = seconds
        self.sent: Counter[str] = Counter()
        self.budget: BudgetLine | None = None

    def reserve(self, context: TaskContext, request: LlmRequest) -> Reservation:  # noqa: ARG002
        """Return the worst case: ten tokens in, ten out."""
        lines = (self.budget,) if self.budget else ()
        return Reservation(lines, 10, 10 * TOKEN_COST, output_tokens=10, output_token_cost=TOKEN_COST)

    async def ask(
        self,
        context: TaskContext,  # noqa: ARG002
        request: LlmRequest,
        *,
        timeout_seconds: float,  # noqa: ARG002
        max_output_tokens: int | None,  # noqa: ARG002
    ) -> Outcome:
        """Return a model's answer: three tokens in, two out."""
        reply = await self._send(request)
        return Outcome(
            reply.model_copy(update={"usage": Usage(input_tokens=3, output_tokens=2)}),
            cost=5 * TOKEN_COST,
            priced=True,
        )

    def is_idempotent(self, context: TaskContext, request: ToolRequest) -> bool:  # noqa: ARG002
        """Whether the call may be made twice."""
        return not request.name.startswith("once")

    async def use(self, context: TaskContext, request: ToolRequest, *, timeout_seconds: float) -> Outcome:  # noqa: ARG002
        """Return what a tool gives."""
        return Outcome(await self._send(request))

    def may_repeat(self, context: TaskContext, node: str) -> bool:  # noqa: ARG002
        """Whether a program may run twice."""
        return True

    async def run(self, context: TaskContext, node: str, request: CodeRequest) -> Outcome:  # noqa: ARG002
        """Return what a program gives."""
        return Outcome(await self._send(request))

    async def _send(self, request: Request) -> CallReply:
        name = request.model_dump_json(exclude_defaults=True)
        self.sent[name] += 1
        number = self.sent[name]
        await asyncio.sleep(self._seconds)
        return self._answer(request, number)


class _Leases:
    """The part of a cluster that heartbeats need: every Lease is there and can be renewed."""

    async def merge_patch(self, _ref: Ref, patch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Renew."""
        return {"metadata": {}, **patch}


class GatewayLife(Mortal):
    """One gateway process, from its start to its death."""

    def __init__(self, storage: Storage, outside: Outside, *, number: int, kill_at: int = -1) -> None:
        super().__init__(kill_at)
        self.storage = cast("Storage", self.through(storage, writes))
        self.clock: Clock = LoopClock()
        clock, tasks = self.clock, Tasks(self.storage)
        self.wakeups = Wakeups(self.storage, clock, QUEUE, SIGNALS, BUDGET_TOPIC)
        kube = cast("KubeClient", _Leases())
        self.sessions = Sessions(self.storage, kube, clock, cluster="c", tasks=tasks, wakeups=self.wakeups)
        self.journal = Journal(self.storage, tasks, clock)
        self.waiting = Waiting(self.storage, clock, self.wakeups)
        self.results = Results(self.storage, clock, tasks)
        self.turns = Turns(self.storage, clock, tasks)
        self.approvals = Approvals(self.storage, clock, tasks, cluster="c")
        self.handout = Handout(self.results, _describe)
        self.calls = Calls(
            self.storage,
            clock,
            gateway=f"gateway-{number}",
            tasks=tasks,
            models=outside,
            tools=outside,
            programs=outside,
            agents=cast("AgentCaller", None),  # nobody here is run by someone else
            wakeups=self.wakeups,
        )
        self._loops = [
            asyncio.ensure_future(each) for each in (self.calls.beat(), self.wakeups.run(), self.waiting.run())
        ]

    async def claim(self, session: AgentSession) -> list[Task]:
        """Hand out tasks as the wire shows them."""
        claimed = await self.sessions.claim(session, Claim(limit=10, wait_seconds=0), gone=_never)
        now = self.clock.now()
        return [Task.model_validate(await self.handout.show(one, now)) for one in claimed]

    async def beat(self, session: AgentSession, heartbeat: Heartbeat) -> HeartbeatReply:
        """Take a heartbeat."""
        return await self.sessions.heartbeat(session, heartbeat)

    async def bury(self) -> None:
        """End what a dead process leaves behind in this one."""
        self.dead.set()
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)


class Gateways:
    """The gateway's lives, one after the other; a dead one is replaced after a while.

    Args:
        kill_at: where each life ends, by its number; -1: never.
    """

    def __init__(
        self,
        storage: Storage,
        outside: Outside,
        *,
        kill_at: Callable[[int], int],
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> None:
        self._storage = storage
        self._outside = outside
        self._kill_at = kill_at
        self._pause = pause_seconds
        self.number = 0
        self.life = self._begin()

    def _begin(self) -> GatewayLife:
        return GatewayLife(self._storage, self._outside, number=self.number, kill_at=self._kill_at(self.number))

    async def keep(self) -> None:
        """Replace every gateway that dies, until cancelled."""
        while True:
            await self.life.dead.wait()
            await self.life.bury()
            await asyncio.sleep(self._pause)
            self.number += 1
            self.life = self._begin()

    async def ask(self, request: Callable[[GatewayLife], Coroutine[Any, Any, T]]) -> T:
        """Ask whichever gateway lives, until one has answered."""
        while True:
            life = self.life
            asked, death = asyncio.ensure_future(request(life)), asyncio.ensure_future(life.dead.wait())
            try:
                await asyncio.wait((asked, death), return_when=asyncio.FIRST_COMPLETED)
                if not life.dead.is_set():
                    return asked.result()
            finally:
                for one in (asked, death):
                    one.cancel()
                await asyncio.gather(asked, death, return_exceptions=True)
            await asyncio.sleep(0.5)


class Line:
    """An engine's port to whichever gateway lives."""

    def __init__(self, gateways: Gateways, fence: Fence) -> None:
        self._gateways = gateways
        self._fence = fence

    async def _ask(self, request: Callable[[GatewayLife], Coroutine[Any, Any, T]]) -> T:
        from fairlead.storage.base import Fenced as Refused

        try:
            return await self._gateways.ask(request)
        except Refused as error:
            raise Fenced(str(error)) from None

    async def append(self, first: int, entries: Sequence[Entry], progress: Progress | None) -> bool:
        """Add entries to the journal."""
        message = Append(attempt=self._fence.attempt, first=first, entries=tuple(entries), progress=progress)
        sent = Append.model_validate_json(message.model_dump_json(by_alias=True))
        return (await self._ask(lambda life: life.journal.append(self._fence, sent, size=0))).cancelled

    async def call(self, call: Call) -> CallReply:
        """Make a call."""
        return await self._ask(lambda life: life.calls.call(self._fence, call))

    async def ask(self, question: AskApproval) -> None:
        """Ask people."""
        await self._ask(lambda life: life.approvals.ask(self._fence, question))

    async def start_turn(self, turn: StartTurn) -> None:
        """Hand a task to an agent."""
        await self._ask(lambda life: life.turns.start(self._fence, turn))

    async def cancel_turns(self, turns: CancelTurns) -> None:
        """End turns."""
        await self._ask(lambda life: life.turns.cancel(self._fence, turns))

    async def signals(self, wanted: AwaitSignals) -> tuple[Signal, ...]:
        """Wait for signals."""
        return (await self._ask(lambda life: life.waiting.signals(self._fence, wanted, gone=_never))).signals

    async def park(self, park: Park) -> Parked:
        """Give the task back."""
        return await self._ask(lambda life: life.waiting.park(self._fence, park))

    async def cached(self, lookup: CacheLookup) -> CacheAnswer:
        """Look into the cache."""
        return await self._ask(lambda life: life.results.cached(self._fence, lookup))

    def log(self, line: LogLine) -> None:
        """Forget."""

    async def flush(self) -> None:
        """Do nothing."""


async def _never() -> bool:
    return False


def _describe(document: Mapping[str, Any], name: str) -> ToolInfo | None:
    spec = (document.get("tools") or {}).get(name) or {}
    approval = bool(spec.get("requireApproval"))
    return ToolInfo(name=name, description=name, parameters={"type": "object"}, require_approval=approval)


class Pod:
    """An agent's pod that never dies: it claims and runs whatever its pool has, and beats.

    Args:
        session: as it was registered. Its Lease is nobody's business here.
    """

    def __init__(self, gateways: Gateways, session: AgentSession) -> None:
        self._gateways = gateways
        self._session = session
        self._running: dict[str, tuple[Execution | TurnExecution, asyncio.Task[Any]]] = {}

    async def live(self) -> None:
        """Work until cancelled."""
        beats = asyncio.ensure_future(self._beat())
        try:
            while True:
                for task in await self._gateways.ask(lambda life: life.claim(self._session)):
                    self._start(task)
                self._reap()
                await asyncio.sleep(_CLAIM_SECONDS)
        finally:
            left = [running for _, running in self._running.values()]
            for one in (beats, *left):
                one.cancel()
            await asyncio.gather(beats, *left, return_exceptions=True)

    def _start(self, task: Task) -> None:
        kind = TurnExecution if task.turn else Execution
        line = Line(self._gateways, Fence(task.id, self._session.id, task.attempt))
        made = kind(task, port=line, now=LoopClock().now)
        self._running[task.id] = made, asyncio.ensure_future(made.run())

    def _reap(self) -> None:
        for task_id in [task_id for task_id, (_, task) in self._running.items() if task.done()]:
            _, ended = self._running.pop(task_id)
            with suppress(Fenced):  # the run ended, and its turn with it
                ended.result()

    async def _send_beat(self, life: GatewayLife) -> HeartbeatReply:
        return await life.beat(self._session, Heartbeat(tasks=tuple(self._running)))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            reply = await self._gateways.ask(self._send_beat)
            for task_id, (execution, task) in self._running.items():
                if task_id in reply.lost:
                    task.cancel()
                elif task_id in reply.cancel:
                    execution.stop()
                elif task_id in reply.suspend:
                    execution.suspend()
                else:
                    execution.resume()


class Operators:
    """The operator's lives, one after the other: what each sees goes through a `Mortal`."""

    def __init__(self, kube: MemoryCluster, storage: Storage, *, kill_at: Callable[[int], int]) -> None:
        self._kube = kube
        self._storage = storage
        self._kill_at = kill_at
        self.number = 0
        self.life = Mortal(kill_at(0))

    async def keep(self) -> None:
        """Reconcile everything, again and again; when the operator dies, go on with another one."""
        while True:
            try:
                await self._live()
            except asyncio.CancelledError:
                if not self.life.dead.is_set():
                    raise
            await asyncio.sleep(_PAUSE_SECONDS)
            self.number += 1
            self.life = Mortal(self._kill_at(self.number))

    async def _live(self) -> None:
        kube = self.life.through(self._kube, lambda name: name in _CHANGES)
        storage = self.life.through(self._storage, lambda name: name in _DECISIONS)
        world = compose(kube, storage, cast("FakeClock", LoopClock()), Path())
        while not self.life.dead.is_set():
            world.show()
            for kind in ("Model", "Agent", "Tool", "Workflow", "WorkflowRun"):
                for key in world.objects.keys(kind):
                    await world.settle(key)
            await asyncio.sleep(_LOOK_SECONDS)
