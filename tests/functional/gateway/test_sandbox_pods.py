"""Sandboxes that are pods, as far as the cluster is concerned: the gateway's rights suffice, and reach no further."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead.clock import SystemClock
from fairlead.core import names
from fairlead.errors import Conflict, Refused
from fairlead.kube import KubeClient, Ref
from fairlead.sandbox.base import Limits
from fairlead.sandbox.pod import SELECTOR, PodSandbox, PodShape, build_pod, build_secret
from fairlead.services.sandboxpods import SandboxPods
from fairlead.testing.apiserver import ApiServer

BASE = Path(__file__).parents[3] / "manifests/base"
SHAPE = PodShape("fairlead-sandbox:0.1.0", names.SANDBOX_NAMESPACE)
UNTIL = 2_000_000_000


async def install(admin: KubeClient) -> None:
    """Apply what the sandboxes need of the install."""
    for name in ("namespace", "rbac-gateway", "sandboxes"):
        for document in yaml.safe_load_all((BASE / f"{name}.yaml").read_text()):
            await admin.apply(document, manager="tests", force=True)


@pytest.fixture
async def admin(cluster: ApiServer) -> AsyncIterator[KubeClient]:
    client = await KubeClient.connect(kubeconfig=cluster.kubeconfig, user_agent="tests")
    await install(client)
    yield client
    await client.aclose()


@pytest.fixture
async def gateway(cluster: ApiServer, admin: KubeClient, tmp_path: Path) -> AsyncIterator[KubeClient]:
    """The cluster as the gateway's service account sees it."""
    metadata = {"name": "fairlead-gateway", "namespace": names.SYSTEM_NAMESPACE}
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": metadata, "spec": {}}
    token = (await admin.create(request, subresource="token", name="fairlead-gateway"))["status"]["token"]
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    own = tmp_path / "kubeconfig"
    own.write_text(json.dumps(config))
    client = await KubeClient.connect(kubeconfig=own, user_agent="fairlead-gateway")
    yield client
    await client.aclose()


async def make(pods: SandboxPods, name: str) -> dict[str, Any]:
    await pods.create(build_secret(SHAPE, name, b"job", UNTIL))
    return await pods.create(build_pod(SHAPE, name, Limits(), UNTIL))


async def test_gateway_makes_finds_and_removes_sandboxes(gateway: KubeClient) -> None:
    pods = SandboxPods(gateway, names.SANDBOX_NAMESPACE)
    made = await make(pods, "sandbox-one")
    assert (made["metadata"]["namespace"], made["spec"]["automountServiceAccountToken"]) == (SHAPE.namespace, False)
    with pytest.raises(Conflict):
        await make(pods, "sandbox-one")
    for kind in ("Pod", "Secret"):
        assert [one["metadata"]["name"] for one in await pods.list(kind, SELECTOR)] == ["sandbox-one"]
        assert await pods.get(kind, "sandbox-one")
        await pods.delete(kind, "sandbox-one")
        await pods.delete(kind, "sandbox-one")
        assert await pods.get(kind, "sandbox-one") is None


async def test_gateway_reads_the_first_bytes_of_a_log(
    cluster: ApiServer, gateway: KubeClient, admin: KubeClient
) -> None:
    if cluster.pod_log_dir is None:
        pytest.skip("a real kubelet keeps its logs elsewhere")
    pods = SandboxPods(gateway, names.SANDBOX_NAMESPACE)
    uid = (await make(pods, "sandbox-two"))["metadata"]["uid"]
    ref = Ref("v1", "Pod", "sandbox-two", SHAPE.namespace)
    ended = {"name": "program", "ready": False, "restartCount": 0, "image": "", "imageID": "", "containerID": "x://1"}
    await admin.merge_patch(ref, {"status": {"phase": "Succeeded", "containerStatuses": [ended]}}, subresource="status")
    folder = cluster.pod_log_dir / f"{SHAPE.namespace}_sandbox-two_{uid}" / "program"
    folder.mkdir(parents=True)
    (folder / "0.log").write_text("2026-01-01T00:00:00.000000000Z stdout F 0123456789\n")
    try:
        assert await pods.log("sandbox-two", 100) == b"0123456789\n"
        assert await pods.log("sandbox-two", 4) == b"0123"
    finally:
        for kind in ("Pod", "Secret"):
            await pods.delete(kind, "sandbox-two")


async def test_gateway_makes_no_pods_elsewhere(gateway: KubeClient) -> None:
    for namespace in ("default", names.SYSTEM_NAMESPACE):
        with pytest.raises(Refused):
            await make(SandboxPods(gateway, namespace), "sandbox-three")
        with pytest.raises(Refused):
            await SandboxPods(gateway, namespace).list("Secret", "")


async def test_gateway_sees_whether_the_sandboxes_are_closed_in(gateway: KubeClient, admin: KubeClient) -> None:
    def sandbox() -> PodSandbox:
        return PodSandbox(SandboxPods(gateway, names.SANDBOX_NAMESPACE), SHAPE, parallel=1, clock=SystemClock())

    assert await sandbox().unavailable() is None
    await admin.delete(Ref("networking.k8s.io/v1", "NetworkPolicy", "sandboxes", SHAPE.namespace))
    assert "NetworkPolicy" in (await sandbox().unavailable() or "")
