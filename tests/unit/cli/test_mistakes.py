"""What a person is told who names something that is not there, or waits for something that is away."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fairlead.cli.follow import read_object
from fairlead.cli.main import run
from fairlead.cli.session import Session
from fairlead.errors import Unavailable
from fairlead.testing.clock import FakeClock

RUN = {"metadata": {"name": "r", "namespace": "default", "uid": "u"}}


class Absent:
    """An API server that answers only after some time."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    async def get(self, _ref: Any) -> dict[str, Any]:
        self.failures -= 1
        if self.failures >= 0:
            raise Unavailable("connection refused", retry_after=1)
        return RUN


def session(failures: int) -> Session:
    return cast("Session", SimpleNamespace(kube=Absent(failures), clock=FakeClock()))


async def test_read_object_waits_for_an_api_server_that_is_started_again() -> None:
    assert await read_object(session(20), RUN) == RUN


async def test_read_object_gives_up_after_a_while() -> None:
    with pytest.raises(Unavailable):
        await read_object(session(10_000), RUN)


def test_get_with_a_kubeconfig_that_is_not_there_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["get", "--kubeconfig", str(tmp_path / "nosuch")]) == 4
    assert capsys.readouterr().err.startswith(f"error: there is no kubeconfig {tmp_path / 'nosuch'}")


def test_backup_into_a_folder_that_is_not_there_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "supervisor.json").write_text("{}")
    assert run(["backup", "--home", str(tmp_path), str(tmp_path / "no" / "x.tar.gz")]) == 1
    assert capsys.readouterr().err.startswith(f"error: there is no folder {tmp_path / 'no'}")


def test_demo_with_a_model_without_provider_says_how_to_write_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["demo", "--home", str(tmp_path), "--model", "nosuch"]) == 2
    assert "names no provider" in capsys.readouterr().err
