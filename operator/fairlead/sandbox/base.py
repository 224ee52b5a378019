"""What a sandbox is: one job in, one bounded result out, nothing left behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, Protocol

from fairlead.errors import RetryableError, TerminalError

MAX_FILES: Final = 64
MAX_FILE_BYTES: Final = 1 << 20
"""Of all files of a job together, in and out each."""
MAX_SOURCE_BYTES: Final = 256 << 10


class SandboxUnavailable(TerminalError):
    """No back end can run here; the text says why, and what to install or set. Code is never run without one."""

    reason = "SandboxUnavailable"


class SandboxBroken(RetryableError):
    """The back end failed, not the program: the engine did not answer, the sandbox died before it began."""

    reason = "SandboxBroken"


class JobRefused(TerminalError):
    """The job itself cannot be run: too large, a file name that leads outside, a network that cannot be granted."""

    reason = "InvalidArguments"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may use. All are enforced from outside the program's reach."""

    wall_seconds: float = 60
    cpu_seconds: int = 60
    memory_bytes: int = 256 << 20
    disk_bytes: int = 64 << 20
    processes: int = 32
    """Processes and threads at once."""
    output_bytes: int = 256 << 10
    """Of standard output, and of standard error; what is over is cut and said so."""


@dataclass(frozen=True, slots=True)
class Job:
    """One program."""

    language: Literal["python", "shell"]
    source: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """JSON. Python: the global ``inputs``; shell: variables of the environment, JSON where a value is no scalar."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Relative path to content, put into the working directory."""
    network: tuple[str, ...] = ()
    """Hosts that it may reach by HTTP(S), as `Network.allow` says; empty: nothing."""
    limits: Limits = Limits()


class Ended(StrEnum):
    """How a program ended."""

    EXITED = "Exited"
    """By itself: `Result.exit_code` says how."""
    TIMEOUT = "Timeout"
    """Wall-clock or processor time was over."""
    MEMORY = "OutOfMemory"
    KILLED = "Killed"
    """By a signal, its own or a limit's."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a job. Everything in it was written by a program that nobody trusts."""

    ended: Ended
    exit_code: int | None = None
    """Of `Ended.EXITED`."""
    stdout: str = ""
    stderr: str = ""
    truncated: bool = False
    """Standard output or standard error was longer than `Limits.output_bytes`."""
    output: Any = None
    """Python: what the program assigned to the global ``output``, as JSON."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What it wrote below ``out/`` of its working directory: relative path to content."""
    dropped: tuple[str, ...] = ()
    """Names below ``out/`` that were not taken: too large, too many, no regular file."""
    message: str = ""
    """For people: what ended it, if it was not the program."""


class Sandbox(Protocol):
    """A back end. It may be asked by many tasks at once; it bounds by itself how many run at a time."""

    name: str
    """``docker``, ``bubblewrap``, ``pod``."""

    async def unavailable(self) -> str | None:
        """Return why it cannot run here, as a sentence that says what to do, or None. Tries it for real, once."""

    async def run(self, job: Job) -> Result:
        """Run a job and clean up behind it, whatever happens, cancellation included.

        Raises:
            JobRefused: the job cannot be run like this.
            SandboxUnavailable: there is no back end.
            SandboxBroken: the back end failed; it may be tried again.
        """

    async def aclose(self) -> None:
        """End everything that is still there, the warm ones too."""
