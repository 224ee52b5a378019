from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairlead.testing.apiserver import ApiServer, from_kubeconfig, running_apiserver


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
