"""One suite for all back ends: what is asked of one is asked of each."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fairlead.sandbox.base import Sandbox
from fairlead.testing.sandboxes import running_sandbox

HERE = [
    pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
    pytest.param("docker", marks=pytest.mark.sandbox_image),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Use the back ends of this machine, or with ``--cluster kubeconfig`` the cluster's."""
    if "backend" in metafunc.fixturenames:
        on_a_cluster = metafunc.config.getoption("--cluster") == "kubeconfig"
        metafunc.parametrize("backend", ["pod"] if on_a_cluster else HERE, scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def sandbox(backend: str) -> AsyncIterator[Sandbox]:
    kubeconfig = Path(os.environ["KUBECONFIG"]) if backend == "pod" else None
    async with running_sandbox(backend, kubeconfig) as made:
        yield made
