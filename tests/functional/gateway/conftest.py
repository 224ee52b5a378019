"""A gateway process of its own for each test, on the API server of all of them."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fairlead.kube import KubeClient, Ref
from fairlead.storage import open_storage
from fairlead.testing.apiserver import ApiServer
from fairlead.testing.gateway import start_gateway, stop_gateway
from fairlead.testing.world import World


@pytest.fixture
def gateway_settings() -> dict[str, str]:
    """Settings of the gateway besides the usual ones; a module may override them."""
    return {}


@pytest.fixture
async def world(cluster: ApiServer, gateway_settings: dict[str, str], tmp_path: Path) -> AsyncIterator[World]:
    namespace = f"gw-{uuid.uuid4().hex[:8]}"
    kube = await KubeClient.connect(kubeconfig=cluster.kubeconfig, user_agent="tests")
    await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    gateway = start_gateway(tmp_path, kubeconfig=cluster.kubeconfig, namespace=namespace, **gateway_settings)
    storage = open_storage(gateway.storage_url)
    system = await kube.get(Ref("v1", "Namespace", "kube-system"))
    assert system is not None
    made = World(cluster, kube, gateway, storage, namespace, system["metadata"]["uid"], tmp_path, gateway_settings)
    try:
        yield made
    finally:
        for client in made.clients:
            await client.aclose()
        stop_gateway(made.gateway)
        await storage.aclose()
        await kube.delete(Ref("v1", "Namespace", namespace))
        await kube.aclose()
