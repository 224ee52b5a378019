from __future__ import annotations

from collections.abc import Iterator

import pytest

from fairlead.testing.apiserver import running_apiserver
from fairlead.testing.kubectl import Kubectl
from fairlead.testing.podruntime import Runtime


@pytest.fixture(scope="session", params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """A pod runtime of each kind: what a test shows holds for both, unless the test names one."""
    folder = tmp_path_factory.mktemp("runtime")
    with running_apiserver(folder) as server:
        made = Runtime(server, folder, Kubectl(server.kubeconfig, "default", folder), request.param)
        made.start()
        try:
            yield made
        finally:
            made.stop()
            if made.engine == "docker":
                left = made.left()
                assert not left, left
