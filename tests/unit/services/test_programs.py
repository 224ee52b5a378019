from __future__ import annotations

from typing import Any

import pytest

from fairlead.errors import FairleadError, RetryableError
from fairlead.sandbox.base import Ended, JobRefused, Result, SandboxUnavailable
from fairlead.services.programs import Programs
from fairlead.services.tasks import TaskContext
from fairlead.testing.sandbox import FakeSandbox
from fairlead.tools.base import ToolContext
from fairlead.tools.code import CodeTool, Program
from fairlead.tools.registry import Registry
from fairlead_agent.protocol import CodeRequest, FileContent

SOURCE = "output = 1"
MIB = 1 << 20


def context(**code: Any) -> TaskContext:
    given = {"language": "python", "source": SOURCE, **code}
    spec = {"nodes": [{"name": "run", "code": given}, {"name": "wait", "wait": {"seconds": 1}}]}
    return TaskContext("t", "r", "ns", "run", "w", None, {"workflow": {"name": "w", "spec": spec}})


async def test_run_takes_program_network_and_limits_from_the_frozen_workflow() -> None:
    sandbox = FakeSandbox()
    limits = {"timeoutSeconds": 5, "memoryMiB": 32, "cpuSeconds": 2, "diskMiB": 3, "processes": 4}
    frozen = context(network={"allow": ["example.com"]}, limits=limits)
    request = CodeRequest(inputs={"x": [1]}, files={"a.txt": "ä", "b": FileContent(base64="/wA=")})

    outcome = await Programs(sandbox).run(frozen, "run", request)

    (job,) = sandbox.jobs
    assert (job.language, job.source, job.network) == ("python", SOURCE, ("example.com",))
    assert (job.inputs, job.files) == ({"x": [1]}, {"a.txt": "ä".encode(), "b": b"\xff\0"})
    assert (job.limits.wall_seconds, job.limits.cpu_seconds, job.limits.processes) == (5, 2, 4)
    assert (job.limits.memory_bytes, job.limits.disk_bytes) == (32 * MIB, 3 * MIB)
    assert outcome.reply.error is None
    assert outcome.reply.result == {
        "output": {"x": [1]},
        "stdout": "python\n",
        "stderr": "",
        "files": {"a.txt": "ä", "b": {"base64": "/wA="}},
        "notes": [],
    }
    assert outcome.attributes["fairlead.sandbox"] == "fake"
    assert outcome.attributes["fairlead.code.exit_code"] == 0


async def test_run_without_limits_has_the_documented_ones() -> None:
    sandbox = FakeSandbox()
    await Programs(sandbox).run(context(), "run", CodeRequest())
    (job,) = sandbox.jobs
    assert (job.limits.wall_seconds, job.limits.memory_bytes, job.network) == (60, 256 * MIB, ())


def exited(code: int, **keys: Any) -> Result:
    return Result(Ended.EXITED, code, **keys)


@pytest.mark.parametrize(
    ("result", "reason", "text", "retryable"),
    [
        pytest.param(
            exited(3, stderr="a\nNo such city\n"), "CodeFailed", "exit code 3: a\nNo such city", True, id="exit"
        ),
        pytest.param(exited(1), "CodeFailed", "it wrote nothing to standard error", True, id="silent"),
        pytest.param(
            Result(Ended.TIMEOUT, message="wall-clock"),
            "CodeTimeout",
            "limits.timeoutSeconds (60) or limits.cpuSeconds (60) and was ended (wall-clock)",
            True,
            id="timeout",
        ),
        pytest.param(Result(Ended.MEMORY), "CodeOutOfMemory", "limits.memoryMiB (256)", False, id="memory"),
        pytest.param(
            Result(Ended.KILLED, message="signal 9", stderr="x"),
            "CodeKilled",
            "killed (signal 9): x",
            True,
            id="killed",
        ),
        pytest.param(exited(0, stdout="x" * MIB), "OutputTooLarge", "of text", False, id="too-large"),
        pytest.param(exited(0, output="\ud800"), "OutputInvalid", "cannot be kept as JSON", False, id="no-unicode"),
        pytest.param(exited(0, output=1 << 70), "OutputInvalid", "cannot be kept as JSON", False, id="number"),
    ],
)
async def test_run_says_how_a_program_failed(result: Result, reason: str, text: str, retryable: bool) -> None:
    outcome = await Programs(FakeSandbox(result)).run(context(), "run", CodeRequest())
    error = outcome.reply.error
    assert error is not None
    assert (error.reason, error.retryable) == (reason, retryable)
    assert text in error.message
    if reason.startswith("Code"):
        assert outcome.reply.result["stderr"] == result.stderr, "what it wrote is kept with the call"
    else:
        assert outcome.reply.result is None


async def test_run_shows_the_end_of_a_long_complaint() -> None:
    noise = "".join(f"line {number}\n" for number in range(1000))
    outcome = await Programs(FakeSandbox(exited(1, stderr=noise))).run(context(), "run", CodeRequest())
    assert outcome.reply.error is not None
    assert outcome.reply.error.message.endswith("line 999")
    assert "line 9\n" not in outcome.reply.error.message


async def test_run_notes_what_was_left_out() -> None:
    result = exited(0, truncated=True, dropped=("big.bin",))
    outcome = await Programs(FakeSandbox(result)).run(context(), "run", CodeRequest())
    notes = outcome.reply.result["notes"]
    assert notes == ["stdout or stderr was longer than what is kept, and is cut", "out/big.bin was not taken"]


@pytest.mark.parametrize(
    ("code", "request_", "text"),
    [
        pytest.param({}, CodeRequest(files={"../x": ""}), "leads nowhere else", id="upwards"),
        pytest.param({}, CodeRequest(files={"/x": ""}), "leads nowhere else", id="absolute"),
        pytest.param({}, CodeRequest(files={"x": FileContent(base64="???")}), "neither a text nor base64", id="base64"),
        pytest.param({"language": "shell"}, CodeRequest(inputs={"a b": 1}), "is a variable", id="variable"),
    ],
)
async def test_run_refuses_what_a_pod_cannot_give(code: dict[str, Any], request_: CodeRequest, text: str) -> None:
    sandbox = FakeSandbox()
    with pytest.raises(JobRefused, match=text):
        await Programs(sandbox).run(context(**code), "run", request_)
    assert sandbox.jobs == []


async def test_run_without_a_sandbox_is_refused() -> None:
    sandbox = FakeSandbox(SandboxUnavailable("install bubblewrap"))
    with pytest.raises(SandboxUnavailable, match="install bubblewrap") as refused:
        await Programs(sandbox).run(context(), "run", CodeRequest())
    assert not isinstance(refused.value, RetryableError)


@pytest.mark.parametrize(
    ("network", "expected"), [(None, True), ({}, True), ({"allow": []}, True), ({"allow": ["a.example"]}, False)]
)
def test_may_repeat_a_program_that_has_changed_nothing(network: Any, expected: bool) -> None:
    given = {} if network is None else {"network": network}
    assert Programs(FakeSandbox()).may_repeat(context(**given), "run") is expected


async def use(sandbox: FakeSandbox, name: str, arguments: dict[str, Any], config: Any = None) -> Any:
    tools = [CodeTool("python", Programs(sandbox).answer), CodeTool("shell", Programs(sandbox).answer)]

    async def read(_name: str, _key: str) -> bytes:
        return b""

    return await Registry(tools).use(name, arguments, ToolContext(read, 1), config=config)


async def test_tool_gives_a_failing_program_as_an_answer() -> None:
    sandbox = FakeSandbox(exited(2, stderr="usage"))
    answer = await use(sandbox, "shell", {"command": "ls --no", "inputs": {"a": 1}, "files": {"x": "y"}})
    assert (answer["exitCode"], answer["stderr"], answer["notes"]) == (2, "usage", [])
    (job,) = sandbox.jobs
    assert (job.language, job.source, job.inputs, job.files) == ("shell", "ls --no", {"a": 1}, {"x": b"y"})


async def test_tool_says_which_limit_ended_a_program() -> None:
    answer = await use(FakeSandbox(Result(Ended.TIMEOUT)), "python", {"source": "while 1: pass"})
    assert answer["exitCode"] is None
    assert answer["notes"][0].startswith("CodeTimeout: ")


@pytest.mark.parametrize(
    "more", [{"network": {"allow": ["evil.example"]}}, {"limits": {"memoryMiB": 65_536}}, {"command": "ls"}]
)
async def test_tool_lets_no_model_give_itself_a_network(more: dict[str, Any]) -> None:
    sandbox = FakeSandbox()
    for config in (None, dict[str, Any](inputs={})):
        with pytest.raises(FairleadError) as refused:
            await use(sandbox, "python", {"source": "1", **more}, config)
        assert refused.value.reason == "InvalidArguments"
    assert sandbox.jobs == []


async def test_tool_takes_network_and_limits_from_its_object() -> None:
    sandbox = FakeSandbox()
    config: dict[str, Any] = {
        "network": {"allow": ["a.example"]},
        "limits": {"timeoutSeconds": 7},
        "files": {"lib.py": "x = 1"},
    }
    await use(sandbox, "python", {"source": "1"}, config)
    (job,) = sandbox.jobs
    assert (job.network, job.limits.wall_seconds, job.limits.memory_bytes) == (("a.example",), 7, 256 * MIB)
    assert job.files == {"lib.py": b"x = 1"}


def test_tool_may_be_repeated_without_a_network() -> None:
    tool = CodeTool("python", Programs(FakeSandbox()).answer)
    assert tool.is_idempotent({"source": "1"})
    assert not tool.is_idempotent({"source": "1", "network": {"allow": ["a.example"]}})


def test_a_program_has_no_network_unless_it_says_so() -> None:
    assert Program("python", "1").network.allow == ()
