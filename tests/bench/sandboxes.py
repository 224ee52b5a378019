"""What it takes to run a program of one line: in a sandbox that is ready, in a new one, and next to the bare means."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from tests.bench.harness import Arm, Comparison, Work

from fairlead.sandbox.base import Ended, Job, Limits
from fairlead.sandbox.choosing import IMAGE, Options, build_sandbox
from fairlead.sandbox.warm import WarmSandbox

PROGRAM = "output = 1 + 1"
WARM = Limits()
COLD = replace(WARM, processes=WARM.processes - 1)
"""No sandbox that is ready is for these."""
_PLAIN = ["docker", "run", "--rm", "--network", "none", "--read-only", "--entrypoint", "/usr/bin/python3", IMAGE]


def _command(*arguments: str) -> Work:
    async def work(count: int) -> Sequence[float]:
        took = []
        for _ in range(count):
            began = time.perf_counter()
            process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.DEVNULL)
            if await process.wait():
                message = f"{arguments} failed"
                raise RuntimeError(message)
            took.append(time.perf_counter() - began)
        return took

    return work


def _jobs(sandbox: WarmSandbox, limits: Limits) -> Work:
    async def work(count: int) -> Sequence[float]:
        took = []
        for _ in range(count):
            while not sandbox._ready:  # noqa: ASYNC110 - it tells nobody when one is
                await asyncio.sleep(0.002)
            began = time.perf_counter()
            result = await sandbox.run(Job("python", PROGRAM, limits=limits))
            took.append(time.perf_counter() - began)
            if (result.ended, result.output) != (Ended.EXITED, 2):
                message = f"the program failed: {result}"
                raise RuntimeError(message)
        return took

    return work


def _arm(name: str, work: Work) -> Arm:
    return Arm(name, work, processes=lambda: (os.getpid(),))


@asynccontextmanager
async def comparisons(_folder: Path) -> AsyncIterator[list[Comparison]]:
    """Yield what is compared: the back ends that work here."""
    arms = [_arm("bare python, no sandbox", _command(sys.executable, "-I", "-S", "-c", PROGRAM))]
    async with AsyncExitStack() as stack:
        for backend in ("bubblewrap", "docker"):
            choice = build_sandbox(backend, options=Options(limits=WARM, warm=1))
            stack.push_async_callback(choice.aclose)
            if await choice.unavailable() is None and isinstance(choice._chosen, WarmSandbox):
                if backend == "docker":
                    arms.append(_arm("plain `docker run`", _command(*_PLAIN, "-I", "-S", "-c", PROGRAM)))
                arms.append(_arm(f"{backend}, new", _jobs(choice._chosen, COLD)))
                arms.append(_arm(f"{backend}, kept ready", _jobs(choice._chosen, WARM)))
        yield [Comparison("A program of one line", 5, arms)]
