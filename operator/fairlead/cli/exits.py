"""Exit codes, in one place; they are part of the interface."""

from __future__ import annotations

import os
import sys
from typing import Final

import click

from fairlead.errors import FairleadError, InvalidObject, NotSupported, Refused, RetryableError, TerminalError

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INVALID: Final = 3
UNREACHABLE: Final = 4
STOPPED: Final = 5
TIMEOUT: Final = 124
INTERRUPTED: Final = 130

MEANINGS: Final = {
    OK: "done; the run succeeded, if it was waited for",
    FAILED: "the run failed, or something else did",
    USAGE: "the command was called in a wrong way",
    INVALID: "a file or an object is not valid",
    UNREACHABLE: "not found, forbidden, or the server cannot be reached",
    STOPPED: "a person, a budget or a limit stopped the run, or an approval was refused",
    TIMEOUT: "it was not finished in the time given with --timeout",
    INTERRUPTED: "Ctrl-C: the run goes on",
}
_STOPPING: Final = (
    "Stopped",
    "Cancelled",
    "Deleted",
    "BudgetExceeded",
    "Replaced",
    "ApprovalRejected",
    "ApprovalTimeout",
)
"""Reasons of runs that a person or a rule ended: there is nothing to mend."""
_MISSING: Final = ("NotFound", "KindNotFound", "Forbidden", "Unauthorized", "NoKubeconfig")


class NotFound(Refused):
    """There is no such object."""

    reason = "NotFound"


def explain(error: BaseException) -> int:
    """Print an error for a person, on standard error, and return its exit code."""
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case click.ClickException():
            error.show()
            return error.exit_code
        case click.Abort() | KeyboardInterrupt():
            return INTERRUPTED
        case BrokenPipeError():
            return _close_streams()
        case _:
            from fairlead.redaction import visible

            click.echo(f"error: {visible(str(error))}", err=True)
            return to_exit_code(error) if isinstance(error, FairleadError) else FAILED


def to_exit_code(error: FairleadError) -> int:
    """Return the exit code that an error means."""
    match error:
        case Refused() if error.reason in _MISSING:
            return UNREACHABLE
        case InvalidObject() | NotSupported():
            return INVALID
        case Refused() if error.reason in ("Invalid", "BadRequest"):
            return INVALID
        case RetryableError():
            return UNREACHABLE
        case TerminalError():
            return FAILED
        case _:
            return FAILED


def run_exit_code(reason: str, *, succeeded: bool) -> int:
    """Return the exit code of a run that has ended with *reason*."""
    if succeeded:
        return OK
    return STOPPED if reason in _STOPPING else FAILED


def _close_streams() -> int:
    """Return the exit code for a reader that has gone away, without a further complaint when Python exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


@click.command("exit-codes")
def exit_codes() -> None:
    """List what the exit codes mean."""
    for code, meaning in MEANINGS.items():
        click.echo(f"{code:>3}  {meaning}")
