"""``up``: brings a home to life, keeps it alive, and ends it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import yaml

from fairlead.clock import Clock
from fairlead.core import names
from fairlead.errors import FairleadError
from fairlead.kube import KubeClient, Ref
from fairlead.localcluster.apiserver import pki
from fairlead.localcluster.podruntime.dockerengine.choosing import Choice, choose
from fairlead.localcluster.podruntime.dockerengine.labels import GATEWAY_SOCKET
from fairlead.localcluster.podruntime.dockerengine.leftovers import remove_leftovers
from fairlead.localcluster.supervisor import bootstrap
from fairlead.localcluster.supervisor.children import Child, ChildSpec, trim_log
from fairlead.localcluster.supervisor.home import Home, State, write_file
from fairlead.localcluster.supervisor.ports import choose_ports
from fairlead.localcluster.supervisor.processes import Identity
from fairlead.logs import get_logger

_log = get_logger(__name__)
_START_SECONDS: Final = 90.0
_SILENT_SECONDS: Final = 2.0
_SANDBOX_SECONDS: Final = 20.0
_STOP_SECONDS: Final = {"podruntime": 20.0, "operator": 8.0, "gateway": 8.0, "apiserver": 8.0}
_TIDY_SECONDS: Final = 60.0
_LOOPBACK: Final = "127.0.0.1"
NODE: Final = "local"
USER_AGENT: Final = "fairlead-up"

Report = Callable[[str, str], None]
"""Takes ``wait`` or ``done`` and a sentence for a person."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a home is brought up."""

    home: Home
    environment: Callable[[Mapping[str, str]], dict[str, str]]
    """Returns this process's environment with changes."""
    ports: Mapping[str, int] = field(default_factory=dict)
    agent_image: str = "fairlead-agent:0.1.0"
    runtime: str = "auto"
    """What runs pods: ``docker``, ``process``, or ``auto``: Docker if it can be had."""


class Supervisor:
    """One home that runs."""

    def __init__(self, options: Options, clock: Clock, report: Report) -> None:
        self._options, self._clock, self._report = options, clock, report
        self._home = options.home
        self._state = State()
        self._children: dict[str, Child] = {}
        self._client: KubeClient | None = None
        self._renewals: dict[str, datetime] = {}
        self._base: dict[str, Any] = {}
        self._choice = Choice("process", "")

    async def run(self, ready: Callable[[], None]) -> None:
        """Start everything, call *ready*, and keep it until SIGTERM or SIGINT; everything ends with this function.

        Raises:
            TerminalError: it cannot run, and why.
        """
        os.umask(0o077)  # whatever it and its children write is for this user only
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for which in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(which, stop.set)
        self._home.create()
        with self._home.lock():
            starting = asyncio.create_task(self._start())
            stopping = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
                if starting.done():
                    starting.result()
                    ready()
                    await self._tend(stopping)
            finally:
                starting.cancel()
                stopping.cancel()
                await asyncio.gather(starting, stopping, return_exceptions=True)
                await self._stop()

    async def _start(self) -> None:
        state = State.read(self._home)
        self._home.check_databases()
        ports = choose_ports(state.ports, self._options.ports)
        self._choice = choice = await self._choose(before=state.engine)
        self._state = State(ports=ports, supervisor=Identity.of(os.getpid()), engine=choice.engine)
        self._state.write(self._home)
        identity = await asyncio.to_thread(pki.ensure, self._home.apiserver)
        async with self._step("Kubernetes API", f"https://{_LOOPBACK}:{ports['apiserver']}"):
            await self._start_apiserver(identity)
        async with self._step("kinds and permissions", ""):
            self._client = await KubeClient.connect(kubeconfig=self._home.kubeconfig, user_agent=USER_AGENT)
            await bootstrap.install(self._client, self._clock)
            await self._renew_credentials()
            await bootstrap.allow_gateway(self._client, namespace="default")
        await self._start_rest()
        self._state = replace(self._state, ready=True)
        self._note_children()
        for child in self._children.values():
            child.keep()

    async def _choose(self, *, before: str) -> Choice:
        """Return what runs pods from now on; containers are removed where it is no longer Docker."""
        wish, image = self._options.runtime, self._options.agent_image
        choice = await asyncio.to_thread(choose, wish, agent_image=image, gateway=self._home.gateway_dir)
        if choice.engine == "docker":
            self._home.open_gateway_dir()
        elif before == "docker":
            await asyncio.to_thread(remove_leftovers, self._home.id)
        return choice

    async def _start_apiserver(self, identity: pki.Pki) -> None:
        home, port = self._home, self._state.ports["apiserver"]
        ready_file = home.apiserver / "ready.json"
        url = f"https://{_LOOPBACK}:{port}"
        options = ["--data-dir", str(home.apiserver), "--bind", _LOOPBACK, "--port", str(port)]
        options += ["--pod-log-dir", str(home.logs / "pods")]
        command = _module("fairlead.localcluster.apiserver", *options)
        child = await self._launch("apiserver", "the API server", command)
        admin = pki.kubeconfig(url, identity)
        self._base = yaml.safe_load(admin)
        write_file(home.kubeconfig, admin.encode())
        node = bootstrap.kubeconfig_for(self._base, f"system:node:{NODE}", token=identity.node_token)
        write_file(home.credentials("podruntime"), node.encode())

        async def ready() -> bool:
            return _says(ready_file, child) and await _answers(f"{url}/readyz", ca=str(identity.ca_cert))

        await child.until(ready, seconds=_START_SECONDS)

    async def _start_rest(self) -> None:
        """Start what needs the API server, together: each waits by itself for what it needs of the others."""
        ports = self._state.ports
        gateway = await self._launch("gateway", "the gateway", _module("fairlead.gateway"), self._gateway_settings())
        operator = await self._launch(
            "operator", "the operator", _module("fairlead.controllers"), self._operator_settings()
        )
        runtime = await self._launch("podruntime", "the pod runtime", self._runtime_command())
        async with self._step("gateway", f"https://{_LOOPBACK}:{ports['gateway']}"):
            await gateway.until(self._gateway_ready, seconds=_START_SECONDS)
        self._report("done", f"sandbox  {await self._sandbox()}")
        async with self._step("operator", ""):
            probe = f"http://{_LOOPBACK}:{ports['operator']}/readyz"
            await operator.until(lambda: _answers(probe), seconds=_START_SECONDS)
        async with self._step("pod runtime", describe(self._choice)):
            await runtime.until(self._node_ready, seconds=_START_SECONDS)

    async def _launch(
        self, name: str, title: str, command: list[str], settings: Mapping[str, str] | None = None
    ) -> Child:
        environment = self._options.environment({"PYTHONUNBUFFERED": "1", **(settings or {})})
        spec = ChildSpec(name, title, command, self._home.logs / f"{name}.log", environment)
        child = self._children[name] = Child(spec, self._clock, changed=self._note_children)
        await child.start()
        return child

    def _common_settings(self, process: str) -> dict[str, str]:
        return {
            "FAIRLEAD_KUBECONFIG": str(self._home.credentials(process)),
            "FAIRLEAD_STORAGE_URL": f"sqlite:///{self._home.database}",
            "FAIRLEAD_NAMESPACE": names.SYSTEM_NAMESPACE,
        }

    def _gateway_settings(self) -> dict[str, str]:
        return {
            **self._common_settings("gateway"),
            "FAIRLEAD_BIND": _LOOPBACK,
            "FAIRLEAD_PORT": str(self._state.ports["gateway"]),
            "FAIRLEAD_HOSTS": orjson.dumps([_LOOPBACK, "localhost"]).decode(),
            "FAIRLEAD_ALLOW_LOOPBACK_MODELS": "true",
            "FAIRLEAD_ALLOW_LOOPBACK_AGENTS": "true",
            **self._gateway_socket(),
        }

    def _gateway_socket(self) -> dict[str, str]:
        docker = self._choice.engine == "docker"
        return {"FAIRLEAD_SOCKET": str(self._home.gateway_dir / GATEWAY_SOCKET)} if docker else {}

    def _operator_settings(self) -> dict[str, str]:
        return {
            **self._common_settings("operator"),
            "FAIRLEAD_GATEWAY_URL": f"https://{_LOOPBACK}:{self._state.ports['gateway']}",
            "FAIRLEAD_PROBE_BIND": _LOOPBACK,
            "FAIRLEAD_PROBE_PORT": str(self._state.ports["operator"]),
            "FAIRLEAD_AGENT_IMAGE": self._options.agent_image,
            "FAIRLEAD_IDENTITY": f"{USER_AGENT}-{NODE}",  # always the same: it takes its own Lease again after a crash
        }

    def _runtime_command(self) -> list[str]:
        home = self._home
        options = ["--kubeconfig", str(home.credentials("podruntime")), "--node-name", NODE]
        options += ["--pods-dir", str(home.pods), "--log-dir", str(home.logs / "pods")]
        options += ["--engine", self._choice.engine, "--home-id", home.id, "--gateway-dir", str(home.gateway_dir)]
        return _module("fairlead.localcluster.podruntime", *options, "--agent-image", self._options.agent_image)

    async def _gateway_ready(self) -> bool:
        """Whether the gateway serves with the certificate that it has published; its address is then written down."""
        assert self._client is not None  # noqa: S101 - connected before anything else starts
        ref = Ref("v1", "ConfigMap", names.GATEWAY_CA_CONFIGMAP, names.SYSTEM_NAMESPACE)
        published = await self._client.get(ref)
        if published is None:
            return False
        write_file(self._home.gateway_ca, published["data"][names.CA_KEY].encode())
        url = f"https://{_LOOPBACK}:{self._state.ports['gateway']}"
        if not await _answers(f"{url}/readyz", ca=str(self._home.gateway_ca)):
            return False
        write_file(self._home.gateway_file, orjson.dumps({"url": url, "ca": str(self._home.gateway_ca)}))
        return True

    async def _sandbox(self) -> str:
        """Return in words what the gateway runs programs in."""
        url = f"https://{_LOOPBACK}:{self._state.ports['gateway']}/v1/namespaces/default/sandbox"
        token = self._base["users"][0]["user"]["token"]
        verify = ssl.create_default_context(cafile=str(self._home.gateway_ca))
        try:
            async with httpx.AsyncClient(verify=verify, trust_env=False, timeout=_SANDBOX_SECONDS) as client:
                answer = await client.get(url, headers={"Authorization": f"Bearer {token}"})
                return describe_sandbox(answer.raise_for_status().json())
        except (httpx.HTTPError, OSError):
            return "not known yet: fairlead doctor says it"

    async def _node_ready(self) -> bool:
        assert self._client is not None  # noqa: S101 - connected before anything else starts
        node = await self._client.get(Ref("v1", "Node", NODE))
        conditions = ((node or {}).get("status") or {}).get("conditions") or ()
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    async def _renew_credentials(self) -> None:
        assert self._client is not None  # noqa: S101 - connected before anything else starts
        for process in ("gateway", "operator"):
            due = self._renewals.get(process)
            if due is None or due <= self._clock.now():
                self._renewals[process] = await bootstrap.write_credentials(
                    self._client,
                    self._clock,
                    account=f"fairlead-{process}",
                    base=self._base,
                    path=self._home.credentials(process),
                )

    async def _tend(self, stopping: asyncio.Task[bool]) -> None:
        """Renew tokens and trim logs until it is time to stop."""
        while not stopping.done():
            await asyncio.wait((stopping,), timeout=_TIDY_SECONDS)
            for child in self._children.values():
                trim_log(child.spec.log)
            try:
                await self._renew_credentials()
            except FairleadError as error:
                _log.warning("credentials_not_renewed", error=str(error))

    async def _stop(self) -> None:
        for name in reversed(list(self._children)):
            self._report("wait", f"stopping {self._children[name].spec.title}")
            await self._children[name].stop(seconds=_STOP_SECONDS[name])
            if name == "podruntime" and self._choice.engine == "docker":  # if it did not get to the end of it
                await asyncio.to_thread(remove_leftovers, self._home.id)
        if self._client is not None:
            await self._client.aclose()
        if self._state.supervisor is not None:
            self._state = replace(self._state, supervisor=None, children={}, ready=False)
            with contextlib.suppress(OSError):
                self._state.write(self._home)

    def _note_children(self) -> None:
        alive = {name: child.identity for name, child in self._children.items()}
        self._state = replace(self._state, children={name: one for name, one in alive.items() if one is not None})
        self._state.write(self._home)

    @contextlib.asynccontextmanager
    async def _step(self, what: str, detail: str) -> AsyncIterator[None]:
        """Report a step when it is done, and that it is waited for when it takes long."""
        patience = asyncio.create_task(self._impatient(what))
        try:
            yield
        finally:
            patience.cancel()
        self._report("done", f"{what}  {detail}".rstrip())

    async def _impatient(self, what: str) -> None:
        await self._clock.sleep(_SILENT_SECONDS)
        self._report("wait", f"waiting for: {what}")


def describe(choice: Choice) -> str:
    """Return what a person is told of what runs pods."""
    if choice.engine == "docker":
        return f"docker: {choice.why}; agents run in containers that reach nothing but the gateway"
    return f"process: pods are local processes of this user and could read what you can read ({choice.why})"


def describe_sandbox(shown: Mapping[str, str]) -> str:
    """Return what a person is told of where programs run."""
    if shown["name"] == "none":
        why = shown["description"].removeprefix("none: ")
        return f"none: code nodes and the tools python and shell are refused ({why})"
    return f"{shown['description']}; programs run there, never in an agent"


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def _says(ready_file: Path, child: Child) -> bool:
    """Whether the process that runs now, and no earlier one, has written that it serves."""
    identity = child.identity
    try:
        return identity is not None and orjson.loads(ready_file.read_bytes())["pid"] == identity.pid
    except (OSError, ValueError, KeyError):
        return False


async def _answers(url: str, *, ca: str | None = None) -> bool:
    verify = ssl.create_default_context(cafile=ca) if ca else False
    try:
        async with httpx.AsyncClient(verify=verify, trust_env=False, timeout=2) as client:
            return (await client.get(url)).is_success
    except (httpx.HTTPError, OSError):
        return False
