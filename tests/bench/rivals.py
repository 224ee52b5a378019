"""Named alternatives, each with its own pinned packages in a virtual environment of its own, and the children that run.

Such a child reads a number per line from its standard input, does so many operations, and writes ``done``: what is
measured has then started and imported everything long ago.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

_ROOT = Path(__file__).parents[2]
_VENVS = _ROOT / "build" / "bench"
CONTESTANTS = Path(__file__).with_name("contestants")
_OWN = "fairlead"


async def python_of(name: str) -> Path:
    """Return the interpreter that has what ``requirements/bench-<name>.txt`` pins, after installing it once."""
    if name == _OWN:
        return Path(sys.executable)
    requirements = _ROOT / "requirements" / f"bench-{name}.txt"
    venv = _VENVS / name
    mark = venv / "installed"
    if not mark.exists() or mark.stat().st_mtime < requirements.stat().st_mtime:
        await _run([sys.executable, "-m", "venv", "--clear", str(venv)])
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        await _run([*pip, "--require-hashes", "--no-deps", "-r", str(requirements)])
        mark.touch()
    return venv / "bin" / "python"


async def _run(command: Sequence[str]) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    if await process.wait():
        message = f"{' '.join(command)} failed"
        raise RuntimeError(message)


class Contestant:
    """A script of `CONTESTANTS` in a process of its own. Use as a context manager."""

    def __init__(self, script: str, python: Path, folder: Path, *arguments: str) -> None:
        self._command = [str(python), str(CONTESTANTS / f"{script}.py"), *arguments, str(folder)]
        self._log = folder / "stderr.log"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()

    def processes(self) -> tuple[int, ...]:
        """Return what is measured."""
        return () if self._process is None else (self._process.pid,)

    async def work(self, count: int) -> Sequence[float]:
        """Do so many operations."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{count}\n".encode())
        await process.stdin.drain()
        while line := await process.stdout.readline():
            if line == b"done\n":
                return ()
        message = f"{self._command} ended: {self._log.read_text()[-2000:]}"
        raise RuntimeError(message)
