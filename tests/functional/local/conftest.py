from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from fairlead.testing.apiserver import running_apiserver
from fairlead.testing.containers import missing_images
from fairlead.testing.kubectl import Kubectl
from fairlead.testing.podruntime import Runtime

IMAGES = ("fairlead-agent:0.1.0", "fairlead-base:local")
"""What holds pods together, and what has a shell for the tests' scripts."""


_DOCKER = pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.soak])


@pytest.fixture(scope="session", params=["process", _DOCKER])
def runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """A pod runtime of each kind: what a test shows holds for both, unless the test names one.

    What holds for processes is tried on containers by `make soak`; what only containers have, every time.
    """
    if request.param == "docker" and (absent := missing_images(IMAGES)):
        required = "docker" in os.environ.get("FAIRLEAD_REQUIRE", "").split(",")
        (pytest.fail if required else pytest.skip)(f"build {', '.join(absent)} first: make images, tools/local_base.sh")
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
