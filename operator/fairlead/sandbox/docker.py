"""Sandboxes that are containers of a Docker engine on this machine."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from requests.exceptions import RequestException

from fairlead.sandbox import runner
from fairlead.sandbox.base import Ended, SandboxBroken, SandboxUnavailable
from fairlead.sandbox.jobs import MAX_HEADER, READY, RUNNER_BYTES, Inside
from fairlead.sandbox.owners import is_dead, own_id
from fairlead.sandbox.warm import Box, BoxEnded, Shape

LABEL: Final = "dev.fairlead.sandbox"
USER: Final = 10001
_CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"
_PROXY: Final = "/run/proxy"
_STREAM_HEADER: Final = struct.Struct(">BxxxI")
_STDOUT: Final = 1
_MAX_SAID: Final = 2000
_MAX_INODES: Final = 50_000


class Docker:
    """Starts containers that wait on their standard input for a job."""

    name = "docker"

    def __init__(self, image: str) -> None:
        self._image = image
        self._client: docker.DockerClient | None = None
        self._local = True
        self._tidying: asyncio.Task[None] | None = None

    async def unavailable(self) -> str | None:
        """Ask the engine, and begin to remove what owners that are gone have left there."""
        reason = await asyncio.to_thread(self._look)
        if reason is None and self._tidying is None:
            self._tidying = asyncio.create_task(asyncio.to_thread(self._remove_leftovers))
        return reason

    def _look(self) -> str | None:
        try:
            self._client = docker.from_env(timeout=60)
            self._client.api.trust_env = False  # no proxies, no .netrc: it is a socket
            if not str(self._client.api.base_url).startswith("http+docker://local"):
                return "the Docker engine is on another machine: sandboxes need one that is reached by a Unix socket"
            self._local = "Docker Desktop" not in self._client.info().get("OperatingSystem", "")
            self._client.images.get(self._image)
        except ImageNotFound:
            return f"the Docker engine has no image {self._image}: build it with make images"
        except (DockerException, RequestException) as error:
            return f"no Docker engine answers: {_first_line(error)}"
        return None

    def _remove_leftovers(self) -> None:
        with suppress(DockerException, RequestException):  # what is left now is removed at the next start
            for each in self._api().containers(all=True, filters={"label": LABEL}):
                if is_dead(each["Labels"].get(LABEL, "")):
                    self._remove(each["Id"])

    def _api(self) -> Any:
        if self._client is None:
            raise SandboxBroken("the Docker engine was not asked")
        return self._client.api

    async def start(self, shape: Shape, proxy: Path | None) -> Box:
        """Create, attach and start a container."""
        if proxy is not None and not self._local:
            raise SandboxUnavailable("Docker Desktop's containers cannot reach a Unix socket: no network for programs")
        box = ContainerBox(self._remove, proxy=proxy is not None)
        try:
            await self._call(lambda: self._start(box, shape, proxy))
            await box.ready()
        except BaseException:
            await box.close()
            raise
        return box

    async def _call(self, work: Callable[[], None]) -> None:
        """Do *work* in a thread, to its end even if nobody waits for it any more: what it made has to be known."""
        task = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            raise
        except (DockerException, RequestException) as error:
            raise SandboxBroken(f"the Docker engine made no sandbox: {_first_line(error)}") from error

    def _start(self, box: ContainerBox, shape: Shape, proxy: Path | None) -> None:
        api = self._api()
        body = build_container(self._image, shape, proxy)
        box.container = api.create_container_from_config(body)["Id"]
        response = api.attach_socket(box.container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        box.attach(response)
        api.start(box.container)

    def _remove(self, container: str) -> None:
        with suppress(NotFound):
            try:
                self._api().remove_container(container, force=True, v=True)
            except APIError as error:
                if error.status_code != 409:  # noqa: PLR2004 - Conflict: it is being removed already
                    raise

    async def aclose(self) -> None:
        """Tidy up to the end, and close the connections to the engine."""
        if self._tidying is not None:
            await asyncio.wait([self._tidying])
        if self._client is not None:
            await asyncio.to_thread(self._client.close)


def build_container(image: str, shape: Shape, proxy: Path | None) -> dict[str, Any]:
    """Return what the engine is asked for: pure."""
    memory = shape.memory_bytes + RUNNER_BYTES + shape.disk_bytes  # the working directory is in memory, too
    return {
        "Image": image,
        "User": f"{USER}:{USER}",
        "WorkingDir": runner.WORK,
        "Hostname": "sandbox",
        "Env": [],
        "Labels": {LABEL: own_id()},
        "OpenStdin": True,
        "StdinOnce": True,  # when whoever asked is gone the runner reads the end, and ends
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "NetworkDisabled": True,
        "HostConfig": {
            "NetworkMode": "none",
            "IpcMode": "none",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Memory": memory,
            "MemorySwap": memory,
            "PidsLimit": shape.processes + (1 if proxy is None else 2),
            "NanoCpus": 10**9,
            "OomScoreAdj": 500,
            "LogConfig": {"Type": "none"},
            "RestartPolicy": {"Name": "no"},
            "Tmpfs": {
                runner.WORK: f"rw,exec,nosuid,nodev,size={shape.disk_bytes},nr_inodes={_MAX_INODES},mode=0700,"
                f"uid={USER},gid={USER}",
                "/dev/shm": "rw,noexec,nosuid,nodev,size=1m,mode=1777",  # noqa: S108
            },
            "Binds": [] if proxy is None else [f"{proxy}:{_PROXY}:ro"],
        },
    }


class ContainerBox:
    """One container, and the connection to its standard streams."""

    def __init__(self, remove: Callable[[str], None], *, proxy: bool) -> None:
        self.inside = Inside(proxy=f"{_PROXY}/proxy.sock" if proxy else "", certificates=_CERTIFICATES if proxy else "")
        self.container = ""
        self._remove = remove
        self._response: Any = None
        self._socket: socket.socket | None = None
        self._raw = bytearray()
        self._said = bytearray()
        self._errors = bytearray()
        self._ended = False

    def attach(self, response: Any) -> None:
        """Take over the connection."""
        self._response = response._response  # noqa: SLF001 - what the SDK gives is a file of it
        self._socket = response._sock  # noqa: SLF001 - asyncio wants a socket
        self._socket.settimeout(0)

    async def ready(self) -> None:
        """Wait until the runner is there."""
        with suppress(BoxEnded):
            if await self.line() == READY:
                return
        said = self._errors.decode(errors="replace").strip()
        raise SandboxBroken(f"the container did not become a sandbox: {said or 'it said nothing'}")

    def alive(self) -> bool:
        """Whether its connection is open: the engine closes it when the container ends."""
        if self._socket is None or self._ended:
            return False
        try:
            return self._socket.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    async def send(self, data: bytes) -> None:
        """Write to the runner."""
        if self._socket is not None:
            with suppress(OSError):  # if it has ended, reading says so
                await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def line(self) -> bytes:
        """Read the runner's header."""
        line = b""
        while len(line) <= MAX_HEADER and not line.endswith(b"\n"):
            line += await self.body(1)
        return line

    async def body(self, size: int) -> bytes:
        """Read from the runner."""
        while len(self._said) < size:
            if self._ended:
                raise BoxEnded(Ended.KILLED, "the whole sandbox ended before it had a result")
            await self._read()
        found = bytes(self._said[:size])
        del self._said[:size]
        return found

    async def _read(self) -> None:
        piece = b""
        if self._socket is not None:
            with suppress(OSError):
                piece = await asyncio.get_running_loop().sock_recv(self._socket, 1 << 16)
        self._ended = not piece
        self._raw += piece
        while len(self._raw) >= _STREAM_HEADER.size:
            stream, size = _STREAM_HEADER.unpack_from(self._raw)
            end = _STREAM_HEADER.size + size
            if len(self._raw) < end:
                break
            content = self._raw[_STREAM_HEADER.size : end]
            if stream == _STDOUT:
                self._said += content
            else:
                self._errors += content[: _MAX_SAID - len(self._errors)]
            del self._raw[:end]

    async def close(self) -> None:
        """Remove the container, running or not, and close the connection."""
        if self._socket is not None:
            self._response.close()
            self._socket.close()
            self._socket = None
        container, self.container = self.container, ""
        if container:
            with suppress(DockerException, RequestException):  # what is left now is removed at the next start
                await asyncio.to_thread(self._remove, container)


def _first_line(error: Exception) -> str:
    return str(getattr(error, "explanation", "") or error).splitlines()[0][:300]
