"""Has programs run in the sandbox: from what a workflow or a model says to a job, from a result to an answer."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final, assert_never

import orjson

from fairlead.api.v1alpha1.workflow import Code, CodeLimits, Network
from fairlead.errors import FairleadError, Refused, RetryableError, TerminalError
from fairlead.sandbox.base import Ended, Job, JobRefused, Limits, Result, Sandbox
from fairlead.services.outcomes import Outcome, to_error_info
from fairlead.services.tasks import TaskContext
from fairlead.tools.code import Program
from fairlead.tracing.attributes import attributes
from fairlead_agent.graph import MAX_OUTPUT
from fairlead_agent.graph.code_checks import file_mistake, variable_mistake
from fairlead_agent.protocol import CallReply, CodeRequest

_SHOWN_LINES: Final = 12
_SHOWN_CHARACTERS: Final = 1500
_MIB: Final = 1 << 20


class ProgramFailed(RetryableError):
    """The program said that it failed."""

    reason = "CodeFailed"


class ProgramTooSlow(RetryableError):
    """The program was not done in its time."""

    reason = "CodeTimeout"


class ProgramKilled(RetryableError):
    """A signal ended the program."""

    reason = "CodeKilled"


class ProgramTooBig(TerminalError):
    """The program needed more memory than it may have."""

    reason = "CodeOutOfMemory"


class Programs:
    """Has programs run by a sandbox: never by this process, and never by an agent's."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def may_repeat(self, context: TaskContext, node: str) -> bool:
        """Whether a node's program may be run again when nobody knows whether it has run: it has changed nothing."""
        return not ((_code(context, node).get("network") or {}).get("allow"))

    async def run(self, context: TaskContext, node: str, request: CodeRequest) -> Outcome:
        """Return what came of the program of a node. One that failed is a failure, with what it wrote.

        Raises:
            JobRefused: what it is given cannot be given.
            SandboxUnavailable: nothing can run it here.
            SandboxBroken: the sandbox failed.
        """
        code = Code.model_validate(_code(context, node))
        given = request.model_dump(mode="json")
        network, limits = code.network or Network(), code.limits or CodeLimits()
        program = Program(code.language, code.source, given["inputs"], given["files"], network, limits)
        result = await self._sandbox.run(build_job(program))
        shown = attributes(
            gen_ai__operation__name="execute_tool",
            gen_ai__tool__name=code.language,
            fairlead__sandbox=self._sandbox.name,
            fairlead__code__ended=result.ended.value,
            fairlead__code__exit_code=result.exit_code,
        )
        error = failure_of(result, program) or _unkept(result)
        info = None if error is None else to_error_info(error)
        kept = None if isinstance(error, Refused) else to_output(result)
        return Outcome(CallReply(result=kept, error=info), cost=0, attributes=shown)

    async def answer(self, program: Program) -> Mapping[str, Any]:
        """Return what came of a model's program: one that failed is an answer, too.

        Raises:
            JobRefused: what it is given cannot be given.
            SandboxUnavailable: nothing can run it here.
            SandboxBroken: the sandbox failed.
        """
        result = await self._sandbox.run(build_job(program))
        error = _unkept(result)
        if error is not None:
            raise error
        shown = to_output(result)
        failed = None if result.ended is Ended.EXITED else failure_of(result, program)
        notes = [*([] if failed is None else [f"{failed.reason}: {failed}"]), *shown["notes"]]
        return {**shown, "exitCode": result.exit_code, "notes": notes}


def _code(context: TaskContext, node: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (context.node(node) or {}).get("code") or {}
    return found


def build_job(program: Program) -> Job:
    """Return the job that runs a program.

    Raises:
        JobRefused: a name leads outside, or a content is not what it says.
    """
    for name in program.inputs if program.language == "shell" else ():
        if mistake := variable_mistake(name):
            raise JobRefused(f"{mistake}, not {name[:80]!r}")
    limits = program.limits
    return Job(
        program.language,
        program.source,
        inputs=program.inputs,
        files={name: _content(name, value) for name, value in program.files.items()},
        network=program.network.allow,
        limits=Limits(
            wall_seconds=limits.timeout_seconds,
            cpu_seconds=limits.cpu_seconds,
            memory_bytes=limits.memory_mi_b * _MIB,
            disk_bytes=limits.disk_mi_b * _MIB,
            processes=limits.processes,
        ),
    )


def _content(name: str, value: Any) -> bytes:
    if mistake := file_mistake(name):
        raise JobRefused(f"{mistake}, not {name[:80]!r}")
    try:
        if isinstance(value, str):
            return value.encode()
        return base64.b64decode(value["base64"], validate=True)
    except (UnicodeEncodeError, binascii.Error, KeyError, TypeError) as error:
        raise JobRefused(f"the file {name} is neither a text nor base64: {error}") from None


def to_output(result: Result) -> dict[str, Any]:
    """Return what came of a program, as expressions see it."""
    cut = ["stdout or stderr was longer than what is kept, and is cut"] if result.truncated else []
    return {
        "output": result.output,
        "stdout": result.stdout,
        "stderr": result.stderr,
        "files": {name: _shown(content) for name, content in result.files.items()},
        "notes": [*cut, *(f"out/{name} was not taken" for name in result.dropped)],
    }


def _shown(content: bytes) -> str | dict[str, str]:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def failure_of(result: Result, program: Program) -> FairleadError | None:
    """Return why a program is to count as failed, in words that say what to do; None: it did what it should."""
    limits, said = program.limits, f" ({result.message})" if result.message else ""
    match result.ended:
        case Ended.EXITED:
            if result.exit_code == 0:
                return None
            return ProgramFailed(f"the program ended with exit code {result.exit_code}: {_last_words(result)}")
        case Ended.TIMEOUT:
            time = f"limits.timeoutSeconds ({limits.timeout_seconds}) or limits.cpuSeconds ({limits.cpu_seconds})"
            return ProgramTooSlow(f"the program took longer than its {time} and was ended{said}")
        case Ended.MEMORY:
            return ProgramTooBig(f"the program needed more than its limits.memoryMiB ({limits.memory_mi_b}){said}")
        case Ended.KILLED:
            return ProgramKilled(f"the program was killed{said}: {_last_words(result)}")
        case _:
            assert_never(result.ended)


def _last_words(result: Result) -> str:
    lines = result.stderr.strip().splitlines()[-_SHOWN_LINES:]
    return "\n".join(lines)[-_SHOWN_CHARACTERS:] or "it wrote nothing to standard error"


def _unkept(result: Result) -> Refused | None:
    """Return why what a program gave cannot be kept, or None."""
    try:
        size = len(orjson.dumps(to_output(result)))
    except TypeError as error:
        return Refused(f"what the program gave cannot be kept as JSON: {error}", reason="OutputInvalid")
    if size <= MAX_OUTPUT:
        return None
    files = sum(map(len, result.files.values()))
    text = f"what the program gave takes {size} bytes, at most {MAX_OUTPUT} are kept: it has {files} bytes of files"
    return Refused(f"{text} and {len(result.stdout) + len(result.stderr)} of text", reason="OutputTooLarge")
