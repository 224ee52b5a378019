"""How much memory a tree of processes uses, read in ``/proc`` from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def runner_of(bubblewrap: int) -> int | None:
    """Return the process 1 of a sandbox that *bubblewrap* has made."""
    return next(iter(_children(bubblewrap)), None)


def memory_below(pid: int, *, over: int) -> int:
    """Return how many bytes all processes below one keep in memory.

    Pages that several share are counted for each, unless that makes more than *over*: then by their proper share, which
    takes the kernel longer to say.
    """
    tree = list(_tree(pid))[1:]
    quick = sum(map(_resident, tree))
    return sum(map(_share, tree)) if quick > over else quick


def _tree(pid: int) -> Iterator[int]:
    pending = [pid]
    seen: set[int] = set()
    while pending:
        each = pending.pop()
        if each not in seen:
            seen.add(each)
            yield each
            pending += _children(each)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):  # it has ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += map(int, (task / "children").read_bytes().split())
    return found


def _resident(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    return 0


def _share(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) << 10
    except OSError:
        return _resident(pid)
    return 0
