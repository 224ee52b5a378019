"""The runtime as a whole: registers the node, follows all pods, gives each a worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import shutil
from pathlib import Path
from typing import Final

from fairlead import __version__
from fairlead.errors import Conflict
from fairlead.kube import Ref
from fairlead.localcluster.podruntime.plan import Rules
from fairlead.localcluster.podruntime.state import Json, to_time
from fairlead.localcluster.podruntime.status import LOOPBACK
from fairlead.localcluster.podruntime.worker import Node, PodWorker
from fairlead.logs import get_logger

_log = get_logger(__name__)
_STOP_SECONDS: Final = 5.0
_MAX_PODS: Final = 110


class Runtime:
    """Runs the pods of one node until it is cancelled."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Register the node and follow the pods; when cancelled, end their processes and leave their objects."""
        await self._register()
        await self._forget_strangers()
        try:
            async for kind, pod in self._node.client.watch("v1", "Pod"):
                self._note(kind, pod)
        finally:
            try:
                await self._shut_down()
            finally:
                await self._node.engine.aclose()

    def _note(self, kind: str, pod: Json) -> None:
        uid = pod["metadata"]["uid"]
        worker = self._workers.get(uid)
        if kind == "DELETED":
            if worker is not None:
                worker.gone()
        elif worker is not None:
            worker.update(pod)
        else:
            worker = self._workers[uid] = PodWorker(self._node, pod)
            task = self._tasks[uid] = asyncio.create_task(worker.run(), name=f"pod {pod['metadata']['name']}")
            task.add_done_callback(lambda done: self._ended(uid, done))

    def _ended(self, uid: str, task: asyncio.Task[None]) -> None:
        self._workers.pop(uid, None)
        self._tasks.pop(uid, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("pod_worker_failed", uid=uid, exc_info=error)

    async def _shut_down(self) -> None:
        tasks, workers = list(self._tasks.values()), list(self._workers.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(worker.shut_down(seconds=_STOP_SECONDS) for worker in workers))

    async def _register(self) -> None:
        node = build_node(self._node.rules, now=to_time(self._node.clock.now()), version=self._node.engine.version)
        client, ref = self._node.client, Ref("v1", "Node", self._node.rules.node)
        with contextlib.suppress(Conflict):
            await client.create({key: value for key, value in node.items() if key != "status"})
        await client.merge_patch(ref, {"metadata": {"labels": node["metadata"]["labels"]}})
        await client.merge_patch(ref, {"status": node["status"]}, subresource="status")
        _log.info("node_registered", kind="Node", name=self._node.rules.node)

    async def _forget_strangers(self) -> None:
        """End what belongs to no pod any more; delete the folders and logs of pods that are no more."""
        pods = await self._node.client.list("v1", "Pod")
        known = {pod["metadata"]["uid"] for pod in pods}
        if strays := await self._node.engine.sweep(known):
            _log.warning("strays_ended", count=strays)
        for folder in _folders(self._node.pods_dir):
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)
        for folder in _folders(self._node.log_dir):
            if folder.name.rpartition("_")[2] not in known:
                shutil.rmtree(folder, ignore_errors=True)


def _folders(root: Path) -> list[Path]:
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    return [path for path in root.iterdir() if path.is_dir()]


def build_node(rules: Rules, *, now: str, version: str) -> Json:
    """Return this machine as a node."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    system = platform.system().lower()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024
    capacity = {"cpu": str(os.cpu_count() or 1), "memory": f"{memory}Ki", "pods": str(_MAX_PODS)}
    labels = {"kubernetes.io/hostname": rules.node, "kubernetes.io/os": system, "kubernetes.io/arch": machine}
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": f"fairlead runs pods with {version}",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
    info = {
        "kubeletVersion": f"v{__version__}+fairlead",
        "kubeProxyVersion": "",
        "containerRuntimeVersion": version,
        "operatingSystem": system,
        "architecture": machine,
        "kernelVersion": platform.release(),
        "osImage": platform.platform(),
        "machineID": "",
        "systemUUID": "",
        "bootID": "",
    }
    addresses = [{"type": "InternalIP", "address": LOOPBACK}, {"type": "Hostname", "address": rules.node}]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": rules.node, "labels": labels},
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [ready],
            "addresses": addresses,
            "nodeInfo": info,
        },
    }
