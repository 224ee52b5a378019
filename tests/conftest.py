"""What every suite shares: the servers that tests need, and what happens when one is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fairlead.testing.apiserver import ApiServer, from_kubeconfig, running_apiserver
from fairlead.testing.postgres import PostgresServer, find_postgres, postgres_server


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


# What a test can need, by the name of its marker.
_PRESENT: dict[str, Callable[[], bool]] = {
    "docker": _docker_answers,
    "kubectl": lambda: shutil.which("kubectl") is not None,
    "postgres": lambda: find_postgres() is not None,
}


def require(what: str) -> None:
    """Skip the test if *what* is missing, or fail it if ``FAIRLEAD_REQUIRE`` names it."""
    if _PRESENT[what]():
        return
    if what in os.environ.get("FAIRLEAD_REQUIRE", "").split(","):
        pytest.fail(f"{what} is not there, and FAIRLEAD_REQUIRE names it")
    pytest.skip(f"{what} is not there")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers():
        if marker.name in _PRESENT:
            require(marker.name)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cluster",
        choices=("embedded", "kubeconfig"),
        default="embedded",
        help="Which API server tests use: our own, or the one that $KUBECONFIG names.",
    )


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server for the whole test session: keep to a namespace of your own."""
    if request.config.getoption("--cluster") == "kubeconfig":
        yield from_kubeconfig(Path(os.environ["KUBECONFIG"]))
        return
    with running_apiserver(tmp_path_factory.mktemp("cluster")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole test session: make a database of your own."""
    require("postgres")
    with postgres_server() as server:
        yield server
