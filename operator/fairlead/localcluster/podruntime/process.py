"""Containers as local processes: started through the lifeline in a group of their own, logged, measured, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fairlead import __version__
from fairlead.localcluster import lifeline
from fairlead.localcluster.podruntime.engine import Adopted, Ended, Launch
from fairlead.localcluster.podruntime.environment import (
    MOUNT_POINT,
    build_command,
    build_environment,
    build_limits,
    memory_limit,
)
from fairlead.localcluster.podruntime.logs import LogFile, pump, resident_bytes
from fairlead.localcluster.podruntime.state import Json
from fairlead.localcluster.podruntime.status import LOOPBACK
from fairlead.localcluster.podruntime.volumes import Access, below

_LOOK_SECONDS: Final = 1.0
_DRAIN_SECONDS: Final = 2.0
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_IMAGE_COMMAND: Final = [sys.executable, "-m", "fairlead_agent"]
_SAID: Final = 4096


class ProcessEngine:
    """Runs the agent image, and nothing else, as processes of this user; they die with this process."""

    def __init__(self, pods_dir: Path) -> None:
        self._pods_dir = pods_dir

    @property
    def version(self) -> str:
        """What the node says of it."""
        return f"process://{__version__}"

    async def start(self, launch: Launch) -> Process:
        """Start a process in the folder that stands for the container's root."""
        root = launch.volumes.mount(launch.spec)
        given = build_environment(launch.pod, launch.spec, launch.volumes.lookup)
        minimum = {"PATH": _PATH, "HOME": str(root), "LANG": "C.UTF-8"}
        environment = minimum | given | {MOUNT_POINT: str(root)}
        folder = below(root, launch.spec.get("workingDir") or "")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        arguments = build_command(launch.spec, image_command=_IMAGE_COMMAND, variables=environment)
        command = Command(arguments, environment, folder, build_limits(launch.spec))
        ident = f"process://{launch.pod['metadata']['uid']}/{launch.spec['name']}/{launch.attempt}"
        return await Process.start(command, launch, ident=ident)

    def access(self, pod: Json) -> Access:
        """Return that nobody but this user may read them."""
        del pod
        return Access()

    async def adopt(
        self, pod: Json, open_log: Callable[[str, int], LogFile], *, over: Collection[str]
    ) -> Mapping[str, Adopted]:
        """Return nothing: processes die with the runtime that started them."""
        del pod, open_log, over
        return {}

    async def address(self, pod: Json) -> str:
        """Return the machine's own: processes have no network of their own."""
        del pod
        return LOOPBACK

    async def remove(self, pod: Json) -> None:
        """Leave it at that: when a pod's processes have ended, nothing is left of it."""

    async def sweep(self, known: Collection[str]) -> int:
        """End what processes left behind when a runtime was killed; return how many there were."""
        del known  # none can be of a runtime that has just been started
        return await asyncio.to_thread(end_strays, self._pods_dir)

    async def aclose(self) -> None:
        """Leave it at that: the pods' workers have ended every process."""


@dataclass(frozen=True, slots=True)
class Command:
    """What is executed, and how."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    limits: Sequence[str] = ()


_Outputs = Sequence[asyncio.Task[None]]


class Process:
    """A process that runs, or ran."""

    def __init__(
        self, process: asyncio.subprocess.Process, command: Command, launch: Launch, *, ident: str, outputs: _Outputs
    ) -> None:
        self._process, self._started, self._launch = process, command, launch
        self._ident, self._outputs = ident, outputs
        self._out_of_memory = False

    @classmethod
    async def start(cls, command: Command, launch: Launch, *, ident: str) -> Process:
        """Start it.

        Raises:
            OSError: the system has no room for it.
        """
        # Pipes of our own: with asyncio's, a process counts as ended only when its children have closed them, too.
        (stdout, stdout_end), (stderr, stderr_end) = os.pipe(), os.pipe()
        try:
            process = await _execute(command, stdout=stdout_end, stderr=stderr_end)
        except BaseException:
            os.close(stdout)
            os.close(stderr)
            raise
        finally:
            os.close(stdout_end)
            os.close(stderr_end)
        copies = [pump(stdout, launch.log, "stdout"), pump(stderr, launch.log, "stderr")]
        outputs = [asyncio.create_task(copy) for copy in copies]
        return cls(process, command, launch, ident=ident, outputs=outputs)

    @property
    def ident(self) -> str:
        """The process, as the API names it."""
        return self._ident

    @property
    def image_id(self) -> str:
        """The image that this process stands for."""
        return f"process://{self._launch.spec.get('image', '')}"

    @property
    def address(self) -> str:
        """The machine's own."""
        return LOOPBACK

    @property
    def facts(self) -> Mapping[str, Any]:
        """Its process id, and that of its group."""
        return {"pid": self._process.pid}

    async def wait(self) -> Ended:
        """Return how it ended once all it said is in the log; end what its group left behind."""
        memory = memory_limit(self._launch.spec)
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
        self._launch.log.close()
        return Ended(code, self._out_of_memory)

    async def stop(self) -> None:
        """Ask it to end, as an engine asks a container's first process."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    async def kill(self) -> None:
        """End it and everything in its group."""
        self._signal_group(signal.SIGKILL)

    async def execute(self, command: Sequence[str], *, seconds: float) -> tuple[int, str]:
        """Run a command with the same environment, in the same folder."""
        beside = await _execute(
            Command(command, self._started.environment, self._started.folder, self._started.limits),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(seconds):
                output, _ = await beside.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(beside.pid, signal.SIGKILL)
        return beside.returncode or 0, output[:_SAID].decode(errors="replace")

    def _signal_group(self, which: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, which)

    async def _watch_memory(self, limit: int) -> None:
        while True:
            if resident_bytes(self._process.pid) > limit:
                self._out_of_memory = True
                self._signal_group(signal.SIGKILL)
                return
            await asyncio.sleep(_LOOK_SECONDS)


async def _execute(command: Command, *, stdout: int, stderr: int) -> asyncio.subprocess.Process:
    guard = [sys.executable, "-I", "-S", str(Path(lifeline.__file__)), str(os.getpid()), *command.limits, "--"]
    return await asyncio.create_subprocess_exec(
        *guard,
        *command.arguments,
        cwd=command.folder,
        env=dict(command.environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


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
