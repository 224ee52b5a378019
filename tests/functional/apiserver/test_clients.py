"""Kopf and the Kubernetes client for Python, as operators use them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, dynamic, watch
from kubernetes.aio import client as aio_client
from kubernetes.aio import config as aio_config

pytestmark = pytest.mark.usefixtures("widgets")

OPERATOR = """
import kopf

@kopf.on.startup()
def configure(settings, **_):
    settings.persistence.finalizer = "example.com/kopf"
    settings.posting.enabled = True
    settings.watching.server_timeout = 60

@kopf.on.resume("example.com", "v1", "widgets")
def resumed(patch, **_):
    patch.status["resumed"] = True

@kopf.on.create("example.com", "v1", "widgets")
async def created(spec, patch, body, **_):
    patch.status["phase"] = f"Created-{spec['size']}"
    kopf.info(body, reason="Created", message="A widget was made.")

@kopf.on.update("example.com", "v1", "widgets", field="spec")
async def updated(spec, patch, **_):
    patch.status["phase"] = f"Updated-{spec['size']}"

@kopf.on.delete("example.com", "v1", "widgets")
async def deleted(name, namespace, logger, **_):
    logger.info("widget %s is gone", name)
"""


class Operator:
    """A Kopf process that can be stopped and started again."""

    def __init__(self, folder: Path, kubeconfig: Path, namespace: str) -> None:
        self._script = folder / "operator.py"
        self._script.write_text(OPERATOR)
        self.log = folder / "operator.log"
        kept = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
        self._environment = {**kept, "HOME": str(folder), "KUBECONFIG": str(kubeconfig)}
        self._arguments = ["--namespace", namespace, "--standalone", "--log-format=plain"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "kopf", "run", str(self._script), *self._arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None


@pytest.fixture
def operator(cluster: Any, namespace: str, tmp_path: Path) -> Iterator[Operator]:
    running = Operator(tmp_path, cluster.kubeconfig, namespace)
    running.start()
    yield running
    running.stop()


def test_kopf_handles_creation_change_restart_and_deletion(
    api: Any, namespace: str, widget: Any, operator: Operator, eventually: Any
) -> None:
    path = f"/apis/example.com/v1/namespaces/{namespace}/widgets"

    def phase() -> Any:
        return api.get(f"{path}/a").body.get("status", {}).get("phase")

    api.post(path, widget("a", size=1))
    eventually(lambda: phase() == "Created-1", seconds=30)
    assert api.get(f"{path}/a")["metadata"]["finalizers"] == ["example.com/kopf"]
    api.merge(f"{path}/a", {"spec": {"size": 2}})
    eventually(lambda: phase() == "Updated-2", seconds=30)
    events = f"/api/v1/namespaces/{namespace}/events"
    eventually(lambda: "Created" in {item["reason"] for item in api.get(events)["items"]}, seconds=30)
    operator.stop()
    api.merge(f"{path}/a", {"spec": {"size": 3}})
    operator.start()
    eventually(lambda: phase() == "Updated-3", seconds=30)
    api.delete(f"{path}/a")
    eventually(lambda: api.get(f"{path}/a").status == 404, seconds=30)
    log = operator.log.read_text()
    assert "widget a is gone" in log
    assert "Traceback" not in log


def test_dynamic_client_reads_writes_and_watches(api: Any, namespace: str, widget: Any) -> None:
    widgets = dynamic.DynamicClient(api.client).resources.get(api_version="example.com/v1", kind="Widget")
    seen: list[tuple[str, str]] = []

    def follow() -> None:
        for event in widgets.watch(namespace=namespace, timeout=20):
            seen.append((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                return

    following = threading.Thread(target=follow)
    following.start()
    widgets.create(namespace=namespace, body=widget("a"))
    widgets.patch(
        namespace=namespace, name="a", body={"spec": {"size": 4}}, content_type="application/merge-patch+json"
    )
    assert widgets.get(namespace=namespace, name="a").spec.size == 4
    applied = widgets.server_side_apply(
        namespace=namespace, name="a", body=widget("a", color="blue", size=4), field_manager="py", force_conflicts=True
    )
    assert applied.spec.color == "blue"
    widgets.delete(namespace=namespace, name="a")
    following.join(30)
    assert [kind for kind, _ in seen][-1] == "DELETED"
    assert ("ADDED", "a") in seen


def test_typed_client_reads_writes_and_watches(api: Any, namespace: str) -> None:
    core = client.CoreV1Api(api.client)
    core.create_namespaced_config_map(namespace, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="c")))
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    core.patch_namespaced_config_map("c", namespace, {"data": {"a": "1"}})
    core.delete_namespaced_config_map("c", namespace)
    events = watch.Watch().stream(core.list_namespaced_config_map, namespace, resource_version=start, timeout_seconds=2)
    assert [(event["type"], event["object"].metadata.name) for event in events] == [("MODIFIED", "c"), ("DELETED", "c")]
    with pytest.raises(client.ApiException) as missing:
        core.read_namespaced_config_map("c", namespace)
    assert missing.value.status == 404
    spec = client.V1PodSpec(containers=[client.V1Container(name="main", image="registry.example.com/none:1")])
    pod = core.create_namespaced_pod(namespace, client.V1Pod(metadata=client.V1ObjectMeta(name="p"), spec=spec))
    assert (pod.status.phase, pod.spec.restart_policy, pod.spec.termination_grace_period_seconds) == (
        "Pending",
        "Always",
        30,
    )
    token = core.create_namespaced_service_account_token(
        "default", namespace, client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=["x"]))
    )
    review = client.V1TokenReview(spec=client.V1TokenReviewSpec(token=token.status.token, audiences=["x"]))
    assert client.AuthenticationV1Api(api.client).create_token_review(review).status.authenticated


async def test_asyncio_client_reads_and_writes(cluster: Any, namespace: str) -> None:
    connection = await aio_config.new_client_from_config(config_file=str(cluster.kubeconfig))
    async with connection:
        core = aio_client.CoreV1Api(connection)
        listed = await core.list_namespaced_secret(namespace)
        await core.create_namespaced_secret(namespace, {"metadata": {"name": "s"}})
        again = await core.list_namespaced_secret(namespace)
    assert [item.metadata.name for item in again.items] == ["s"]
    assert int(again.metadata.resource_version) > int(listed.metadata.resource_version)
