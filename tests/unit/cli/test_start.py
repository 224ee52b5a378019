from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from fairlead.cli.main import GROUPS, cli, program_name, run

HEAVY = ("kubernetes", "litellm", "sqlalchemy", "pydantic", "httpx", "aiohttp", "yaml", "asyncio", "fairlead.kube")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from fairlead.cli.main import run; code = run(['--help']); "
        f"sys.stderr.write(','.join(name for name in {HEAVY!r} if name in sys.modules)); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: fairlead" in done.stdout
    assert done.stderr == ""


WITHOUT_EXAMPLES = {"down", "status", "completion", "exit-codes", "doctor", "trace", "cost"}


@pytest.mark.parametrize("name", [name for group in GROUPS.values() for name in group])
def test_every_command_has_help_and_its_summary_is_in_the_list(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"], prog_name="fairlead")
    assert result.exit_code == 0, result.output
    assert f"{name} [OPTIONS]" in result.output
    assert f"\n  fairlead {name}" in result.output.partition("Examples:")[2] or name in WITHOUT_EXAMPLES
    assert name in CliRunner().invoke(cli, ["--help"]).output


def test_program_name_as_a_kubectl_plugin() -> None:
    assert program_name("/usr/bin/kubectl-fairlead") == "kubectl fairlead"
    assert program_name("/x/bin/fairlead") == "fairlead"


def test_usage_says_how_it_was_called(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "--help"], name="kubectl fairlead") == 0
    assert "Usage: kubectl fairlead run" in capsys.readouterr().out


def test_run_with_an_unknown_command_suggests_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validte"]) == 2
    assert 'Did you mean "validate"?' in capsys.readouterr().err


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("fairlead 0.")
