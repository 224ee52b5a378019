"""Keeps child processes: started through the lifeline, restarted when they crash, ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fairlead.clock import Clock
from fairlead.errors import TerminalError
from fairlead.localcluster import lifeline
from fairlead.localcluster.supervisor.processes import Identity
from fairlead.logs import get_logger

_log = get_logger(__name__)
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
_STEADY_SECONDS: Final = 60.0
"""A child that ran this long has overcome what made it crash."""
_LOG_LIMIT: Final = 10 * 1024 * 1024
_TAIL_LINES: Final = 8
_POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How a child is started."""

    name: str
    title: str
    """What people call it."""
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str]
    before_start: Callable[[], None] = field(default=lambda: None)


class Child:
    """One child, over all its restarts."""

    def __init__(self, spec: ChildSpec, clock: Clock, *, changed: Callable[[], None]) -> None:
        self.spec = spec
        self._clock, self._changed = clock, changed
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def identity(self) -> Identity | None:
        """The process that runs now."""
        running = self._process is not None and self._process.returncode is None
        return Identity.of(self._process.pid) if running and self._process is not None else None

    async def start(self) -> None:
        """Start the process."""
        self.spec.before_start()
        guard = [sys.executable, "-I", "-S", str(Path(lifeline.__file__)), str(os.getpid()), "--"]
        trim_log(self.spec.log)
        with self.spec.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *guard,
                *self.spec.command,
                env=dict(self.spec.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._changed()

    async def until(self, ready: Callable[[], Awaitable[bool]], *, seconds: float) -> None:
        """Wait until the child is ready.

        Raises:
            TerminalError: it ended, or was not ready in time; with the end of its log.
        """
        ends = self._clock.monotonic() + seconds
        while not await ready():
            code = self._process.returncode if self._process is not None else None
            if code is not None:
                raise TerminalError(f"{self.spec.title} did not start (exit code {code}):{self._tail()}")
            if self._clock.monotonic() > ends:
                raise TerminalError(f"{self.spec.title} was not ready within {seconds:.0f} s:{self._tail()}")
            await self._clock.sleep(_POLL_SECONDS)

    def keep(self) -> None:
        """From now on, start it again whenever it ends."""
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.spec.name}")

    async def stop(self, *, seconds: float) -> None:
        """End it: asked first, killed after *seconds*."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            _log.warning("child_killed", process=self.spec.name, seconds=seconds)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def _keep(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            assert self._process is not None  # noqa: S101 - it was started before it is kept
            since = self._clock.monotonic()
            code = await self._process.wait()
            if self._clock.monotonic() - since > _STEADY_SECONDS:
                pause = _FIRST_PAUSE
            _log.error("child_ended", process=self.spec.name, code=code, restart_in=pause)
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            try:
                await self.start()
            except OSError as error:
                _log.error("child_not_started", process=self.spec.name, error=str(error))

    def _tail(self) -> str:
        lines = self.spec.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return "".join(f"\n  {line}" for line in lines) + f"\n  (all of it: {self.spec.log})"


def trim_log(path: Path, *, limit: int = _LOG_LIMIT) -> None:
    """Keep a log that somebody appends to from growing without end: what it has moves to ``<name>.1``."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > limit:
            path.with_name(f"{path.name}.1").write_bytes(path.read_bytes())
            os.truncate(path, 0)
