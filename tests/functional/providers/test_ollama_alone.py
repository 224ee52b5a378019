"""A model on one's own machine needs nothing else: every other address is out of reach here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ALONE = ("unshare", "--map-root-user", "--net")
UP = 'ip link set lo up && ! (exec 3<>/dev/tcp/1.1.1.1/443) 2>/dev/null && exec "$@"'
"""Bring up loopback, the only network there is; check that it is the only one."""


@pytest.mark.isolation
def test_workflow_on_ollama_without_a_network(tmp_path: Path) -> None:
    test = f"{HERE / 'test_workflow.py'}::test_workflow_on_a_provider[ollama]"
    inner = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'alone'}", test]
    done = subprocess.run(
        [*ALONE, "bash", "-c", UP, "alone", *inner], cwd=HERE.parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "1 passed" in done.stdout
