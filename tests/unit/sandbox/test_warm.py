from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson
import pytest

from fairlead.sandbox.base import Ended, Job, Limits, Result, SandboxBroken, SandboxUnavailable
from fairlead.sandbox.jobs import Inside
from fairlead.sandbox.warm import Box, BoxEnded, Shape, WarmSandbox

OTHER = replace(Limits(), memory_bytes=1 << 30)
SHORT = replace(Limits(), wall_seconds=-1.99)
"""With the grace of two seconds: over at once."""


class FakeBox:
    """Answers every job alike."""

    def __init__(self, proxy: Path | None) -> None:
        self.inside = Inside(proxy=str(proxy or ""))
        self.got: list[bytes] = []
        self.answer: bytes | BoxEnded | None = None
        self.answered = asyncio.Event()
        self.living = True
        self.closed = 0

    def alive(self) -> bool:
        return self.living

    async def send(self, data: bytes) -> None:
        self.got.append(data)
        if self.answer is None and b"wait" not in data:
            fine = {"ended": "Exited", "exitCode": 0, "stdout": "cmVhZHkK", "stderr": "", "truncated": False}
            self.answer = orjson.dumps({**fine, "files": {}, "dropped": []})
        if self.answer is not None:
            self.answered.set()

    async def line(self) -> bytes:
        await self.answered.wait()
        if isinstance(self.answer, BoxEnded):
            raise self.answer
        assert self.answer is not None
        return b"%d\n" % len(self.answer)

    async def body(self, size: int) -> bytes:
        assert isinstance(self.answer, bytes)
        return self.answer[:size]

    async def close(self) -> None:
        self.closed += 1


@dataclass
class FakeBackend:
    """Starts boxes, or fails to."""

    name: str = "fake"
    missing: str | None = None
    broken: bool = False
    boxes: list[FakeBox] = field(default_factory=list)
    closed: bool = False

    async def unavailable(self) -> str | None:
        return self.missing

    async def start(self, shape: Shape, proxy: Path | None) -> Box:
        del shape
        await asyncio.sleep(0)
        if self.broken:
            raise SandboxBroken("no more memory")
        self.boxes.append(FakeBox(proxy))
        return self.boxes[-1]

    async def aclose(self) -> None:
        self.closed = True


@asynccontextmanager
async def way_out(hosts: tuple[str, ...]) -> AsyncIterator[Path]:
    yield Path("-".join(hosts))


def make(backend: FakeBackend, *, parallel: int = 4, warm: int = 2) -> WarmSandbox:
    return WarmSandbox(backend, way_out=way_out, parallel=parallel, warm=warm, shape=Shape.of(Limits()))


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def ready(backend: FakeBackend, *, parallel: int = 4, warm: int = 2) -> WarmSandbox:
    sandbox = make(backend, parallel=parallel, warm=warm)
    assert await sandbox.unavailable() is None
    await settle()
    return sandbox


async def test_unavailable_tries_a_box_once_for_all_who_ask() -> None:
    backend = FakeBackend()
    sandbox = make(backend, warm=0)

    assert await asyncio.gather(*(sandbox.unavailable() for _ in range(5))) == [None] * 5

    assert [box.closed for box in backend.boxes] == [1]


async def test_run_without_a_back_end_says_what_is_missing() -> None:
    sandbox = make(FakeBackend(missing="install it"))

    with pytest.raises(SandboxUnavailable, match="install it"):
        await sandbox.run(Job("python", ""))


async def test_unavailable_says_what_the_trial_said() -> None:
    assert await make(FakeBackend(broken=True)).unavailable() == "no more memory"


async def test_run_uses_a_box_once_and_replaces_it() -> None:
    backend = FakeBackend()
    sandbox = await ready(backend)
    _, first, second = backend.boxes

    await sandbox.run(Job("python", "1"))
    await settle()

    assert (len(first.got), first.closed, len(second.got)) == (1, 1, 0)
    assert len(backend.boxes) == 4, "one to try it, two kept ready, one in place of the first"


@pytest.mark.parametrize(
    "job", [Job("python", "", limits=OTHER), Job("python", "", network=("a.test",))], ids=["shape", "network"]
)
async def test_run_of_what_no_ready_box_is_for_starts_one(job: Job) -> None:
    backend = FakeBackend()
    sandbox = await ready(backend)

    await sandbox.run(job)
    await settle()

    assert [len(box.got) for box in backend.boxes] == [1, 0, 0, 1]
    assert backend.boxes[-1].inside.proxy == "".join(job.network)


async def test_run_passes_over_a_ready_box_that_has_died() -> None:
    backend = FakeBackend()
    sandbox = await ready(backend)
    backend.boxes[1].living = False

    await sandbox.run(Job("python", ""))
    await settle()

    assert [(len(box.got), box.closed) for box in backend.boxes[1:3]] == [(0, 1), (1, 1)]


async def test_run_bounds_how_many_there_are_at_a_time() -> None:
    backend = FakeBackend()
    sandbox = await ready(backend, parallel=2, warm=0)

    tasks = [asyncio.create_task(sandbox.run(Job("python", "wait"))) for _ in range(5)]
    await settle()
    running = sum(bool(box.got) and not box.closed for box in backend.boxes)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await settle()

    assert running == 2
    assert all(box.closed for box in backend.boxes)


async def test_run_that_says_nothing_in_time_is_ended_from_outside() -> None:
    backend = FakeBackend()
    sandbox = await ready(backend, warm=0)

    result = await sandbox.run(Job("python", "wait", limits=SHORT))
    await settle()

    assert result.ended is Ended.TIMEOUT
    assert backend.boxes[-1].closed == 1


async def test_run_of_a_box_that_ends_says_why() -> None:
    backend = FakeBackend()
    sandbox = await ready(backend, warm=1)
    backend.boxes[-1].answer = BoxEnded(Ended.MEMORY, "too much")

    assert await sandbox.run(Job("python", "")) == Result(Ended.MEMORY, message="too much")


async def test_aclose_ends_the_ready_ones_and_starts_no_more() -> None:
    backend = FakeBackend()
    sandbox = await ready(backend)

    await sandbox.aclose()

    assert all(box.closed == 1 for box in backend.boxes)
    assert (len(backend.boxes), backend.closed) == (3, True)
    with pytest.raises(SandboxUnavailable):
        await sandbox.run(Job("python", ""))


async def test_refill_that_fails_leaves_the_next_to_start_its_own() -> None:
    backend = FakeBackend()
    sandbox = await ready(backend, warm=1)
    backend.broken = True
    await sandbox.run(Job("python", ""))
    await settle()

    with pytest.raises(SandboxBroken, match="no more memory"):
        await sandbox.run(Job("python", ""))
    backend.broken = False

    assert (await sandbox.run(Job("python", ""))).ended is Ended.EXITED
