"""The operator's process: one is active, another takes over, and none lingers when it can do nothing any more."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from fairlead.testing.apiserver import ApiServer, running_apiserver, stop_apiserver
from fairlead.testing.kubectl import Kubectl, condition, free_port, wait_for
from fairlead.testing.system import Service, make_namespace

if TYPE_CHECKING:
    from conftest import Stage

MODEL = {
    "apiVersion": "fairlead.dev/v1alpha1",
    "kind": "Model",
    "metadata": {"name": "m"},
    "spec": {"model": "ollama_chat/llama3.2"},
}
ROOT = Path(__file__).resolve().parents[3]


def candidate(cluster: ApiServer, kubectl: Kubectl, identity: str, **more: str) -> Service:
    settings = {
        "FAIRLEAD_KUBECONFIG": str(cluster.kubeconfig),
        "FAIRLEAD_STORAGE_URL": f"sqlite:///{kubectl.home}/fairlead.db",
        "FAIRLEAD_NAMESPACE": kubectl.namespace,
        "FAIRLEAD_WATCH_NAMESPACES": json.dumps([kubectl.namespace]),
        "FAIRLEAD_IDENTITY": identity,
        "FAIRLEAD_LEADER_LEASE_SECONDS": "4",
        "FAIRLEAD_PROBE_PORT": "0",
        **more,
    }
    return Service("fairlead.controllers", settings, kubectl.home / f"{identity}.log")


@pytest.fixture
def kubectl(stage: Stage, tmp_path: Path) -> Iterator[Kubectl]:
    """A namespace of its own, on the cluster where the CRDs are."""
    made = make_namespace(stage.cluster, tmp_path)
    yield made
    made.run("delete", "namespace", made.namespace, "--wait=false", check=False)


def holder(kubectl: Kubectl) -> str:
    lease = kubectl.get("lease", "fairlead-operator") or {"spec": {}}
    return str(lease["spec"].get("holderIdentity", ""))


def accepted(kubectl: Kubectl) -> bool:
    return bool(condition(kubectl.get("model", "m"), "Ready").get("status") == "True")


@pytest.fixture
def two(stage: Stage, kubectl: Kubectl) -> Iterator[tuple[Service, Service]]:
    """An operator that leads, called first, and one that stands by, called second."""
    first, second = (candidate(stage.cluster, kubectl, name) for name in ("first", "second"))
    try:
        first.start()
        wait_for("the first to lead", lambda: holder(kubectl) == "first")
        second.start()
        wait_for("the second to stand by", lambda: "standing_by" in second.log.read_text())
        yield first, second
    finally:
        first.kill()
        second.kill()


def test_standby_takes_over_when_the_active_one_is_killed(two: tuple[Service, Service], kubectl: Kubectl) -> None:
    first, _ = two
    first.kill()
    kubectl.apply(MODEL)
    wait_for("the second to work", lambda: accepted(kubectl))
    assert holder(kubectl) == "second"


def test_operator_that_was_paused_while_another_took_over_writes_nothing_and_ends(
    two: tuple[Service, Service], kubectl: Kubectl
) -> None:
    first, second = two
    assert first.process is not None
    first.process.send_signal(signal.SIGSTOP)
    kubectl.apply(MODEL)
    wait_for("the second to work", lambda: accepted(kubectl))
    second.kill()  # so that whatever is written from here on, the first has written
    kubectl.apply({**MODEL, "spec": {"model": "ollama_chat/other"}})
    before = kubectl.get("model", "m")
    first.process.send_signal(signal.SIGCONT)
    assert first.process.wait(60) == 1
    assert "LeadershipLost" in first.log.read_text()
    assert kubectl.get("model", "m") == before
    assert holder(kubectl) == "second"


def test_operator_that_is_told_to_stop_frees_its_lease(stage: Stage, kubectl: Kubectl) -> None:
    operator = candidate(stage.cluster, kubectl, "polite")
    operator.start()
    try:
        kubectl.apply(MODEL)
        wait_for("the operator to work", lambda: accepted(kubectl))
    finally:
        operator.stop()
    assert operator.process is not None
    assert operator.process.returncode == 0
    assert holder(kubectl) == ""


def test_operator_waits_for_its_crds_and_ends_when_the_api_server_is_gone(tmp_path: Path) -> None:
    with running_apiserver(tmp_path) as server:
        kubectl, port = Kubectl(server.kubeconfig, "default", tmp_path), free_port()
        operator = candidate(server, kubectl, "lonely", FAIRLEAD_PROBE_PORT=str(port))
        operator.start()
        try:
            wait_for(
                "a word about the CRDs", lambda: operator.log.exists() and "crds_missing" in operator.log.read_text()
            )
            kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
            wait_for(
                "the CRDs",
                lambda: kubectl.run("apply", "-f", "-", stdin=json.dumps(MODEL), check=False).returncode == 0,
            )
            wait_for("the operator to work", lambda: accepted(kubectl))
            for probe in ("healthz", "readyz"):
                assert httpx.get(f"http://127.0.0.1:{port}/{probe}").status_code == 200
            stop_apiserver(server)
            assert operator.process is not None
            assert operator.process.wait(60) == 1
            assert "LeadershipLost" in operator.log.read_text()
        finally:
            operator.kill()
