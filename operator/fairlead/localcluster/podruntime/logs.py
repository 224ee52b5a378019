"""Container logs on disk, in the layout that the API server's log endpoint reads.

Source: https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Final

from fairlead.clock import Clock

_LINE_LIMIT: Final = 16 * 1024
_KEPT: Final = 4
"""Rotated files kept beside the current one."""


class LogFile:
    """The log of one container's one run, rotated by size."""

    def __init__(self, path: Path, clock: Clock, *, limit: int = 10 * 1024 * 1024) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path, self._clock, self._limit = path, clock, limit
        self.last_stamp = _last_stamp(path)
        """The time of its last line when it was opened; empty: it had none."""
        self._file = path.open("ab", buffering=0)

    def write(self, stream: str, text: bytes, *, whole: bool, stamp: str = "") -> None:
        """Add a line, or (not *whole*) a part of one; *stamp*: when it was said, if that was not now."""
        if not stamp:
            stamp = self._clock.now().isoformat(timespec="microseconds").removesuffix("+00:00") + "000Z"
        head = f"{stamp} {stream} {'F' if whole else 'P'} ".encode()
        self._file.write(head + text + b"\n")
        if self._file.tell() >= self._limit:
            self._rotate()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _rotate(self) -> None:
        """Begin a new file; where the system has no room for one, go on with the old one and try at the next line."""
        stamp = self._clock.now().strftime("%Y%m%d-%H%M%S-%f")
        aside = self._path.with_name(f"{self._path.name}.{stamp}")
        try:
            self._path.rename(aside)
        except OSError:
            return
        try:
            fresh = self._path.open("ab", buffering=0)
        except OSError:
            with contextlib.suppress(OSError):
                aside.rename(self._path)
            return
        self._file.close()
        self._file = fresh
        for path in sorted(self._path.parent.glob(f"{self._path.name}.*"))[:-_KEPT]:
            path.unlink(missing_ok=True)


def _last_stamp(path: Path) -> str:
    """Return the time of the last line of a log, which may have been rotated since."""
    for candidate in (path, *sorted(path.parent.glob(f"{path.name}.*"), reverse=True)):
        with contextlib.suppress(FileNotFoundError), candidate.open("rb") as file:
            file.seek(max(0, candidate.stat().st_size - 2 * _LINE_LIMIT))
            lines = file.read().splitlines()
            if lines:
                return lines[-1].partition(b" ")[0].decode("ascii", "replace")
    return ""


async def pump(pipe: int, log: LogFile, stream: str) -> None:
    """Copy what a process says into its log, line by line, until it closes the pipe, which is then closed here."""
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: protocol, os.fdopen(pipe, "rb", buffering=0)
    )
    try:
        rest = b""
        while piece := await reader.read(64 * 1024):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                _write_line(log, stream, line)
            while len(rest) > _LINE_LIMIT:
                log.write(stream, rest[:_LINE_LIMIT], whole=False)
                rest = rest[_LINE_LIMIT:]
        if rest:
            log.write(stream, rest, whole=True)
    finally:
        transport.close()


def _write_line(log: LogFile, stream: str, line: bytes) -> None:
    while len(line) > _LINE_LIMIT:
        log.write(stream, line[:_LINE_LIMIT], whole=False)
        line = line[_LINE_LIMIT:]
    log.write(stream, line, whole=True)


def pod_log_folder(root: Path, *, namespace: str, name: str, uid: str) -> Path:
    """Return where a pod's logs are."""
    return root / f"{namespace}_{name}_{uid}"


def resident_bytes(pid: int) -> int:
    """Return the memory that a process holds now; 0 where the system does not tell."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123 - read every second: no Path
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0
