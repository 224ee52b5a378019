"""The registry of agents: how soon a pod is in it, what many agents cost, and what ten thousand would.

Two hundred pods of one Agent, made by the real operator, are played over the real protocol by a process of its own that
is not measured (`tests/bench/crowd.py`); operator, gateway and API server are processes of their own. A Lease that is
lost fails the measurement.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml
from tests.bench.harness import Arm, Comparison
from tests.bench.http1 import Connection
from tests.bench.newpods import Pods
from tests.bench.runs import fairlead
from tests.bench.thousands import looking, simulated

from fairlead.core import names
from fairlead.kube import KubeClient, Ref
from fairlead.testing.apiserver import ApiServer, running_apiserver
from fairlead.testing.gateway import GatewayProcess, create_agent_pod, gateway_authority, pod_token, running_gateway

AGENTS = int(os.environ.get("FAIRLEAD_BENCH_AGENTS", "200"))
PACE_SECONDS = 5
FLOOD = 200
AT_ONCE = 8
_NAMESPACE = "bench"
_AGENT = "crowd"
_DEADLINE_SECONDS = 180
_ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Many:
    """Everything that looks after many agents."""

    server: ApiServer
    gateway: GatewayProcess
    kube: KubeClient
    operator: subprocess.Popen[bytes]
    naive: subprocess.Popen[bytes]
    operator_log: Path
    authority: str

    @property
    def servers(self) -> dict[str, int]:
        """The processes that are looked at."""
        assert self.server.process is not None
        return {
            "naive operator: a Kopf watch on all Leases": self.naive.pid,
            "Fairlead's operator": self.operator.pid,
            "Fairlead's gateway": self.gateway.process.pid,
            "API server": self.server.process.pid,
        }

    async def check(self) -> None:
        """Fail if one agent is missing, or was for a while."""
        if b'"agent_lost"' in self.operator_log.read_bytes():
            raise RuntimeError(f"an agent was given up: {self.operator_log}")
        agent = await self.kube.get(Ref(names.API_VERSION, "Agent", _AGENT, _NAMESPACE))
        if agent is None or agent["status"].get("ready") != AGENTS:
            raise RuntimeError(f"not all agents are registered: {agent and agent['status']}")


@asynccontextmanager
async def _many(folder: Path) -> AsyncIterator[Many]:
    """Start the control plane and the naive operator, and register the agents."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(running_apiserver(folder))
        kube = await KubeClient.connect(kubeconfig=server.kubeconfig, user_agent="bench")
        stack.push_async_callback(kube.aclose)
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}})
        for file in sorted((_ROOT / "crds").glob("*.yaml")):
            await kube.apply(yaml.safe_load(file.read_bytes()), manager="bench")
        gateway = stack.enter_context(running_gateway(folder, kubeconfig=server.kubeconfig, namespace=_NAMESPACE))
        log = folder / "operator.log"
        operator = stack.enter_context(_Process(["fairlead.controllers"], log, _settings(server, gateway)))
        naive = ["kopf", "run", str(Path(__file__).with_name("naive_registry.py")), "--all-namespaces", "--quiet"]
        watcher = stack.enter_context(_Process(naive, folder / "naive.log", {"KUBECONFIG": str(server.kubeconfig)}))
        authority = await gateway_authority(kube, _NAMESPACE)
        many = Many(server, gateway, kube, operator, watcher, log, authority)
        await stack.enter_async_context(_agents(many))
        yield many
        await many.check()


def _settings(server: ApiServer, gateway: GatewayProcess) -> dict[str, str]:
    given = {
        "KUBECONFIG": str(server.kubeconfig),
        "STORAGE_URL": gateway.storage_url,
        "NAMESPACE": _NAMESPACE,
        "GATEWAY_URL": gateway.url,
        "PROBE_PORT": "0",
    }
    return {f"FAIRLEAD_{key}": value for key, value in given.items()}


class _Process:
    """A program of Python's, until the end of the block."""

    def __init__(self, module: list[str], log: Path, environment: dict[str, str]) -> None:
        self._command = [sys.executable, "-m", *module]
        self._log = log
        self._environment = {**os.environ, **environment}

    def __enter__(self) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as log:
            self._started = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
        return self._started

    def __exit__(self, *_: object) -> None:
        self._started.terminate()
        self._started.wait()


@asynccontextmanager
async def _agents(many: Many) -> AsyncIterator[None]:
    """Have the operator make the pods, and play them."""
    agent = {"apiVersion": names.API_VERSION, "kind": "Agent", "metadata": {"name": _AGENT, "namespace": _NAMESPACE}}
    await many.kube.create({**agent, "spec": {"scale": {"min": AGENTS}}})
    selector = f"{names.AGENT_LABEL}={_AGENT}"

    async def pods() -> list[dict[str, Any]]:
        return await many.kube.list("v1", "Pod", namespace=_NAMESPACE, label_selector=selector)

    await _until(lambda: _count(pods, AGENTS), "the pods")
    tokens = [await pod_token(many.kube, pod) for pod in await pods()]
    players = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.crowd"), cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert players.stdin is not None
    assert players.stdout is not None
    given = {"url": many.gateway.url, "authority": many.authority, "tokens": tokens}
    players.stdin.write(orjson.dumps(given) + b"\n")
    try:
        if await players.stdout.readline() != b"ready\n":
            raise RuntimeError("the agents did not register")

        async def ready() -> bool:
            found = await many.kube.get(Ref(names.API_VERSION, "Agent", _AGENT, _NAMESPACE))
            return found is not None and (found.get("status") or {}).get("ready") == AGENTS

        await _until(ready, "the agents' readiness")
        yield
        if players.returncode is not None:
            raise RuntimeError("an agent lost its session")
    finally:
        players.stdin.close()
        await players.wait()


async def _count(what: Callable[[], Any], wanted: int) -> bool:
    return len(await what()) == wanted


async def _until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not await condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {_DEADLINE_SECONDS} s for {what}")
        await asyncio.sleep(0.2)


def _at_their_pace(many: Many) -> Comparison:
    """Let time pass; what is measured is what each process needs meanwhile."""

    async def wait(seconds: int) -> Sequence[float]:
        await asyncio.sleep(seconds)
        await many.check()
        return ()

    arms = [Arm(name, wait, lambda pid=pid: (pid,)) for name, pid in many.servers.items()]
    return Comparison(f"a second of {AGENTS} agents that beat every 5 s, what each process needs", PACE_SECONDS, arms)


@dataclass
class Flood:
    """The same request again and again for a few pods, some at once."""

    url: str
    context: ssl.SSLContext
    bearers: Sequence[str]
    method: str
    path: Callable[[int], str]
    body: Callable[[], bytes]
    media_type: str = "application/json"
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def send(self, count: int) -> Sequence[float]:
        """Send so many; return how long each took."""
        each = [count // AT_ONCE + (number < count % AT_ONCE) for number in range(AT_ONCE)]
        taken = await asyncio.gather(*(self._some(number, some) for number, some in enumerate(each) if some))
        return [seconds for part in taken for seconds in part]

    async def _some(self, number: int, count: int) -> list[float]:
        bearer = self.bearers[number]
        connection = await Connection.open(self.url, context=self.context, token=bearer, media_type=self.media_type)
        taken = []
        for _ in range(count):
            begun = time.perf_counter()
            status, answer = await connection.request(self.method, self.path(number), self.body())
            if status != 200:
                raise RuntimeError(f"{self.path(number)}: {status} {answer[:500]!r}")
            taken.append(time.perf_counter() - begun)
        connection.drop()
        return taken


async def _floods(many: Many) -> list[Comparison]:
    """Return what heartbeats and registrations cost, next to what they need of the API server at the least."""
    still = {names.LEASE_SECONDS_ANNOTATION: "86400"}  # between two rounds nobody beats for them
    tokens = [
        await create_agent_pod(many.kube, f"flood-{n}", namespace=_NAMESPACE, agent="flood", annotations=still)
        for n in range(AT_ONCE)
    ]
    context = ssl.create_default_context(cadata=many.authority)
    register = orjson.dumps({"version": "0.1.0", "concurrency": 4})
    sessions = []
    for token in tokens:
        connection = await Connection.open(many.gateway.url, context=context, token=token)
        _, answer = await connection.request("POST", "/v1/register", register)
        sessions.append(orjson.loads(answer)["session"])
        connection.drop()
    assert many.server.ca_file is not None
    assert many.server.process is not None
    trusted = ssl.create_default_context(cafile=str(many.server.ca_file))
    own = [many.server.admin_token] * AT_ONCE
    prefix = f"/apis/coordination.k8s.io/v1/namespaces/{_NAMESPACE}/leases/flood-"
    pids = (many.gateway.process.pid, many.server.process.pid)

    def through(bearers: Sequence[str], path: str, body: bytes) -> Arm:
        flood = Flood(many.gateway.url, context, bearers, "POST", lambda _: path, lambda: body)
        return Arm("Fairlead: through the gateway", flood.send, lambda: pids)

    bare = Flood(
        *(many.server.url, trusted, own, "PATCH", lambda number: f"{prefix}{number}", _renewal),
        media_type="application/merge-patch+json",
    )
    floor = Arm("the agent patches its Lease itself", bare.send, lambda: pids)
    return [
        Comparison("a heartbeat", FLOOD, [floor, through(sessions, "/v1/heartbeat", b'{"tasks": []}')]),
        Comparison(
            "a registration of a pod that is known", FLOOD // 4, [floor, through(tokens, "/v1/register", register)]
        ),
    ]


def _renewal() -> bytes:
    moment = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime())}.{time.time_ns() // 1000 % 1_000_000:06}Z"
    return orjson.dumps({"spec": {"renewTime": moment}})


@asynccontextmanager
async def comparisons(folder: Path) -> AsyncIterator[list[Comparison]]:
    """Start everything and yield what to compare."""
    async with AsyncExitStack() as stack:
        laptop, *_ = await stack.enter_async_context(fairlead(folder / "home"))
        home = await KubeClient.connect(kubeconfig=folder / "home" / "kubeconfig", user_agent="bench")
        stack.push_async_callback(home.aclose)
        pods = Pods(laptop, home, folder / "home" / "logs" / "podruntime.log")
        (folder / "many").mkdir()
        many = await stack.enter_async_context(_many(folder / "many"))
        yield [
            pods.comparison(),
            _at_their_pace(many),
            *await _floods(many),
            await looking(),
            simulated(),
        ]
