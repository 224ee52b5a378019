"""Sandboxes of back ends that start one and talk to it: kept ready, used once, thrown away, replaced.

A back end only knows how to start a `Box`; everything that is the same for all is here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from fairlead.sandbox.base import Ended, Job, Limits, Result, Sandbox, SandboxBroken, SandboxUnavailable
from fairlead.sandbox.jobs import Inside, check_job, no_result, parse_result, parse_size, to_frame

log = structlog.get_logger()

_GRACE_SECONDS: Final = 2.0
"""What the runner has to say by itself that the time is over; then it is ended from outside."""
_START_SECONDS: Final = 30.0
TRIAL: Final = Job("shell", "echo ready", limits=Limits(wall_seconds=10))


class BoxEnded(Exception):
    """A sandbox ended before it gave a result."""

    def __init__(self, ended: Ended, message: str) -> None:
        super().__init__(message)
        self.ended = ended


@dataclass(frozen=True, slots=True)
class Shape:
    """What has to be known when a sandbox is started; a ready one takes jobs of its shape only."""

    memory_bytes: int
    disk_bytes: int
    processes: int

    @classmethod
    def of(cls, limits: Limits) -> Shape:
        """Return the part of the limits that cannot be set later."""
        return cls(limits.memory_bytes, limits.disk_bytes, limits.processes)


class Box(Protocol):
    """A started sandbox, whose runner waits for a job."""

    inside: Inside

    def alive(self) -> bool:
        """Whether it still waits."""

    async def send(self, data: bytes) -> None:
        """Give it bytes."""

    async def line(self) -> bytes:
        """Return the next line of what it says; not longer than a header."""

    async def body(self, size: int) -> bytes:
        """Return so many bytes of what it says.

        Raises:
            BoxEnded: it has ended.
        """

    async def close(self) -> None:
        """End it and everything in it. May be called twice."""


class Backend(Protocol):
    """Starts sandboxes of one kind."""

    name: str

    async def unavailable(self) -> str | None:
        """Return what is missing, as far as that can be seen without starting one."""

    async def start(self, shape: Shape, proxy: Path | None) -> Box:
        """Start a sandbox and wait until it is ready; *proxy* is the folder with the socket of its way out.

        Raises:
            SandboxBroken: it did not start.
        """

    async def aclose(self) -> None:
        """Give back what all sandboxes share."""


class WayOut(Protocol):
    """Makes proxies."""

    def __call__(self, hosts: tuple[str, ...]) -> AbstractAsyncContextManager[Path]:
        """Serve a proxy that lets through to *hosts*; return the folder that holds its socket."""


class WarmSandbox(Sandbox):
    """Runs jobs in boxes of a back end, and keeps some ready."""

    def __init__(self, backend: Backend, *, way_out: WayOut, parallel: int, warm: int, shape: Shape) -> None:
        """Take a back end; at most *parallel* jobs run at a time, *warm* boxes of *shape* are kept ready."""
        self.name = backend.name
        self._backend = backend
        self._way_out = way_out
        self._room = asyncio.Semaphore(parallel)
        self._warm = warm
        self._shape = shape
        self._ready: deque[Box] = deque()
        self._starting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._trial: asyncio.Task[str | None] | None = None
        self._closed = False

    async def unavailable(self) -> str | None:
        """Try it, once for all who ask."""
        if self._trial is None:
            self._trial = asyncio.create_task(self._try())
        return await asyncio.shield(self._trial)

    async def _try(self) -> str | None:
        missing = await self._backend.unavailable()
        if missing is not None:
            return missing
        try:
            result = await self._run(TRIAL)
        except SandboxBroken as error:
            return str(error)
        if (result.ended, result.exit_code, result.stdout) != (Ended.EXITED, 0, "ready\n"):
            return f"{self.name} was tried and did not work: {result.message or result.stderr[:500]}"
        self._refill()
        return None

    async def run(self, job: Job) -> Result:
        """Run a job in a box of its own."""
        check_job(job)
        missing = await self.unavailable()
        if missing is not None:
            raise SandboxUnavailable(missing)
        return await self._run(job)

    async def _run(self, job: Job) -> Result:
        async with self._room, self._proxy(job) as proxy, self._box(job, proxy) as box:
            return await _talk(box, job)

    def _proxy(self, job: Job) -> AbstractAsyncContextManager[Path | None]:
        return self._way_out(job.network) if job.network else nullcontext()

    @asynccontextmanager
    async def _box(self, job: Job, proxy: Path | None) -> AsyncIterator[Box]:
        shape = Shape.of(job.limits)
        box = self._take() if proxy is None and shape == self._shape else None
        if box is None:
            box = await self._start(shape, proxy)
        try:
            yield box
        finally:
            self._later(box.close())

    async def _start(self, shape: Shape, proxy: Path | None) -> Box:
        if self._closed:
            raise SandboxUnavailable("sandboxes have been closed: the gateway ends")
        try:
            async with asyncio.timeout(_START_SECONDS):
                return await self._backend.start(shape, proxy)
        except TimeoutError as error:
            raise SandboxBroken(f"a sandbox ({self.name}) did not start within {_START_SECONDS:g} s") from error

    def _take(self) -> Box | None:
        found = None
        while self._ready and found is None:
            box = self._ready.popleft()
            if box.alive():
                found = box
            else:
                self._later(box.close())
        self._refill()
        return found

    def _refill(self) -> None:
        while not self._closed and len(self._ready) + self._starting < self._warm:
            self._starting += 1
            self._later(self._prepare())

    async def _prepare(self) -> None:
        try:
            box = await self._start(self._shape, None)
        except (SandboxBroken, SandboxUnavailable) as error:
            log.warning("no sandbox kept ready", backend=self.name, error=str(error))
            return
        finally:
            self._starting -= 1
        if self._closed:
            await box.close()
        else:
            self._ready.append(box)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """End the ready ones, and wait for those that are being started or ended."""
        self._closed = True
        if self._trial is not None and not self._trial.done():
            self._trial.cancel()
            with suppress(asyncio.CancelledError):
                await self._trial
        while self._tasks or self._ready:
            while self._ready:
                self._later(self._ready.popleft().close())
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._backend.aclose()


async def _talk(box: Box, job: Job) -> Result:
    limits = job.limits
    try:
        async with asyncio.timeout(limits.wall_seconds + _GRACE_SECONDS):
            await box.send(to_frame(job, box.inside))
            size = parse_size(await box.line(), limits)
            return parse_result(await box.body(size), limits)
    except TimeoutError:
        return Result(ended=Ended.TIMEOUT, message=f"it ran for more than {limits.wall_seconds:g} s")
    except BoxEnded as error:
        return Result(ended=error.ended, message=str(error))
    except ValueError as error:
        return no_result(error)
