"""A gateway process, a real agent process, and a stand-in for every provider: workflows from the queue to their end."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fairlead.core import names
from fairlead.kube import KubeClient
from fairlead.storage import Storage, open_storage
from fairlead.storage.base import QueuedTask, Revision, Run
from fairlead.testing.apiserver import ApiServer
from fairlead.testing.gateway import create_agent_pod, gateway_authority, running_gateway
from fairlead.testing.standins import StandIn, running_standin
from fairlead.testing.storage import NOW
from fairlead.wiring import cluster_id

SECONDS = 120.0
KEY = "sk-canary-93bd20f1"
SETTINGS = {"allow_loopback_models": "true"}


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with running_standin() as running:
        yield running


@pytest.fixture
def standin(server: StandIn) -> StandIn:
    server.forget()
    return server


@dataclass
class Plant:
    """Where runs run."""

    storage: Storage
    cluster: str
    namespace: str
    log: Path

    async def run(
        self, spec: Mapping[str, Any], models: Mapping[str, Any], *, budget: Mapping[str, Any] | None = None
    ) -> Run:
        """Queue a run of a workflow and wait for its end."""
        uid = str(uuid.uuid4())
        document = {
            "workflow": {"name": "sorting", "uid": "w", "generation": 1, "spec": spec},
            "workflows": {},
            "agents": {},
            "models": models,
            "tools": {},
        }
        revision = Revision(names.digest(document), document)
        name = f"run-{uid[:8]}"
        run = Run(uid, self.cluster, self.namespace, name, "sorting", revision.digest, {}, NOW, budget=budget)
        task = QueuedTask(f"{uid}-task", uid, names.agent_pool(self.cluster, self.namespace, "default"))
        await self.storage.submit(run, revision=revision, task=task)
        async with asyncio.timeout(SECONDS):
            return await self._end(uid)

    async def _end(self, uid: str) -> Run:
        async for _ in self.storage.subscribe("run"):
            found = await self.storage.get_run(uid)
            if found is not None and found.state.final:
                return found
        raise AssertionError


@dataclass(frozen=True)
class _Place:
    """What the tests of a module share."""

    namespace: str
    cluster: str
    storage_url: str
    log: Path


@pytest.fixture(scope="module")
def place(cluster: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Place]:
    """A namespace with a gateway and an agent of its own; `key` of the Secret `provider` is `KEY`."""
    folder, namespace = tmp_path_factory.mktemp("providers"), f"providers-{uuid.uuid4().hex[:8]}"
    with ThreadPoolExecutor(1) as thread:  # the test that asks for it first has a loop of its own
        thread.submit(asyncio.run, _prepare(cluster, namespace)).result()
        with running_gateway(folder, kubeconfig=cluster.kubeconfig, namespace=namespace, **SETTINGS) as gateway:
            uid, agent = thread.submit(asyncio.run, _start_agent(cluster, namespace, gateway.url, folder)).result()
            try:
                yield _Place(namespace, uid, gateway.storage_url, gateway.log)
            finally:
                agent.terminate()
                agent.wait(30)


@pytest.fixture
async def plant(place: _Place) -> AsyncIterator[Plant]:
    storage = open_storage(place.storage_url)
    yield Plant(storage, place.cluster, place.namespace, place.log)
    await storage.aclose()


async def _prepare(cluster: ApiServer, namespace: str) -> None:
    kube = await KubeClient.connect(kubeconfig=cluster.kubeconfig, user_agent="tests")
    await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    data = {"key": base64.b64encode(KEY.encode()).decode()}
    metadata = {"name": "provider", "namespace": namespace}
    await kube.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    await kube.aclose()


async def _start_agent(
    cluster: ApiServer, namespace: str, url: str, folder: Path
) -> tuple[str, subprocess.Popen[bytes]]:
    """Start an agent in a pod of its own; return the cluster's id and the process."""
    kube = await KubeClient.connect(kubeconfig=cluster.kubeconfig, user_agent="tests")
    token = folder / "token"
    token.write_text(await create_agent_pod(kube, "agent", namespace=namespace))
    environment = {
        "PATH": os.environ["PATH"],
        "FAIRLEAD_GATEWAY_URL": url,
        "FAIRLEAD_GATEWAY_CA": await gateway_authority(kube, namespace),
        "FAIRLEAD_TOKEN_FILE": str(token),
    }
    uid = await cluster_id(kube)
    await kube.aclose()
    with (folder / "agent.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - it runs beside the tests
            [sys.executable, "-m", "fairlead_agent"], env=environment, stdout=log, stderr=log
        )
    return uid, process
