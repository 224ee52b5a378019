"""A world outside that answers calls when a test lets it, and calls over a real storage that go there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fairlead.clock import SystemClock
from fairlead.services.calls import Calls
from fairlead.services.outcomes import Outcome
from fairlead.services.tasks import TaskContext, Tasks
from fairlead.services.wakeups import Wakeups
from fairlead.storage import Storage
from fairlead.storage.base import CallIntent, Fence, Reservation
from fairlead.testing.storage import NOW, make_revision, make_run, make_session, make_task, sqlite_storage
from fairlead_agent.protocol import (
    AgentRequest,
    Call,
    CallReply,
    CodeRequest,
    LlmRequest,
    Message,
    ToolRequest,
    Usage,
    call_key,
)

SPEC = {
    "model": "default",
    "nodes": [
        {"name": "ask", "llm": {"prompt": "?"}},
        {"name": "use", "tool": {"name": "sql", "arguments": {}}},
        {"name": "run", "code": {"language": "python", "source": "1"}},
        {"name": "abroad", "agent": {"name": "theirs", "prompt": "?"}},
    ],
}
THEIRS = {"theirs": {"external": {"url": "https://a.example"}}}
TOOL_CALL: dict[str, Any] = {"node": "use", "action": "tool", "tool": ToolRequest(name="sql", arguments={})}
CODE_CALL: dict[str, Any] = {"node": "run", "action": "code", "code": CodeRequest(inputs={"x": 1})}


@dataclass
class Outside:
    """Models and tools: they answer when `go` is set."""

    asked: int = 0
    answer: Outcome | Exception = field(
        default_factory=lambda: Outcome(CallReply(result="42", usage=Usage(input_tokens=3)), cost=5, priced=True)
    )
    go: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)

    reservation: Reservation | None = None
    idempotent: bool = True
    granted: int | None = None

    def reserve(self, context: TaskContext, request: LlmRequest) -> Reservation | None:
        """Return what the test set."""
        del context, request
        return self.reservation

    def is_idempotent(self, context: TaskContext, request: ToolRequest) -> bool:
        """Return what the test set."""
        del context, request
        return self.idempotent

    async def ask(
        self, context: TaskContext, request: LlmRequest, *, timeout_seconds: float, max_output_tokens: int | None
    ) -> Outcome:
        """Answer when `go` is set."""
        del context, request, timeout_seconds
        self.granted = max_output_tokens
        self.asked += 1
        self.started.set()
        await self.go.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def may_repeat(self, context: TaskContext, node: str) -> bool:
        """Return what the test set."""
        del context, node
        return self.idempotent

    async def run(self, context: TaskContext, node: str, request: CodeRequest) -> Outcome:
        """Answer as a model would."""
        del request
        return await self.ask(context, LlmRequest(model=node, messages=()), timeout_seconds=1, max_output_tokens=None)

    async def use(self, context: TaskContext, request: ToolRequest, *, timeout_seconds: float) -> Outcome:
        """Answer as a model would."""
        asked = LlmRequest(model=request.name, messages=())
        return await self.ask(context, asked, timeout_seconds=timeout_seconds, max_output_tokens=None)


class Abroad:
    """Agents that someone else runs."""

    def __init__(self, outside: Outside) -> None:
        self.outside = outside
        self.sent: list[tuple[str, str]] = []

    def reserve(self, context: TaskContext, request: AgentRequest) -> None:
        """Reserve nothing."""
        del context, request

    async def ask(
        self, context: TaskContext, request: AgentRequest, *, intent: CallIntent, timeout_seconds: float
    ) -> Outcome:
        """Take note of the message, and answer as a model would."""
        self.sent.append((intent.task_id, intent.key))
        asked = LlmRequest(model=request.name, messages=())
        return await self.outside.ask(context, asked, timeout_seconds=timeout_seconds, max_output_tokens=None)


@asynccontextmanager
async def queued_run(tmp_path: Path) -> AsyncIterator[Storage]:
    """Open a storage with a run of `SPEC` that nobody has claimed."""
    async with sqlite_storage(tmp_path) as opened:
        bare = make_revision(**SPEC)
        revision = replace(bare, document={**bare.document, "agents": THEIRS})
        await opened.submit(make_run(revision=revision.digest), revision=revision, task=make_task())
        yield opened


async def claim(storage: Storage, pod: str = "pod-1") -> Fence:
    """Have a pod claim the run."""
    session = make_session(pod)
    await storage.register(session, at=NOW)
    (claimed,) = await storage.claim(session, limit=1, at=NOW)
    return Fence(claimed.task.id, session.id, claimed.task.attempt)


def calls(
    storage: Storage,
    outside: Outside,
    *,
    gateway: str = "gateway-1",
    clock: Any = None,
    wakeups: Wakeups | None = None,
) -> Calls:
    """Return the calls of one gateway."""
    now = clock or SystemClock()
    told = wakeups or Wakeups(storage, now, "budget")
    return Calls(
        storage,
        now,
        gateway=gateway,
        tasks=Tasks(storage),
        models=outside,
        tools=outside,
        programs=outside,
        agents=Abroad(outside),
        wakeups=told,
    )


def ask(fence: Fence, **changes: Any) -> Call:
    """Return a call of the node ``ask``, or another one by *changes*."""
    request = LlmRequest(model="default", messages=(Message(role="user", content="?"),))
    values = {
        "attempt": fence.attempt,
        "key": call_key("ask", None, 1, 1, 1),
        "digest": "d",
        "action": "llm",
        "node": "ask",
        "llm": request,
    }
    return Call(**values | changes)


def open_world(**changes: Any) -> Outside:
    """Return a world that answers at once."""
    world = Outside(**changes)
    world.go.set()
    return world
