"""A real gateway for tests: its own process and port, next to a real API server and a storage on a file."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from fairlead.core import names
from fairlead.kube import KubeClient, Ref

START_SECONDS = 90.0
STOP_SECONDS = 40.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayProcess:
    """How to reach one gateway."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]
    storage_url: str


@contextlib.contextmanager
def running_gateway(
    folder: Path, *, kubeconfig: Path, namespace: str, storage_url: str = "", **settings: str
) -> Iterator[GatewayProcess]:
    """Start a gateway on a free port, yield it when it serves, and stop it.

    *folder* is for its log, and for its database where *storage_url* is empty; *namespace*, its own, has to exist.
    """
    gateway = start_gateway(folder, kubeconfig=kubeconfig, namespace=namespace, storage_url=storage_url, **settings)
    try:
        yield gateway
    finally:
        stop_gateway(gateway)


def start_gateway(
    folder: Path, *, kubeconfig: Path, namespace: str, storage_url: str = "", **settings: str
) -> GatewayProcess:
    """Start a gateway; end it with `stop_gateway`, or kill its `process`."""
    url = storage_url or f"sqlite:///{folder / 'fairlead.db'}"
    given = {
        "kubeconfig": str(kubeconfig),
        "namespace": namespace,
        "storage_url": url,
        "bind": "127.0.0.1",
        "port": "0",
        "hosts": '["127.0.0.1", "localhost"]',
        "sandbox": "none",
        **settings,
    }
    keep = {key: value for key, value in os.environ.items() if not key.startswith("FAIRLEAD_")}
    environment = keep | {f"FAIRLEAD_{key.upper()}": value for key, value in given.items()}
    log = folder / "gateway.log"
    before = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        command = [sys.executable, "-m", "fairlead.gateway"]
        process = subprocess.Popen(command, env=environment, stderr=output, stdout=output)  # noqa: S603 - our own program
    port = _wait_until_ready(log, before, process)
    return GatewayProcess(url=f"https://127.0.0.1:{port}", log=log, process=process, storage_url=url)


def stop_gateway(gateway: GatewayProcess) -> None:
    """Stop the gateway's process, if it still runs."""
    if gateway.process.poll() is not None:
        return
    gateway.process.send_signal(signal.SIGTERM)
    try:
        gateway.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        gateway.process.kill()
        gateway.process.wait()
        raise


async def gateway_authority(kube: KubeClient, namespace: str) -> str:
    """Return the certificate of the authority that the gateway published, as PEM."""
    found = await kube.get(Ref("v1", "ConfigMap", names.GATEWAY_CA_CONFIGMAP, namespace))
    return str((found or {})["data"][names.CA_KEY])


async def create_agent_pod(kube: KubeClient, name: str, *, namespace: str, agent: str = "default", **meta: Any) -> str:
    """Create a pod that belongs to an Agent's pool; return a token that is bound to it, as the kubelet projects it."""
    labels = {names.AGENT_LABEL: agent} if agent else {}
    pod = await kube.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels, **meta},
            "spec": {
                "serviceAccountName": "default",
                "containers": [{"name": "agent", "image": "fairlead-agent:0.1.0"}],
            },
        }
    )
    return await pod_token(kube, pod)


async def pod_token(kube: KubeClient, pod: dict[str, Any], *, audience: str = names.AUDIENCE) -> str:
    """Return a service account token that is bound to *pod*."""
    bound = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    asked = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "metadata": {"namespace": pod["metadata"]["namespace"]},
        "spec": {"audiences": [audience], "expirationSeconds": 3600, "boundObjectRef": bound},
    }
    answer = await kube.create(asked, subresource="token", name=pod["spec"]["serviceAccountName"])
    return str(answer["status"]["token"])


def _wait_until_ready(log: Path, before: int, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + START_SECONDS
    while True:
        for line in log.read_bytes()[before:].splitlines():
            if b'"gateway_serves"' in line:
                return int(orjson.loads(line)["port"])
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            message = f"the gateway does not start: {log.read_text()}"
            raise RuntimeError(message)
        time.sleep(_POLL_SECONDS)
