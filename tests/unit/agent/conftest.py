"""A world for the engine: a gateway in memory, an event loop whose time only passes when everyone waits."""

from __future__ import annotations

import asyncio
import selectors
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fairlead_agent.engine import AppendRefused, Execution, Fenced
from fairlead_agent.graph import output_size
from fairlead_agent.protocol import Call, CallReply, Entry, ErrorInfo, Kind, LogLine, Progress, RunInfo, Task

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
Handler = Callable[[Call], Awaitable[Any]]


class _Jumping(selectors.DefaultSelector):
    """A selector that does not wait: it moves the loop's clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            message = "everyone waits for ever"
            raise RuntimeError(message)
        if not ready:
            self.time += timeout or 0.0
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Time passes only when everyone waits."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.time


class Killed(Exception):
    """The process died."""


@dataclass
class World:
    """A gateway and its storage, for one run. Survives attempts, as the real ones do."""

    spec: dict[str, Any]
    inputs: dict[str, Any] = field(default_factory=dict)
    handler: Handler | None = None
    remaining: float | None = None
    seconds: float = 0.0
    """How long each call takes."""
    append_seconds: float = 0.0
    journal: list[Entry] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    """How often each call went out to the world."""
    calls: dict[str, tuple[str, asyncio.Task[CallReply]]] = field(default_factory=dict)
    started: set[tuple[str, str | None]] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    attempt: int = 0
    death: asyncio.Event = field(default_factory=asyncio.Event)
    kill_at: int = -1
    """The process dies at this boundary (counting from 0): before or after an append or call."""
    boundaries: int = 0
    fenced: bool = False
    refuse: Callable[[Sequence[Entry]], str] = lambda _entries: ""

    async def _boundary(self) -> None:
        self.boundaries += 1
        if self.boundaries - 1 == self.kill_at:
            self.death.set()
        if self.death.is_set():
            await asyncio.Future()

    async def append(self, first: int, entries: Sequence[Entry], progress: Progress | None) -> None:
        await self._boundary()
        if self.fenced:
            raise Fenced
        if self.append_seconds:
            await asyncio.sleep(self.append_seconds)
        if reason := self.refuse(entries):
            raise AppendRefused(reason, "no")
        assert first == len(self.journal), "an append left a gap or repeated something"
        assert not (self.journal and self.journal[-1].kind is Kind.RUN_FINISHED), "the run had ended"
        assert sum(output_size(entry.output) for entry in entries) < 4 << 20
        self.journal += [Entry.model_validate_json(entry.model_dump_json(by_alias=True)) for entry in entries]
        self.started |= {(entry.node, entry.item) for entry in entries}
        self.progress += [progress] if progress else []
        await self._boundary()

    async def call(self, call: Call) -> CallReply:
        await self._boundary()
        if self.fenced:
            raise Fenced
        assert (call.node, call.item) in self.started, "a call went out before its start was committed"
        if call.key not in self.calls:  # the gateway's own task: it goes on when the pod dies
            self.calls[call.key] = (call.digest, asyncio.create_task(self._answer(call)))
        digest, answer = self.calls[call.key]
        assert digest == call.digest, "the same call with another request"
        reply = await asyncio.shield(answer)
        await self._boundary()
        return reply

    async def _answer(self, call: Call) -> CallReply:
        self.sent[call.key] += 1
        if self.seconds:
            await asyncio.sleep(self.seconds)
        try:
            result = await self.handler(call) if self.handler else f"did {call.node}"
        except ToolError as error:
            return CallReply(error=error.info)
        return CallReply(result=result)

    def log(self, line: LogLine) -> None:
        self.lines.append(f"{line.node}: {line.text}")

    async def flush(self) -> None:
        pass

    def execution(self) -> Execution:
        """Start another attempt, from the journal so far."""
        self.attempt += 1
        loop = asyncio.get_running_loop()
        task = Task(
            id="t",
            attempt=self.attempt,
            run=RunInfo(uid="u", namespace="ns", name="r", workflow="w"),
            spec=self.spec,
            inputs=self.inputs,
            remaining_seconds=self.remaining,
            journal=tuple(self.journal),
        )
        return Execution(task, port=self, now=lambda: EPOCH + timedelta(seconds=loop.time()))

    async def live(self) -> None:
        """Run one attempt to its end, or to its death."""
        self.death = asyncio.Event()
        running = asyncio.ensure_future(self.execution().run())
        dying = asyncio.ensure_future(self.death.wait())
        await asyncio.wait((running, dying), return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        if not running.done():
            running.cancel()
            await asyncio.wait((running,))
            raise Killed
        running.result()

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
        assert self.journal[-1] is entry
        return entry


class ToolError(Exception):
    """What a handler raises to make a call fail."""

    def __init__(self, reason: str, *, retryable: bool = True, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.info = ErrorInfo(reason=reason, message="no", retryable=retryable, retry_after_seconds=retry_after)


class Simulation:
    """Makes worlds and runs them in simulated time."""

    world = World
    tool_error = ToolError
    killed = Killed
    epoch = EPOCH

    def __init__(self) -> None:
        self.elapsed = 0.0

    def run(self, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run a coroutine; `elapsed` is how long it took in simulated seconds."""
        with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
            try:
                return runner.run(main())
            finally:
                self.elapsed = runner.get_loop().time()

    def finish(self, spec: dict[str, Any], **keys: Any) -> World:
        """Run a workflow to its end."""
        world = World(spec, **keys)
        self.resume(world)
        return world

    def resume(self, world: World) -> None:
        """Run one more attempt, to its end."""
        self.run(world.live)

    def survive(self, world: World, kill_at: Callable[[int], int]) -> None:
        """Run attempts, each killed at the boundary that *kill_at* gives for it (-1: never), until the run ends."""

        async def attempts() -> None:
            while not world.of(Kind.RUN_FINISHED):
                world.boundaries, world.kill_at = 0, kill_at(world.attempt)
                with suppress(Killed):
                    await world.live()

        self.run(attempts)


@pytest.fixture
def simulation() -> Simulation:
    """Provide simulated time and a gateway in memory."""
    return Simulation()
