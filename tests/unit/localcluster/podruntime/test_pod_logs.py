from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairlead.clock import SystemClock
from fairlead.localcluster.podruntime.logs import LogFile, pump

_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) (F|P) (.*)")


async def written(tmp_path: Path, said: bytes) -> list[tuple[str, str, str]]:
    path = tmp_path / "agent" / "0.log"
    log = LogFile(path, SystemClock())
    reader, writer = os.pipe()
    os.write(writer, said)
    os.close(writer)
    await pump(reader, log, "stdout")
    log.close()
    found = [_LINE.fullmatch(line) for line in path.read_text().splitlines()]
    return [(match[1], match[2], match[3]) for match in found if match is not None]


async def test_pump_writes_lines_as_the_log_endpoint_reads_them(tmp_path: Path) -> None:
    assert await written(tmp_path, b"one\ntwo") == [("stdout", "F", "one"), ("stdout", "F", "two")]


async def test_pump_takes_long_lines_apart(tmp_path: Path) -> None:
    lines = await written(tmp_path, b"x" * 40_000 + b"\nend\n")
    assert [(kind, len(text)) for _, kind, text in lines] == [("P", 16384), ("P", 16384), ("F", 7232), ("F", 3)]


def test_log_file_is_rotated_and_old_ones_go(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    log = LogFile(path, SystemClock(), limit=100)
    for index in range(40):
        log.write("stdout", f"line {index}".encode(), whole=True)
    log.close()
    assert len(list(tmp_path.iterdir())) <= 5
    assert all(file.stat().st_size < 200 for file in tmp_path.iterdir())
    kept = "".join(file.read_text() for file in tmp_path.iterdir())
    assert "line 39" in kept


@contextmanager
def no_more_files() -> Iterator[None]:
    """Let this process open none."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_log_file_that_cannot_be_rotated_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    log = LogFile(path, SystemClock(), limit=100)
    with no_more_files():
        for index in range(10):
            log.write("stdout", f"line {index}".encode(), whole=True)
    assert [file.name for file in tmp_path.iterdir()] == ["0.log"]
    assert path.stat().st_size > 300

    log.write("stdout", b"room again", whole=True)
    log.write("stdout", b"next", whole=True)
    log.close()
    assert len(list(tmp_path.iterdir())) == 2
    assert path.read_text().endswith("stdout F next\n")
