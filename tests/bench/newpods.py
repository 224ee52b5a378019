"""How soon a new pod is in the registry, next to how soon any pod on the same machine says that it runs."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from tests.bench.harness import Arm, Comparison
from tests.bench.runs import Fairlead

from fairlead.core import names
from fairlead.kube import KubeClient, Ref

_DEADLINE_SECONDS = 60


@dataclass
class Pods:
    """Makes pods one after the other on a laptop, and waits until they are known."""

    laptop: Fairlead
    kube: KubeClient
    runtime_log: Path
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def running(self, count: int) -> Sequence[float]:
        """Make plain pods; return how long each took from its process's start until its status says Running."""
        return [await self._plain() for _ in range(count)]

    async def registered(self, count: int) -> Sequence[float]:
        """Make Agents of one pod; return how long each took from its process's start until it is in the registry.

        That is: its Lease is there, and the Agent's count of ready pods says so.
        """
        return [await self._agent() for _ in range(count)]

    async def _plain(self) -> float:
        name = f"plain-{next(self._numbers)}"
        program = "import time; time.sleep(600)"
        container = {"name": "main", "image": "fairlead-agent:0.1.0", "command": [sys.executable, "-c", program]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}}
        made = await self.kube.create({**pod, "spec": {"containers": [container], "terminationGracePeriodSeconds": 0}})

        def known(found: dict[str, Any]) -> bool:
            return bool((found.get("status") or {}).get("phase") == "Running")

        seen = await self._seen("/api/v1/namespaces/default/pods", name, known)
        started = self._started(name)
        await self.kube.delete(Ref.of(made))
        return seen - started

    async def _agent(self) -> float:
        name = f"fresh-{next(self._numbers)}"
        agent = {"apiVersion": names.API_VERSION, "kind": "Agent", "metadata": {"name": name, "namespace": "default"}}
        made = await self.kube.create({**agent, "spec": {}})

        def known(found: dict[str, Any]) -> bool:
            return bool((found.get("status") or {}).get("ready") == 1)

        seen = await self._seen(f"/apis/{names.API_VERSION}/namespaces/default/agents", name, known)
        selector = f"{names.AGENT_LABEL}={name}"  # the registry was first: the count follows from it
        [lease] = await self.kube.list("coordination.k8s.io/v1", "Lease", namespace="default", label_selector=selector)
        started = self._started(lease["metadata"]["name"])
        await self.kube.delete(Ref.of(made))
        return seen - started

    async def _seen(self, path: str, name: str, known: Callable[[dict[str, Any]], bool]) -> float:
        """Return the time at which a watch shows that an object is as wanted."""
        connection = await self.laptop.connect()
        stream = await connection.stream(f"{path}?watch=1&fieldSelector=metadata.name%3D{name}")
        rest = b""
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                async for piece in stream:
                    *lines, rest = (rest + piece).split(b"\n")
                    if any(known(orjson.loads(line)["object"]) for line in lines):
                        return time.time()
        finally:
            connection.drop()
        raise RuntimeError("the watch ended")

    def _started(self, pod: str) -> float:
        """Return when a pod's process was started, from the kernel."""
        records = [json.loads(line) for line in self.runtime_log.read_text().splitlines() if line.startswith("{")]
        pids = [one["pid"] for one in records if one.get("event") == "container_started" and one["name"] == pod]
        ticks = int(Path(f"/proc/{pids[-1]}/stat").read_text().rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
        return time.time() - (up - ticks / os.sysconf("SC_CLK_TCK"))

    def comparison(self) -> Comparison:
        """Return what is compared."""
        arms = [
            Arm("any pod: until its status says Running", self.running, lambda: self.laptop.pids),
            Arm("an agent's: until it is in the registry", self.registered, lambda: self.laptop.pids),
        ]
        return Comparison("a pod, from the start of its process", 3, arms)
