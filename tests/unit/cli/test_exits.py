from __future__ import annotations

import click
import pytest

from fairlead.cli import exits
from fairlead.cli.main import run
from fairlead.errors import Conflict, FairleadError, InvalidObject, NotSupported, Refused, TerminalError, Unavailable


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidObject("x"), 3),
        (NotSupported("x"), 3),
        (Refused("x", reason="Invalid"), 3),
        (exits.NotFound("x"), 4),
        (Refused("x", reason="Forbidden"), 4),
        (Refused("x", reason="NoKubeconfig"), 4),
        (Unavailable("x"), 4),
        (Conflict("x"), 4),
        (TerminalError("x"), 1),
        (Refused("x"), 1),
    ],
)
def test_to_exit_code_of_every_kind_of_error(error: FairleadError, code: int) -> None:
    assert exits.to_exit_code(error) == code


@pytest.mark.parametrize(
    ("reason", "succeeded", "code"),
    [
        ("Succeeded", True, 0),
        ("NodeFailed", False, 1),
        ("Timeout", False, 1),
        ("Cancelled", False, 5),
        ("BudgetExceeded", False, 5),
    ],
)
def test_run_exit_code_follows_the_run(reason: str, code: int, *, succeeded: bool) -> None:
    assert exits.run_exit_code(reason, succeeded=succeeded) == code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (click.UsageError("no such thing"), 2, "Error: no such thing"),
        (TerminalError("the disk is full; make room"), 1, "error: the disk is full; make room"),
        (PermissionError(13, "Permission denied", "/x"), 1, "error: "),
    ],
)
def test_explain_is_one_line_and_no_traceback(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exits.explain(error) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_exit_codes_lists_every_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["exit-codes"]) == 0
    printed = [int(line.split()[0]) for line in capsys.readouterr().out.splitlines()]
    assert printed == [0, 1, 2, 3, 4, 5, 124, 130]
