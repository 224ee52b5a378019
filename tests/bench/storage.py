"""What an append to the journal costs: ours next to a bare insert into the same SQLite at the same durability."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
from tests.bench.harness import Arm, Comparison

from fairlead.storage import Storage
from fairlead.storage.base import Effects, Fence, NodeRecord, Span
from fairlead.testing.storage import NOW, make_revision, make_run, make_session, make_task, sqlite_storage

ENTRY = {"kind": "NodeFinished", "node": "classify", "at": "2026-01-02T03:04:05Z", "output": "a short answer " * 20}


class Bare:
    """One statement and one commit, in the thread that asks."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "CREATE TABLE journal (entry TEXT)",
        ):
            self._connection.execute(statement)

    async def append(self, count: int) -> Sequence[float]:
        """Append one after the other."""
        for _ in range(count):
            self._connection.execute("INSERT INTO journal VALUES (?)", (orjson.dumps(ENTRY).decode(),))
        return ()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class Ours:
    """An append with its fence, a node, a span, the progress and the announcement."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._numbers = itertools.count()

    async def start(self, runs: int) -> None:
        """Make runs and claim them."""
        session = make_session()
        await self._storage.register(session, at=NOW)
        for number in range(runs):
            uid = f"run-{number}"
            await self._storage.submit(make_run(uid), revision=make_revision(), task=make_task(uid))
        await self._storage.claim(session, limit=runs, at=NOW)

    async def append(self, count: int) -> Sequence[float]:
        """Append one after the other."""
        for _ in range(count):
            await self._one("run-0", next(self._numbers))
        return ()

    async def append_together(self, count: int) -> Sequence[float]:
        """Append to eight runs at once: what waits is committed together."""
        base = await self._lengths()

        async def one_run(number: int) -> None:
            for turn in range(count // 8):
                await self._one(f"run-{number}", base[number - 1] + turn)

        await asyncio.gather(*(one_run(number) for number in range(1, 9)))
        return ()

    async def _lengths(self) -> list[int]:
        tasks = [await self._storage.tasks_of_run(f"run-{number}") for number in range(1, 9)]
        return [task.journal_length for [task] in tasks]

    async def _one(self, uid: str, seq: int) -> None:
        node = NodeRecord(uid, "classify", state="Succeeded", started_at=NOW, finished_at=NOW)
        span = Span(uid, f"span-{seq % 50}", "", "classify", "node", NOW, NOW, "ok")
        effects = Effects(nodes=(node,), spans=(span,), done=1, total=2, current=("draft",))
        fence = Fence(f"{uid}-task", "pod-1-session", 1)
        await self._storage.append(fence, first=seq, entries=[ENTRY], effects=effects, at=NOW)


@asynccontextmanager
async def comparisons(folder: Path) -> AsyncIterator[list[Comparison]]:
    """Open both files and yield what to compare."""
    bare = Bare(folder / "bare.db")
    async with sqlite_storage(folder) as storage:
        ours = Ours(storage)
        await ours.start(9)
        arms = [
            Arm("bare insert", bare.append),
            Arm("journal append", ours.append),
            Arm("journal append, 8 runs at once", ours.append_together),
        ]
        yield [Comparison("append one entry durably", 400, arms)]
    bare.close()
