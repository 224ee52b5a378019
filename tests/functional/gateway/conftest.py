"""A gateway process on the API server of all tests: one for the session, or one of the test's own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fairlead.kube import KubeClient, Ref
from fairlead.storage import open_storage
from fairlead.testing.apiserver import ApiServer
from fairlead.testing.gateway import GatewayProcess, start_gateway, stop_gateway
from fairlead.testing.world import World

SHARED = f"gw-shared-{uuid.uuid4().hex[:8]}"
SETTINGS = {
    "allow_loopback_models": "true",
    "allow_loopback_tools": "true",
    "log_level": "DEBUG",
    "sandbox": "bubblewrap",
}
"""Stand-ins for what is outside serve on this machine, and secrets must not be in the most talkative log either."""


@pytest.fixture
def own_gateway() -> dict[str, str] | None:
    """The settings of a gateway of the test's own; None: the session's. A module overrides it."""
    return None


async def delete_namespace(cluster: ApiServer, name: str) -> None:
    kube = await KubeClient.connect(kubeconfig=cluster.kubeconfig, user_agent="tests")
    await kube.delete(Ref("v1", "Namespace", name))
    await kube.aclose()


async def make_namespace(cluster: ApiServer, name: str) -> None:
    kube = await KubeClient.connect(kubeconfig=cluster.kubeconfig, user_agent="tests")
    if await kube.get(Ref("v1", "Namespace", name)) is None:
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    await kube.aclose()


@pytest.fixture(scope="session")
def shared_gateway(cluster: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with ThreadPoolExecutor(1) as thread:  # the test that asks for it first has a loop of its own
        thread.submit(asyncio.run, make_namespace(cluster, SHARED)).result()
    folder = tmp_path_factory.mktemp("gateway")
    gateway = start_gateway(folder, kubeconfig=cluster.kubeconfig, namespace=SHARED, **SETTINGS)
    yield gateway
    stop_gateway(gateway)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, delete_namespace(cluster, SHARED)).result()


@pytest.fixture
async def world(
    cluster: ApiServer, own_gateway: dict[str, str] | None, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[World]:
    namespace = f"gw-{uuid.uuid4().hex[:8]}"
    await make_namespace(cluster, namespace)
    if own_gateway is None:
        gateway, system = request.getfixturevalue("shared_gateway"), SHARED
    else:
        gateway, system = (
            start_gateway(tmp_path, kubeconfig=cluster.kubeconfig, namespace=namespace, **own_gateway),
            namespace,
        )
    kube = await KubeClient.connect(kubeconfig=cluster.kubeconfig, user_agent="tests")
    storage = open_storage(gateway.storage_url)
    origin = await kube.get(Ref("v1", "Namespace", "kube-system"))
    assert origin is not None
    made = World(
        server=cluster,
        kube=kube,
        gateway=gateway,
        storage=storage,
        system_namespace=system,
        namespace=namespace,
        cluster=origin["metadata"]["uid"],
        folder=gateway.log.parent,
        settings=SETTINGS if own_gateway is None else own_gateway,
    )
    try:
        yield made
    finally:
        for client in made.clients:
            await client.aclose()
        if own_gateway is not None:
            stop_gateway(made.gateway)
        await storage.aclose()
        await kube.delete(Ref("v1", "Namespace", namespace))
        await kube.aclose()
