from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fairlead import __version__
from fairlead.cli.main import run

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: me}}]
clusters: [{name: here, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: me, user: {token: t}}]
"""


def test_open_session_of_a_home_that_is_stopped_says_how_to_start_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG)
    assert run(["agents", "list", "--home", str(tmp_path), "--kubeconfig", str(kubeconfig)]) != 0
    assert f"Fairlead does not run in {tmp_path}: start it with `fairlead up`" in capsys.readouterr().err


def test_open_session_of_another_cluster_that_does_not_answer_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kubeconfig = tmp_path / "elsewhere"
    kubeconfig.write_text(KUBECONFIG)
    assert run(["agents", "list", "--home", str(tmp_path), "--kubeconfig", str(kubeconfig)]) != 0
    assert "did not answer" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["approve", "reject", "rerun", "stop", "suspend", "resume"])
def test_command_that_changes_a_run_needs_its_name(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command], name="fairlead") == 2
    assert "Missing argument 'RUN" in capsys.readouterr().err


def test_module_is_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "fairlead", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"fairlead {__version__}\n"
