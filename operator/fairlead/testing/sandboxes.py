"""Real sandboxes for tests, and a look at what programs leave behind on the machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from fairlead.kube import KubeClient
from fairlead.sandbox.base import Job, Limits, Result, Sandbox
from fairlead.sandbox.choosing import Options, build_sandbox
from fairlead.services.sandboxpods import SandboxPods

LIMITS: Final = Limits(
    wall_seconds=20,
    cpu_seconds=20,
    memory_bytes=96 << 20,
    disk_bytes=8 << 20,
    processes=16,
    output_bytes=64 << 10,
)
"""Small ones, so that they are soon reached."""

PRELUDE: Final = """
import os, sys, socket, ctypes, time
output = {}
def attempt(name, call):
    try:
        result = call()
    except BaseException as error:
        output[name] = f"refused: {type(error).__name__} {error}"[:200]
    else:
        output[name] = f"REACHED: {result!r}"[:200]
libc = ctypes.CDLL(None, use_errno=True)
def system_call(*arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
"""


@asynccontextmanager
async def running_sandbox(backend: str, kubeconfig: Path | None = None) -> AsyncIterator[Sandbox]:
    """Start a back end with one sandbox kept ready; *kubeconfig* is for ``pod``."""
    options = Options(limits=LIMITS, warm=1)
    kube = None
    if kubeconfig is not None:
        kube = await KubeClient.connect(kubeconfig=kubeconfig, user_agent="fairlead-test")
    sandbox = build_sandbox(backend, options=options, pods=SandboxPods(kube, options.namespace) if kube else None)
    try:
        reason = await sandbox.unavailable()
        if reason is not None:
            raise RuntimeError(reason)
        yield sandbox
    finally:
        await sandbox.aclose()
        if kube is not None:
            await kube.aclose()


async def attempts(sandbox: Sandbox, source: str, **inputs: object) -> dict[str, str]:
    """Run a program of attempts; return what came of each that was not refused, after a look that there were some."""
    result = await sandbox.run(Job("python", PRELUDE + source, inputs=inputs, limits=LIMITS))
    found = result.output
    if not isinstance(found, dict) or not found:
        raise AssertionError(f"the attempts were not made: {result}")
    return {name: what for name, what in found.items() if not str(what).startswith("refused")}


def processes_with(mark: str) -> list[int]:
    """Return the processes of this machine, in containers too, that have *mark* in their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and mark.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def explained(result: Result) -> str:
    """Return a result for the message of an assertion, without what it is long of."""
    return f"{result.ended} {result.exit_code} {result.message!r} {result.stdout[-300:]!r} {result.stderr[-600:]!r}"
