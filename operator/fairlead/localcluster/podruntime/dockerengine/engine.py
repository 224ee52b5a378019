"""Runs containers with Docker. The engine's client is synchronous: it works in threads."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import docker
from docker.errors import APIError, NotFound

from fairlead.errors import InvalidObject, Unavailable
from fairlead.localcluster.podruntime.dockerengine import labels, options
from fairlead.localcluster.podruntime.dockerengine.belongings import Belongings
from fairlead.localcluster.podruntime.dockerengine.following import TROUBLE, Follower, moment_of
from fairlead.localcluster.podruntime.dockerengine.images import Image, Images, registry_auth
from fairlead.localcluster.podruntime.engine import Adopted, Ended, Launch
from fairlead.localcluster.podruntime.environment import build_environment
from fairlead.localcluster.podruntime.logs import LogFile
from fairlead.localcluster.podruntime.state import Json
from fairlead.localcluster.podruntime.volumes import Access

_THREADS: Final = 16
_PROBING: Final = 16
"""Commands that run in containers at a time: they may hang, and nothing else waits for them."""
_PATIENCE_SECONDS: Final = 86_400
"""How long a container may say nothing until its log is asked for anew."""
_SERVER_ERROR: Final = 500
_NOT_RUNNING: Final = 409
_SAID: Final = 4096
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the containers of a home belong."""

    home: str
    """The home's id: everything in the engine is labelled with it."""
    gateway: Path
    """The folder that holds the gateway's socket, and nothing else."""
    agent_image: str


class DockerEngine:
    """Runs containers of a local Docker engine."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._client = client = docker.from_env()
        self._patient = docker.from_env(timeout=_PATIENCE_SECONDS)
        self._threads = ThreadPoolExecutor(_THREADS, "docker")
        self._probing = ThreadPoolExecutor(_PROBING, "docker exec")
        self._images = Images(client, self._threads)
        self._belongings = Belongings(client, place.home)
        self._network = threading.Lock()
        self._addresses: dict[str, str] = {}
        self._version = client.version()["Version"]

    @property
    def version(self) -> str:
        """What the node says of it."""
        return f"docker://{self._version}"

    def access(self, pod: Json) -> Access:
        """Return that the pod's group may read them; or every user of the pod, where files cannot be given away."""
        group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
        if group is None or os.geteuid() != 0:
            return Access(folders=0o755, files=0o644)
        return Access(folders=0o750, files=0o640, group=int(group))

    async def start(self, launch: Launch) -> DockerContainer:
        """Start a container, and before it whatever the pod's containers share."""
        pod, spec = launch.pod, launch.spec
        image = await self._images.get(spec, lambda registry: registry_auth(_pull_secrets(launch), registry))
        options.check_user(pod, spec, image_user=image.user)
        sandbox = ""
        if options.needs_sandbox(pod):
            sandbox = await self._call(self._ensure_sandbox, pod)
        address = {"podIP": self._addresses.get(pod["metadata"]["uid"], "")}
        known = {**pod, "status": {**(pod.get("status") or {}), **address}}
        environment = build_environment(known, spec, launch.volumes.lookup)
        ident = await self._call(self._create, launch, environment, sandbox)
        return self._follow(pod, ident, image, launch.log)

    async def adopt(
        self, pod: Json, open_log: Callable[[str, int], LogFile], *, over: Collection[str]
    ) -> Mapping[str, Adopted]:
        """Return the newest start of each container that an earlier runtime left; remove what never started."""
        uid = pod["metadata"]["uid"]
        newest: dict[str, tuple[int, str]] = {}
        for each in await self._call(self._belongings.containers, uid):
            name, attempt = each["Labels"].get(labels.CONTAINER), int(each["Labels"].get(labels.ATTEMPT, "0"))
            if name and each["State"] == "created":
                await self._call(self._belongings.remove_container, each["Id"])
            elif name and newest.get(name, (-1, ""))[0] < attempt:
                newest[name] = (attempt, each["Id"])
        if newest and options.needs_sandbox(pod):
            await self._call(self._ensure_sandbox, pod)
        return {
            name: await self._adopt(pod, ident, attempt, open_log(name, attempt))
            for name, (attempt, ident) in newest.items()
            if f"docker://{ident}" not in over
        }

    async def _adopt(self, pod: Json, ident: str, attempt: int, log: LogFile) -> Adopted:
        found = await self._call(self._client.api.inspect_container, ident)
        image = await self._call(self._images.find, found["Image"])
        running = self._follow(pod, ident, image or Image(found["Image"], "", (), "SIGTERM"), log)
        started = moment_of(found["State"]["StartedAt"])
        if started is None:
            raise Unavailable(f"the engine does not say when {ident} was started")
        return Adopted(running, attempt, started)

    async def address(self, pod: Json) -> str:
        """Return the pod's address; empty if it has no network, or none yet."""
        return self._addresses.get(pod["metadata"]["uid"], "")

    async def remove(self, pod: Json) -> None:
        """Remove the pod's containers and volumes."""
        uid = pod["metadata"]["uid"]
        await self._call(self._belongings.remove_pod, uid)
        self._addresses.pop(uid, None)

    async def sweep(self, known: Collection[str]) -> int:
        """Remove what belongs to no pod of *known* uids."""
        return await self._call(self._belongings.sweep, known)

    async def aclose(self) -> None:
        """Remove everything that this home has in the engine."""
        await self._call(self._belongings.clear)
        self._threads.shutdown(wait=False)
        self._probing.shutdown(wait=False)

    def _follow(self, pod: Json, ident: str, image: Image, log: LogFile) -> DockerContainer:
        container = DockerContainer(self, ident, image, address=self._addresses.get(pod["metadata"]["uid"], ""))
        Follower(self._patient, ident, log, tell=container.told).start()
        return container

    async def signal(self, ident: str, which: str) -> None:
        """Send a signal to a container; one that has ended needs none."""

        def send() -> None:
            try:
                self._client.api.kill(ident, which)
            except NotFound:
                return
            except APIError as error:
                if error.status_code != _NOT_RUNNING:
                    raise

        await self._call(send)

    async def execute(self, ident: str, command: Sequence[str]) -> tuple[int, str]:
        """Run a command in a container until it ends; return its exit code and the beginning of what it said."""
        api = self._client.api

        def execute() -> tuple[int, str]:
            made = api.exec_create(ident, list(command))["Id"]
            said = beginning(api.exec_start(made, stream=True))
            return int(api.exec_inspect(made)["ExitCode"] or 0), said.decode(errors="replace")

        return await self._call_in(self._probing, execute)

    async def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._call_in(self._threads, lambda: function(*args, **kwargs))

    async def _call_in(self, threads: ThreadPoolExecutor, function: Callable[[], T]) -> T:
        """Call something that talks to the engine.

        Raises:
            InvalidObject: the engine refuses.
            Unavailable: it does not answer.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(threads, function)
        except APIError as error:
            status = error.status_code or _SERVER_ERROR
            reason = "CreateContainerError" if status < _SERVER_ERROR else "RunContainerError"
            raise InvalidObject(str(error.explanation or error), reason=reason) from error
        except TROUBLE as error:
            raise Unavailable(f"Docker does not answer: {error}") from error

    def _create(self, launch: Launch, environment: Mapping[str, str], sandbox: str) -> str:
        """Create and start a container in the place of the one that ran before it."""
        pod, spec = launch.pod, launch.spec
        for old in self._belongings.containers(pod["metadata"]["uid"]):
            if old["Labels"].get(labels.CONTAINER) == spec["name"]:
                self._belongings.remove_container(old["Id"])
        self._ensure_volumes(pod)
        made = self._client.containers.create(
            spec["image"],
            name=labels.container_name(pod, spec["name"], launch.attempt),
            labels=labels.container_labels(self._place.home, pod, container=spec["name"], attempt=launch.attempt),
            mounts=self._mounts(launch),
            **options.container_options(pod, spec, environment),
            **options.network_options(pod, sandbox=sandbox),
        )
        return self._started(str(made.id))

    def _started(self, ident: str) -> str:
        try:
            self._client.api.start(ident)
        except BaseException:
            self._belongings.remove_container(ident)
            raise
        return ident

    def _mounts(self, launch: Launch) -> list[docker.types.Mount]:
        empty = options.empty_dirs(launch.pod)
        mounts = [options.gateway_mount(str(self._place.gateway))] if options.is_agent(launch.pod) else []
        for mount in launch.spec.get("volumeMounts") or ():
            name = mount["name"]
            source = labels.volume_name(launch.pod, name) if name in empty else str(launch.volumes.source(mount))
            mounts.append(options.volume_mount(mount, source, empty=name in empty))
        return mounts

    def _ensure_volumes(self, pod: Json) -> list[str]:
        marks = labels.pod_labels(self._place.home, pod)
        made = {labels.volume_name(pod, name): how for name, how in options.empty_dirs(pod).items()}
        for name, how in made.items():
            self._client.api.create_volume(name, driver="local", driver_opts=how, labels=marks)
        return list(made)

    def _ensure_sandbox(self, pod: Json) -> str:
        """Return the container that holds what the pod's containers share, and note its address."""
        uid = pod["metadata"]["uid"]
        ident = ""
        for each in self._belongings.containers(uid):
            if each["Labels"].get(labels.CONTAINER) != labels.SANDBOX:
                continue
            if each["State"] == "running":
                ident = each["Id"]
            else:
                self._belongings.remove_container(each["Id"])
        ident = ident or self._start_sandbox(pod)
        networks = self._client.api.inspect_container(ident)["NetworkSettings"]["Networks"]
        self._addresses[uid] = next((each["IPAddress"] for each in networks.values()), "")
        return ident

    def _start_sandbox(self, pod: Json) -> str:
        image = self._images.find(self._place.agent_image)
        if image is None:
            text = f'the agent image "{self._place.agent_image}" is not there any more: make image'
            raise InvalidObject(text, reason="CreatePodSandboxError")
        network = "" if options.is_agent(pod) else self._ensure_network()
        made = self._client.containers.create(
            image.ident,
            name=labels.container_name(pod, labels.SANDBOX, 0),
            labels=labels.container_labels(self._place.home, pod, container=labels.SANDBOX, attempt=0),
            **options.sandbox_options(
                pod,
                python=(*image.entrypoint, "python3")[0],
                network=network,
                volumes=self._ensure_volumes(pod),
            ),
        )
        return self._started(str(made.id))

    def _ensure_network(self) -> str:
        name = labels.network_name(self._place.home)
        with self._network:
            if not self._client.api.networks(names=[name]):
                marks = {labels.HOME: self._place.home}
                self._client.api.create_network(
                    name, driver="bridge", internal=True, labels=marks, check_duplicate=True
                )
        return name


class DockerContainer:
    """One start of a container."""

    def __init__(self, engine: DockerEngine, ident: str, image: Image, *, address: str) -> None:
        self._engine, self._id, self._image, self._address = engine, ident, image, address
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[Ended] = self._loop.create_future()
        self._overdue: set[asyncio.Task[tuple[int, str]]] = set()

    @property
    def ident(self) -> str:
        """The container, as the API names it."""
        return f"docker://{self._id}"

    @property
    def image_id(self) -> str:
        """The image that it was made from."""
        return f"docker://{self._image.ident}"

    @property
    def address(self) -> str:
        """The pod's; empty: it has no network."""
        return self._address

    @property
    def facts(self) -> Mapping[str, Any]:
        """The engine's id of it."""
        return {"container_id": self._id[:12]}

    def told(self, ended: Ended) -> None:
        """Take note of its end; called in another thread."""

        def note() -> None:
            if not self._ended.done():
                self._ended.set_result(ended)

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(note)

    async def wait(self) -> Ended:
        """Return how it ended, once all that it said is in its log."""
        return await asyncio.shield(self._ended)

    async def stop(self) -> None:
        """Send the signal that its image wants to be asked by."""
        await self._signal(self._image.stop_signal)

    async def kill(self) -> None:
        """End it."""
        await self._signal("SIGKILL")

    async def execute(self, command: Sequence[str], *, seconds: float) -> tuple[int, str]:
        """Run a command in it; not before those that nobody waited for any more have ended: they hold a thread each."""
        async with asyncio.timeout(seconds):
            while self._overdue:
                await asyncio.wait(tuple(self._overdue))
            running = asyncio.create_task(self._engine.execute(self._id, command))
            try:
                return await asyncio.shield(running)
            finally:
                if not running.done():
                    self._overdue.add(running)
                    running.add_done_callback(self._forget)

    def _forget(self, ended: asyncio.Task[tuple[int, str]]) -> None:
        self._overdue.discard(ended)
        if not ended.cancelled():
            ended.exception()  # nobody asks for it any more

    async def _signal(self, which: str) -> None:
        await self._engine.signal(self._id, which)


def beginning(pieces: Iterable[bytes]) -> bytes:
    """Return the first bytes of what is said, once all of it was; the rest is not kept."""
    said = b""
    for piece in pieces:
        said += piece[: _SAID - len(said)]
    return said


def _pull_secrets(launch: Launch) -> list[Mapping[str, bytes]]:
    wanted = launch.pod["spec"].get("imagePullSecrets") or ()
    found = [launch.volumes.lookup("Secret", each["name"]) for each in wanted]
    return [secret for secret in found if secret is not None]
