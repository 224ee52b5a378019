"""The agent's image next to a plain one: what it takes on disk, in memory while it waits, and until it is ready."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.harness import Arm, Comparison, Figures

from fairlead.kube import KubeClient, Ref
from fairlead.testing.apiserver import running_apiserver
from fairlead.testing.gateway import GatewayProcess, create_agent_pod, gateway_authority, running_gateway

AGENT = "fairlead-agent:0.1.0"
_ROOT = Path(__file__).resolve().parents[2]
_LABEL = "dev.fairlead.bench=image"
_LIKE_A_POD = ("--read-only", "--tmpfs", "/tmp")  # noqa: S108 - of a container
_NAMESPACE = "bench"
_DEADLINE_SECONDS = 180.0
_PLAIN = "langgraph + litellm + kubernetes"
_OURS = "Fairlead's agent"
_IMPORTS = "import langgraph.graph, litellm, kubernetes.client"
_WAIT = "import signal; print('ready', flush=True); signal.pause()"


async def _docker(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "docker", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, problems = await process.communicate()
    if process.returncode:
        message = f"docker {arguments[0]}: {problems.decode()[-2000:]}"
        raise RuntimeError(message)
    return out.decode().strip()


@dataclass
class Containers:
    """Starts containers and removes them."""

    plain: str
    gateway: GatewayProcess
    kube: KubeClient
    authority: str
    folder: Path
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def start_plain(self) -> str:
        """Start the plain image and wait until it has imported what it has; return the container."""
        container = await self._run(self.plain, "-c", f"{_IMPORTS}; {_WAIT}")
        await _until(lambda: self._says(container, "ready"))
        return container

    async def start_agent(self) -> str:
        """Start an agent and wait until its Lease is there; return the container."""
        name = f"agent-{next(self._numbers)}"
        token = self.folder / name
        token.write_text(await create_agent_pod(self.kube, name, namespace=_NAMESPACE))
        lease = Ref("coordination.k8s.io/v1", "Lease", name, _NAMESPACE)
        given = {"FAIRLEAD_GATEWAY_URL": self.gateway.url, "FAIRLEAD_GATEWAY_CA": self.authority}
        options = [part for key, value in given.items() for part in ("--env", f"{key}={value}")]
        mount = f"type=bind,source={token},destination=/var/run/secrets/fairlead.dev/token,readonly"
        container = await self._run("--network", "host", "--mount", mount, *options, AGENT)

        async def registered() -> bool:
            return await self.kube.get(lease) is not None

        await _until(registered)
        return container

    def timed(self, start: Callable[[], Awaitable[str]]) -> Callable[[int], Awaitable[Sequence[float]]]:
        """Return the work of starting containers; what it takes to remove them is in the time of no start."""

        async def work(count: int) -> Sequence[float]:
            took = []
            for _ in range(count):
                begun = time.perf_counter()
                container = await start()
                took.append(time.perf_counter() - begun)
                await _docker("rm", "--force", container)
            return took

        return work

    async def memory(self, container: str) -> float:
        """Return the megabytes of a container that waits, and remove it."""
        megabytes = _resident(await _docker("inspect", "--format", "{{.State.Pid}}", container))
        await _docker("rm", "--force", container)
        return megabytes

    async def start_busy(self) -> str:
        """Start the agent's image with all that an Agent's turn imports, LangGraph included."""
        program = f"import fairlead_agent.main, fairlead_agent.loop; {_WAIT}"
        container = await self._run("--entrypoint", "python", AGENT, "-c", program)
        await _until(lambda: self._says(container, "ready"))
        return container

    async def _run(self, *arguments: str) -> str:
        name = f"fairlead-bench-{secrets.token_hex(4)}"
        return await _docker("run", "--detach", *_LIKE_A_POD, "--label", _LABEL, "--name", name, *arguments)

    @staticmethod
    async def _says(container: str, word: str) -> bool:
        return word in await _docker("logs", container)


def _resident(pid: str) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    (kilobytes,) = (line.split()[1] for line in text.splitlines() if line.startswith("VmRSS:"))
    return int(kilobytes) / 1024


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not await condition():
        if time.monotonic() > deadline:
            raise RuntimeError("a container does not get ready")
        await asyncio.sleep(0.02)


async def _images() -> tuple[dict[str, Any], dict[str, Any]]:
    """Build the plain image from what the agent's was built from; return both as the engine describes them."""
    (ours,) = json.loads(await _docker("image", "inspect", AGENT))
    base = f"BASE={ours['Config']['Labels']['dev.fairlead.base']}"
    file = str(_ROOT / "tests" / "bench" / "contestants" / "plain.Dockerfile")
    network = ("--network", "host", "--label", _LABEL)
    plain = await _docker("build", "--quiet", *network, "--build-arg", base, "--file", file, str(_ROOT))
    return json.loads(await _docker("image", "inspect", plain.splitlines()[-1]))[0], ours


async def _clear() -> None:
    if left := (await _docker("ps", "--all", "--quiet", "--filter", f"label={_LABEL}")).split():
        await _docker("rm", "--force", *left)


@asynccontextmanager
async def comparisons(folder: Path) -> AsyncIterator[list[Comparison | Figures]]:
    """Build and start what is compared."""
    plain, ours = await _images()
    async with AsyncExitStack() as stack:
        server = stack.enter_context(running_apiserver(folder))
        kube = await KubeClient.connect(kubeconfig=server.kubeconfig, user_agent="bench")
        stack.push_async_callback(kube.aclose)
        stack.push_async_callback(_clear)
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}})
        gateway = stack.enter_context(running_gateway(folder, kubeconfig=server.kubeconfig, namespace=_NAMESPACE))
        authority = await gateway_authority(kube, _NAMESPACE)
        made = Containers(plain["Id"], gateway, kube, authority, folder)
        sizes = {_PLAIN: plain["Size"] / 1e6, _OURS: ours["Size"] / 1e6}
        waiting = {
            _PLAIN: await made.memory(await made.start_plain()),
            _OURS: await made.memory(await made.start_agent()),
            f"{_OURS}, in a turn": await made.memory(await made.start_busy()),
        }
        arms = [
            Arm(_PLAIN, made.timed(made.start_plain), lambda: (os.getpid(),)),
            Arm(_OURS, made.timed(made.start_agent), lambda: (os.getpid(),)),
        ]
        yield [
            Figures("size of the image, unpacked", "MB", sizes),
            Figures("resident memory of one that waits", "MiB", waiting),
            Comparison("a container's start until it is ready", 1, arms),
        ]
