"""What every suite shares: the servers that tests need, and what happens when one is missing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from fairlead.testing.apiserver import ApiServer, from_kubeconfig, running_apiserver
from fairlead.testing.postgres import PostgresServer, find_postgres, postgres_server

# The same examples every time, so that a change is judged by what it changes; `make soak` looks for new ones.
# How long one takes says more about the machine than about the code: it judges nothing.
_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("same", _UNTIMED, derandomize=True)
settings.register_profile("new", _UNTIMED, max_examples=1000)


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


@cache
def _has_image(name: str) -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode == 0


def _can_be_alone() -> bool:
    if not all(map(shutil.which, ("unshare", "ip", "bash"))):
        return False
    alone = ["unshare", "--map-root-user", "--net", "ip", "link", "set", "lo", "up"]
    return subprocess.run(alone, capture_output=True, check=False).returncode == 0


# What a test can need, by the name of its marker.
_PRESENT: dict[str, Callable[[], bool]] = {
    "agent_image": lambda: _has_image("fairlead-agent:0.1.0"),
    "bubblewrap": lambda: shutil.which("bwrap") is not None,
    "docker": _docker_answers,
    "isolation": _can_be_alone,
    "kubectl": lambda: shutil.which("kubectl") is not None,
    "postgres": lambda: find_postgres() is not None,
    "sandbox_image": lambda: _has_image("fairlead-sandbox:0.1.0"),
}

_SHARING = ("tests/functional/agent", "tests/functional/operator", "tests/functional/system")
"""Folders whose files use servers that stay up for the whole session."""


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
        if marker.name == "process_runtime" and item.config.getoption("--cluster") == "kubeconfig":
            pytest.skip("needs what only laptop mode has: its pod runtime, and the API server's own files and tokens")


class _Together(LoadScopeScheduling):
    """Keeps together what shares servers, so that one worker starts them once; elsewhere the tests of a file."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        folder = file.rpartition("/")[0]
        return folder if folder in _SHARING else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Together | None:
    return _Together(config, log) if config.getvalue("dist") == "loadscope" else None


def pytest_configure() -> None:
    # A job in the background of a shell ignores SIGINT, and so would every program that a test starts to press Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cluster",
        choices=("embedded", "kubeconfig"),
        default="embedded",
        help="Which API server tests use: our own, or the one that $KUBECONFIG names.",
    )


def _refuse_two_operators(given: ApiServer) -> None:
    """Fail where Fairlead is at work: its operator would look after the tests' objects, too."""
    where = ["--kubeconfig", str(given.kubeconfig), "-n", "fairlead-system", "deployment/fairlead-operator"]
    path = "-o=jsonpath={.status.readyReplicas}"
    done = subprocess.run(["kubectl", "get", *where, path], capture_output=True, text=True, check=False)
    if done.stdout.strip() not in ("", "0"):
        pytest.fail(f"an operator runs in this cluster: first kubectl scale {' '.join(where[2:])} --replicas=0")


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server for the whole test session: keep to a namespace of your own."""
    if request.config.getoption("--cluster") == "kubeconfig":
        given = from_kubeconfig(Path(os.environ["KUBECONFIG"]))
        _refuse_two_operators(given)
        yield given
        return
    with running_apiserver(tmp_path_factory.mktemp("cluster")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole test session: make a database of your own."""
    require("postgres")
    with postgres_server() as server:
        yield server
