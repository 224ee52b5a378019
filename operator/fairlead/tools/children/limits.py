"""What a child process denies itself before it looks at foreign data."""

from __future__ import annotations

import ctypes
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

import orjson

MEMORY_BYTES: Final = 1 << 30
_PR_SET_PDEATHSIG: Final = 1


class Problem(Exception):
    """The computation cannot be done; the text is for the person who asked for it."""

    def __init__(self, message: str, *, reason: str = "ToolFailed") -> None:
        super().__init__(message)
        self.reason = reason


def main(compute: Callable[[dict[str, Any]], Any]) -> None:
    """Read the request, compute under limits, write the answer."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    payload = orjson.loads(sys.stdin.buffer.read())
    _limit(int(payload.pop("cpuSeconds")))
    sys.stdout.buffer.write(orjson.dumps(_answer(compute, payload)))


def forbid_files() -> None:
    """Open and write nothing more."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))


def _limit(cpu_seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answer(compute: Callable[[dict[str, Any]], Any], payload: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": compute(payload)}
    except Problem as problem:
        return {"error": {"reason": problem.reason, "message": str(problem)}}
    except MemoryError:
        return {"error": {"reason": "LimitExceeded", "message": "it needs too much memory: ask for less"}}
    except RecursionError:
        return {"error": {"reason": "LimitExceeded", "message": "it is nested too deeply"}}
