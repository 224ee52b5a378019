"""What a command costs before it does anything: `fairlead --help` next to Python alone, and to click alone."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.bench.harness import Arm, Comparison, Work

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "python -c 'import click'": ["-c", "import click"],
    "fairlead --help": ["-m", "fairlead.cli.main", "--help"],
}
CLIENTS = {
    "python -c 'import kubernetes.aio.config'": ["-c", "import kubernetes.aio.config"],
    "what fairlead get imports": ["-c", "import fairlead.cli.main, fairlead.cli.get, fairlead.cli.session"],
}


def _start(arguments: Sequence[str]) -> Work:
    async def work(count: int) -> Sequence[float]:
        took = []
        for _ in range(count):
            began = time.perf_counter()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdout=asyncio.subprocess.DEVNULL,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
            )
            if await process.wait():
                message = f"{arguments} failed"
                raise RuntimeError(message)
            took.append(time.perf_counter() - began)
        return took

    return work


@asynccontextmanager
async def comparisons(_folder: Path) -> AsyncIterator[list[Comparison]]:
    """Yield what is compared. A child that has ended counts as this process's."""
    yield [
        Comparison("A command's start", 5, _arms(COMMANDS)),
        Comparison("until a command can ask the Kubernetes API", 3, _arms(CLIENTS)),
    ]


def _arms(commands: Mapping[str, Sequence[str]]) -> list[Arm]:
    return [Arm(name, _start(arguments), processes=lambda: (os.getpid(),)) for name, arguments in commands.items()]
