"""A chain of nodes on Fairlead's engine in one process: ``plain``, or ``journal``: with nodes, spans and progress in
SQLite, each step durable before the next. The tools that nodes call answer at once: what is measured is the engine.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairlead.clock import SystemClock
from fairlead.services.journal import Journal
from fairlead.services.tasks import Tasks
from fairlead.storage import Storage, open_storage
from fairlead.storage.base import Fence
from fairlead.testing.storage import make_revision, make_run, make_session, make_task
from fairlead_agent.engine import Execution
from fairlead_agent.protocol import Append, Call, CallReply, Entry, LogLine, Progress, RunInfo, Task

LENGTH = 40
ANSWER = "a short answer " * 20
_FACTS: dict[str, Any] = {
    "nodes": [
        {
            "name": f"node_{number}",
            "needs": [f"node_{number - 1}"] if number else [],
            "tool": {"name": "json_query", "arguments": {}},
        }
        for number in range(LENGTH)
    ]
}


class Plain:
    """Keeps nothing."""

    async def append(self, _first: int, _entries: Sequence[Entry], _progress: Progress | None) -> bool:
        """Forget."""
        return False

    async def call(self, _call: Call) -> CallReply:
        """Answer at once."""
        return CallReply(result=ANSWER)

    def log(self, line: LogLine) -> None:
        """Forget."""

    async def flush(self) -> None:
        """Do nothing."""


class Durable(Plain):
    """Keeps the journal as the gateway does."""

    def __init__(self, journal: Journal, fence: Fence) -> None:
        self._journal = journal
        self._fence = fence

    async def append(self, first: int, entries: Sequence[Entry], progress: Progress | None) -> bool:
        """Commit."""
        append = Append(attempt=self._fence.attempt, first=first, entries=tuple(entries), progress=progress)
        return (await self._journal.append(self._fence, append, size=0)).cancelled


async def _run(port: Any, task_id: str) -> None:
    info = RunInfo(uid=task_id, namespace="default", name="chain", workflow="chain")
    task = Task(id=task_id, attempt=1, run=info, spec=_FACTS, inputs={})
    end = await Execution(task, port=port, now=SystemClock().now).run()
    if end is None or end.state != "Succeeded":
        raise RuntimeError(str(end))


class Chains:
    """Runs chains, one after the other, each as a run of its own."""

    def __init__(self, storage: Storage | None) -> None:
        self._storage = storage
        self._session = make_session()

    async def start(self) -> None:
        """Make the database."""
        if self._storage is not None:
            await self._storage.migrate()
            await self._storage.register(self._session, at=SystemClock().now())

    async def run(self) -> None:
        """Run one."""
        uid = uuid.uuid4().hex
        await _run(Plain() if self._storage is None else await self._durable(self._storage, uid), uid)

    async def _durable(self, storage: Storage, uid: str) -> Durable:
        revision = make_revision(**_FACTS)
        run = make_run(uid, revision=revision.digest)
        await storage.submit(run, revision=revision, task=make_task(uid))
        clock = SystemClock()
        [claimed] = await storage.claim(self._session, limit=1, at=clock.now())
        tasks, fence = Tasks(storage), Fence(claimed.task.id, self._session.id, claimed.task.attempt)
        tasks.remember(fence, claimed.task, claimed.run, document=revision.document)
        return Durable(Journal(storage, tasks, clock), fence)


async def main(mode: str, folder: str) -> None:
    """Run chains as asked for."""
    chains = Chains(None if mode == "plain" else open_storage(f"sqlite:///{Path(folder) / 'fairlead.db'}"))
    await chains.start()
    while line := await asyncio.to_thread(sys.stdin.readline):
        for _ in range(int(line) // LENGTH):
            await chains.run()
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
