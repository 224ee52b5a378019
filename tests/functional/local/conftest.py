from __future__ import annotations

from collections.abc import Iterator

import pytest

from fairlead.testing.apiserver import running_apiserver
from fairlead.testing.kubectl import Kubectl
from fairlead.testing.podruntime import Runtime


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    folder = tmp_path_factory.mktemp("runtime")
    with running_apiserver(folder) as server:
        made = Runtime(server, folder, Kubectl(server.kubeconfig, "default", folder))
        made.start()
        try:
            yield made
        finally:
            made.stop()
