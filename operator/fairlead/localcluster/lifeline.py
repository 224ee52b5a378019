"""Turns itself into another program that dies with the process that started it. Run by its path, never imported by it.

``python -I -S lifeline.py PARENT [--limit NAME=VALUE]... -- PROGRAM [ARGUMENT]...``

It needs nothing but the standard library, so that it starts in a few milliseconds. The kernel kills the program when
its parent ends, however that ends (Linux); elsewhere a guard process stays behind and looks.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_LOOK_SECONDS = 0.2


def main(arguments: list[str]) -> int:
    """Set up this process and become the program; returns only if that fails."""
    split = arguments.index("--")
    parent, limits, program = int(arguments[0]), arguments[1:split], arguments[split + 1 :]
    _bind_to(parent)
    for limit in limits:
        name, _, value = limit.removeprefix("--limit=").partition("=")
        _limit(getattr(resource, name), int(value))
    try:
        os.execvpe(program[0], program, os.environ)  # noqa: S606 - the pod's own command, no shell
    except OSError as error:
        sys.stderr.write(f"cannot start {program[0]}: {error.strerror}\n")
        return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE


def _bind_to(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        _leave_guard(parent, os.getpid())
    if os.getppid() != parent:  # it ended before the line above
        os.kill(os.getpid(), signal.SIGKILL)


def _leave_guard(parent: int, program: int) -> None:
    if os.fork():
        return
    os.setsid()
    while os.getppid() == program:
        if not _alive(parent):
            os.killpg(program, signal.SIGKILL)
            break
        time.sleep(_LOOK_SECONDS)
    os._exit(0)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
