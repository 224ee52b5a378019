"""One container's process: started through the lifeline in a group of its own, logged, measured, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fairlead.localcluster import lifeline
from fairlead.localcluster.podruntime.environment import MOUNT_POINT
from fairlead.localcluster.podruntime.logs import LogFile, pump, resident_bytes

_LOOK_SECONDS: Final = 1.0
_DRAIN_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything that a process is started with."""

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    limits: Sequence[str] = ()


class Process:
    """A process that runs, or ran."""

    def __init__(
        self, process: asyncio.subprocess.Process, outputs: Sequence[asyncio.Task[None]], log: LogFile
    ) -> None:
        self._process, self._outputs, self._log = process, outputs, log
        self.out_of_memory = False

    @classmethod
    async def start(cls, launch: Launch, log: LogFile) -> Process:
        """Start it.

        Raises:
            OSError: the system has no room for it.
        """
        guard = [sys.executable, "-I", "-S", str(Path(lifeline.__file__)), str(os.getpid()), *launch.limits, "--"]
        # Pipes of our own: with asyncio's, a process counts as ended only when its children have closed them, too.
        (stdout, stdout_end), (stderr, stderr_end) = os.pipe(), os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *guard,
                *launch.command,
                cwd=launch.folder,
                env=dict(launch.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout_end,
                stderr=stderr_end,
                start_new_session=True,
            )
        except BaseException:
            os.close(stdout)
            os.close(stderr)
            raise
        finally:
            os.close(stdout_end)
            os.close(stderr_end)
        copies = [pump(stdout, log, "stdout"), pump(stderr, log, "stderr")]
        return cls(process, [asyncio.create_task(copy) for copy in copies], log)

    @property
    def pid(self) -> int:
        """Its process id, and that of its group."""
        return self._process.pid

    async def wait(self, *, memory: int) -> int:
        """Return its exit code once it has ended and all it said is in the log; end what its group left behind."""
        watcher = asyncio.create_task(self._watch_memory(memory)) if memory else None
        try:
            code = await self._process.wait()
        finally:
            if watcher is not None:
                watcher.cancel()
        self._signal_group(signal.SIGKILL)
        _, unfinished = await asyncio.wait(self._outputs, timeout=_DRAIN_SECONDS)
        for output in unfinished:
            output.cancel()
        await asyncio.gather(*self._outputs, return_exceptions=True)
        self._log.close()
        return code

    def stop(self) -> None:
        """Ask it to end, as an engine asks a container's first process."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and everything in its group."""
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, which: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, which)

    async def _watch_memory(self, limit: int) -> None:
        while True:
            if resident_bytes(self.pid) > limit:
                self.out_of_memory = True
                self.kill()
                return
            await asyncio.sleep(_LOOK_SECONDS)


def end_strays(pods_dir: Path) -> int:
    """End what processes of pods left behind when the runtime was killed; return how many.

    A process belongs to a pod if its environment says that it is mounted below *pods_dir*, which is this home's own.
    """
    mark = f"{MOUNT_POINT}={pods_dir}/".encode()
    found = 0
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (entry / "environ").read_bytes().split(b"\0")
            if any(variable.startswith(mark) for variable in variables):
                os.kill(int(entry.name), signal.SIGKILL)
                found += 1
    return found
