"""One system for every test here; each test keeps to objects of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fairlead.testing.apiserver import ApiServer
from fairlead.testing.kubectl import wait_for
from fairlead.testing.system import System, build_system, make_namespace

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def system(cluster: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Operator, gateway and the players of agent pods, in a namespace of their own."""
    folder = tmp_path_factory.mktemp("system")
    kubectl = make_namespace(cluster, folder)
    if cluster.embedded:
        kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    made = build_system(cluster, kubectl, folder)
    made.gateway.start()
    ca = wait_for("the gateway's CA", lambda: kubectl.get("configmap", "fairlead-gateway-ca"))
    made.gateway_ca.write_text(ca["data"]["ca.crt"])
    made.operator.start()
    made.players.start()
    try:
        yield made
    finally:
        made.players.stop()
        made.operator.stop()
        made.gateway.stop()
        kubectl.run("delete", "namespace", kubectl.namespace, "--wait=false", check=False)
