"""What a program in a sandbox uses up, how long it goes on, and what it hands over: all of it has an end."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fairlead.sandbox.base import MAX_FILE_BYTES, MAX_FILES, Ended, Job, JobRefused, Sandbox
from fairlead.testing.sandboxes import LIMITS, PRELUDE, explained, processes_with

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE_SECONDS = 20.0


async def eventually(what: str, condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


async def test_python_gives_output_files_and_streams(sandbox: Sandbox) -> None:
    source = """
import sys, helper
from pathlib import Path
print("to the one")
print("to the other", file=sys.stderr)
Path("out/deep/er").mkdir(parents=True)
Path("out/deep/er/b").write_bytes(bytes(range(256)))
output = {"sum": helper.add(*inputs["numbers"]), "data": Path("data/in.txt").read_text(), "name": __name__}
"""
    files = {"helper.py": b"def add(*n): return sum(n)", "data/in.txt": "Grüße".encode()}

    result = await sandbox.run(Job("python", source, inputs={"numbers": [1, 2.5]}, files=files, limits=LIMITS))

    assert (result.ended, result.exit_code) == (Ended.EXITED, 0), explained(result)
    assert result.output == {"sum": 3.5, "data": "Grüße", "name": "__main__"}
    assert (result.stdout, result.stderr) == ("to the one\n", "to the other\n")
    assert result.files == {"deep/er/b": bytes(range(256))}
    assert (result.truncated, result.dropped) == (False, ())


async def test_shell_has_inputs_as_variables(sandbox: Sandbox) -> None:
    source = 'printf "%s|" "$text" "$number" "$yes" "$list"; echo no >&2; cp in.txt out/; exit 3'
    inputs = {"text": "a 'b' $(id)", "number": 7, "yes": True, "list": [1, {"a": None}]}

    result = await sandbox.run(Job("shell", source, inputs=inputs, files={"in.txt": b"x"}, limits=LIMITS))

    assert (result.ended, result.exit_code) == (Ended.EXITED, 3), explained(result)
    assert result.stdout == "a 'b' $(id)|7|true|[1, {\"a\": null}]|"
    assert (result.stderr, result.output, result.files) == ("no\n", None, {"in.txt": b"x"})


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        pytest.param("def f():\n    return 1 / 0\nf()", 1, "line 2, in f\n    return 1 / 0", id="an-exception"),
        pytest.param("x = (", 1, "SyntaxError", id="no-python"),
        pytest.param("import sys; sys.exit(7)", 7, "", id="an-exit-code"),
        pytest.param("import sys; sys.exit('so it is')", 1, "so it is", id="an-exit-message"),
        pytest.param("output = object()", 1, "output cannot be given as JSON", id="an-output-that-is-no-json"),
        pytest.param("output = 'x' * 2**21", 1, "bytes of JSON, at most", id="an-output-that-is-too-large"),
        pytest.param("output = []\noutput.append(output)", 1, "output cannot be given as JSON", id="a-circle"),
    ],
)
async def test_python_that_fails_says_why(sandbox: Sandbox, source: str, code: int, said: str) -> None:
    result = await sandbox.run(Job("python", source, limits=LIMITS))

    assert (result.ended, result.exit_code, result.output) == (Ended.EXITED, code, None), explained(result)
    assert said in result.stderr
    assert "runner.py" not in result.stderr


FORK_BOMB = """
import threading
born = 0
def children():
    global born
    while True:
        try:
            if os.fork() == 0:
                time.sleep(30)
                os._exit(0)
        except OSError:
            return
        born += 1
        if born > 1000:
            return
children()
output["born"] = born
"""


async def test_fork_bomb_stays_within_its_processes(sandbox: Sandbox) -> None:
    result = await sandbox.run(Job("python", PRELUDE + FORK_BOMB, limits=LIMITS))

    if result.ended is Ended.EXITED:
        assert 0 < result.output["born"] <= LIMITS.processes, explained(result)
    else:  # the watch inside may see it before the kernel has said no
        assert (result.ended, "processes and threads" in result.message) == (Ended.KILLED, True), explained(result)


async def test_fork_bomb_that_never_stops_ends_with_its_time(sandbox: Sandbox) -> None:
    mark = f"600.{secrets.randbelow(10**9)}"
    source = f":() {{ sleep {mark} & : | : & }}; while true; do : & : & done 2>/dev/null"

    result = await sandbox.run(Job("shell", source, limits=replace(LIMITS, wall_seconds=2)))

    assert result.ended in {Ended.TIMEOUT, Ended.KILLED, Ended.EXITED}, explained(result)
    await eventually("the bomb is gone", lambda: not processes_with(mark))


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("x = bytearray(10**9)", id="at-once"),
        pytest.param("x = []\nwhile True: x.append(bytearray(b'x' * 4_000_000))", id="little-by-little"),
        pytest.param(
            "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n        x = bytearray(b'x' * 40_000_000)\n"
            "        time.sleep(60)\ntime.sleep(60)",
            id="by-many-processes",
        ),
        pytest.param(
            "import mmap, time\nx = []\nwhile True:\n    m = mmap.mmap(-1, 4_000_000)\n    m.write(b'x' * 4_000_000)\n"
            "    x.append(m)",
            id="shared",
        ),
    ],
)
async def test_memory_bomb_is_out_of_memory(sandbox: Sandbox, source: str) -> None:
    result = await sandbox.run(Job("python", source, limits=LIMITS))

    assert result.ended is Ended.MEMORY, explained(result)
    assert "MiB of memory" in result.message


DISK = """
def fill(path):
    size = 0
    try:
        with open(path, "wb", buffering=0) as file:
            for _ in range(1000):
                size += file.write(b"x" * (1 << 20))
    except OSError as error:
        output[path] = size, error.errno
    else:
        output[path] = size, 0
for number in range(4):
    fill(f"file-{number}")
fill("/tmp/file")
for number in range(4):
    os.unlink(f"file-{number}")
os.unlink("/tmp/file")
"""


async def test_disk_fill_meets_the_end_of_the_disk(sandbox: Sandbox) -> None:
    result = await sandbox.run(Job("python", PRELUDE + DISK, limits=LIMITS))

    assert (result.ended, result.exit_code) == (Ended.EXITED, 0), explained(result)
    assert 0 < sum(size for size, _ in result.output.values()) <= LIMITS.disk_bytes
    assert {number for _, number in result.output.values()} <= {27, 28}, "file too large, or no space left"


async def test_empty_files_without_end_are_ended(sandbox: Sandbox) -> None:
    source = """
import os
try:
    for number in range(10**7):
        os.close(os.open(f"f{number}", os.O_CREAT))
except OSError as error:
    output = number
"""
    result = await sandbox.run(Job("python", source, limits=LIMITS))

    # In a pod's memory the names themselves are what is too much.
    assert result.ended in {Ended.KILLED, Ended.MEMORY} or result.output < 10**5, explained(result)


async def test_output_flood_is_cut(sandbox: Sandbox) -> None:
    source = """
import sys
for _ in range(200):
    for stream in (sys.stdout, sys.stderr):
        stream.write("x" * 99_999 + "\\n")
output = 1
"""

    result = await sandbox.run(Job("python", source, limits=LIMITS))

    assert (result.ended, result.output) == (Ended.EXITED, 1), explained(result)
    assert (len(result.stdout), len(result.stderr), result.truncated) == (*[LIMITS.output_bytes] * 2, True)


async def test_wall_clock_ends_a_program_that_sleeps(sandbox: Sandbox) -> None:
    source = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('before')\ntime.sleep(600)"

    result = await sandbox.run(Job("python", source, limits=replace(LIMITS, wall_seconds=0.7)))

    assert (result.ended, result.message) == (Ended.TIMEOUT, "it ran for more than 0.7 s"), explained(result)
    assert result.stdout == "before\n"


async def test_processor_time_of_all_processes_ends_a_program(sandbox: Sandbox) -> None:
    source = "import os\nos.fork(), os.fork()\nwhile True: pass"

    result = await sandbox.run(Job("python", source, limits=replace(LIMITS, cpu_seconds=1)))

    assert result.ended is Ended.TIMEOUT, explained(result)
    assert result.message == "it used more than 1 s of processor time"


EVASION = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for fd in range(100):
                try: os.close(fd)
                except OSError: pass
            os.execvp("sh", ["sh", "-c", "trap '' TERM HUP INT; while true; do sleep %(mark)s; done", "%(mark)s"])
        os._exit(0)
time.sleep(0.3)
if %(wait)s:
    time.sleep(600)
"""


@pytest.mark.parametrize("wait", [False, True], ids=["leaves-daemons", "outstays-its-time"])
async def test_what_would_outlive_its_program_is_ended(sandbox: Sandbox, wait: bool) -> None:
    mark = f"600.{secrets.randbelow(10**9)}"
    limits = replace(LIMITS, wall_seconds=2 if wait else 20)

    result = await sandbox.run(Job("python", PRELUDE + EVASION % {"mark": mark, "wait": wait}, limits=limits))

    assert result.ended is (Ended.TIMEOUT if wait else Ended.EXITED), explained(result)
    await eventually("its daemons are gone", lambda: not processes_with(mark))


HOSTILE = """
import pathlib
out = pathlib.Path("out")
(out / "link").symlink_to("/etc/passwd")
(out / "folder-link").symlink_to("/")
(out / "broken").symlink_to("nowhere")
os.mkfifo(out / "fifo")
socket.socket(socket.AF_UNIX).bind("out/socket")
with open("out/huge", "wb") as file:
    file.truncate(7 << 20)
with open("out/sparse", "wb") as file:
    file.truncate((1 << 20) + 1)
(out / "secret").write_text("x")
(out / "secret").chmod(0)
(out / "new\\nline").write_text("x")
(out / "\\x1b[31m").write_text("x")
open(b"out/not-utf-8-\\xff", "w").close()
(out / "..hidden").write_text("fine")
deep = out
for _ in range(30):
    deep = deep / ("d" * 200)
    deep.mkdir()
    os.chdir(deep)
    deep = pathlib.Path(".")
os.chdir("/work")
"""


async def test_hostile_files_are_not_taken(sandbox: Sandbox) -> None:
    result = await sandbox.run(Job("python", PRELUDE + HOSTILE, limits=LIMITS))

    assert (result.ended, result.exit_code) == (Ended.EXITED, 0), explained(result)
    assert result.files == {"..hidden": b"fine"}
    left = {"link", "folder-link", "broken", "fifo", "socket", "huge", "sparse", "secret", "new\\nline", "\\x1b[31m"}
    assert left <= set(result.dropped), result.dropped


async def test_files_without_number_are_bounded(sandbox: Sandbox) -> None:
    source = """
import os
for number in range(40_000):
    os.close(os.open(f"out/{number}", os.O_CREAT))
"""
    result = await sandbox.run(Job("python", source, limits=LIMITS))

    assert (result.ended, len(result.files)) == (Ended.EXITED, MAX_FILES), explained(result)
    assert result.dropped[0] == "(only the first 2000 entries were looked at)"
    assert len(result.dropped) < 50


async def test_out_replaced_by_a_link_is_not_followed(sandbox: Sandbox) -> None:
    result = await sandbox.run(Job("shell", "rmdir out; ln -s /etc out", limits=LIMITS))

    assert (result.ended, result.files) == (Ended.EXITED, {}), explained(result)


@pytest.mark.parametrize(
    "output",
    [
        pytest.param("'[' * 600 + ']' * 600", id="deep"),
        pytest.param("'{\"a\": ' * 2000 + '1' + '}' * 2000", id="deeper"),
        pytest.param("'not json'", id="no-json"),
        pytest.param("'\"\\\\ud800\"'", id="half-a-character"),
        pytest.param("'NaN'", id="no-number"),
    ],
)
async def test_hostile_output_is_a_clear_failure(sandbox: Sandbox, output: str) -> None:
    source = f"import os\nos.write(3, ({output}).encode())\nos._exit(0)"  # past the runner's own check

    result = await sandbox.run(Job("python", source, limits=LIMITS))

    assert result.ended is Ended.KILLED, explained(result)
    assert result.message.startswith("what came out of the sandbox is no result")


async def test_run_of_a_job_that_leads_outside_is_refused(sandbox: Sandbox) -> None:
    for job in (
        Job("shell", "true", files={"../x": b""}),
        Job("shell", "true", files={"x": bytes(MAX_FILE_BYTES + 1)}),
        Job("shell", "true", inputs={"PATH": "."}),
    ):
        with pytest.raises(JobRefused):
            await sandbox.run(job)


async def test_run_of_many_at_once_keeps_them_apart(sandbox: Sandbox) -> None:
    source = """
import os, time
before = os.listdir("."), os.listdir("/dev/shm")
open("mine", "w").write(inputs["name"])
open("/dev/shm/mine", "w").write(inputs["name"])
time.sleep(0.2)
output = before, open("mine").read(), open("/dev/shm/mine").read()
"""
    jobs = [Job("python", source, inputs={"name": str(number)}, limits=LIMITS) for number in range(6)]

    results = await asyncio.gather(*(sandbox.run(job) for job in jobs))

    for number, result in enumerate(results):
        assert result.output is not None, explained(result)
        (work, shared), *names = result.output
        assert (sorted(work), shared, names) == (["out", "tmp"], [], [str(number)] * 2)


@pytest.mark.process_runtime
async def test_run_that_is_cancelled_leaves_nothing(sandbox: Sandbox) -> None:
    mark = f"600.{secrets.randbelow(10**9)}"
    source = f"trap '' TERM HUP; (sleep {mark} &); sleep {mark}"
    task = asyncio.create_task(sandbox.run(Job("shell", source, limits=LIMITS)))
    await eventually("it runs", lambda: len(processes_with(mark)) > 1)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await eventually("it is gone", lambda: not processes_with(mark))
