"""The way out of a sandbox: an HTTP proxy on a Unix socket of its own, to the hosts that its job names and no others.

A host is compared as it is written; where it leads is then judged as every address that somebody else supplied. Both
manners of a proxy are there, a tunnel (``CONNECT``) and a request with an absolute URL; the latter is passed on with
the host of that URL, one request a connection, so that none is smuggled to another host behind the same address.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from fairlead.egress import Lookups, Policy, Resolver, check_address, check_url
from fairlead.errors import Refused

PORTS: Final = {"http": 80, "https": 443}
SOCKET: Final = "proxy.sock"
_MAX_HEAD: Final = 16 << 10
_MAX_BYTES: Final = 64 << 20
"""In each direction, of one job."""
_MAX_CONNECTIONS: Final = 16
_HEAD_SECONDS: Final = 10.0
_CONNECT_SECONDS: Final = 15.0
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+:.*")
_PIECE: Final = 1 << 16
_DROPPED: Final = frozenset({"host", "connection", "proxy-connection", "proxy-authorization", "keep-alive", "upgrade"})


class Refusal(Exception):
    """What the proxy itself answers: that it does not, or cannot, do it."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Target:
    """Where a connection goes, and what is sent there first."""

    host: str
    port: int
    head: bytes = b""
    """Empty: a tunnel."""
    body: int = 0
    """Bytes that follow the head."""


class Proxy:
    """Serves one job."""

    def __init__(self, hosts: tuple[str, ...], *, policy: Policy, resolver: Resolver, ports: tuple[int, ...]) -> None:
        self._hosts = frozenset(hosts)
        self._policy = policy
        self._resolver = resolver
        self._ports = ports
        self._left = {"up": _MAX_BYTES, "down": _MAX_BYTES}
        self._open = 0

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serve one connection."""
        self._open += 1
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                target = parse_head(await _read_head(reader))
            await self._connect(target, reader, writer)
        except Refusal as answer:
            await _say(writer, answer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # either side went away
        finally:
            self._open -= 1
            writer.close()

    async def _connect(self, target: Target, reader: StreamReader, writer: StreamWriter) -> None:
        if self._open > _MAX_CONNECTIONS:
            raise Refusal("503 Service Unavailable", f"at most {_MAX_CONNECTIONS} connections at a time")
        far_reader, far_writer = await _open(target, await self._addresses(target))
        try:
            if target.head:
                far_writer.write(target.head)
                await self._pass_on(reader, far_writer, "up", most=target.body)
                await self._pass_on(far_reader, writer, "down")
            else:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await self._both_ways((reader, writer), (far_reader, far_writer))
        finally:
            far_writer.close()

    async def _both_ways(self, near: tuple[StreamReader, StreamWriter], far: tuple[StreamReader, StreamWriter]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(near[0], far[1], "up"))
                group.create_task(self._pass_on(far[0], near[1], "down"))
        except* OSError:
            pass  # either side went away

    async def _addresses(self, target: Target) -> list[str]:
        """Return the addresses that may be connected to: they are judged, not the name."""
        if target.host not in self._hosts:
            raise Refusal("403 Forbidden", f"the host {target.host!r} is not in the allow-list of this program")
        if target.port not in self._ports:
            raise Refusal("403 Forbidden", f"the port {target.port} is not allowed: 80 and 443 are")
        try:
            check_url(f"http://{target.host}:{target.port}/")
            async with asyncio.timeout(_CONNECT_SECONDS):
                addresses = await self._resolver(target.host, target.port)
            return [str(check_address(address, self._policy)) for address in addresses]
        except Refused as error:
            raise Refusal("403 Forbidden", str(error)) from error
        except (OSError, TimeoutError) as error:
            raise Refusal("502 Bad Gateway", f"{target.host} cannot be resolved") from error

    async def _pass_on(self, source: StreamReader, target: StreamWriter, way: str, *, most: int | None = None) -> None:
        left = most
        while left is None or left > 0:
            piece = await source.read(_PIECE if left is None else min(left, _PIECE))
            if not piece:
                break
            self._left[way] -= len(piece)
            if self._left[way] < 0:
                raise ConnectionError("this program has sent or received as much as it may")
            target.write(piece)
            await target.drain()
            left = None if left is None else left - len(piece)
        if most is None and target.can_write_eof():
            with suppress(OSError):
                target.write_eof()


async def _open(target: Target, addresses: list[str]) -> tuple[StreamReader, StreamWriter]:
    for address in addresses:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CONNECT_SECONDS / len(addresses)):
                return await asyncio.open_connection(address, target.port)
    raise Refusal("502 Bad Gateway", f"{target.host} does not answer")


async def _read_head(reader: StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise Refusal("431 Request Header Fields Too Large", "the request's head is too large") from error


def parse_head(head: bytes) -> Target:
    """Return where a request wants to go: pure.

    Raises:
        Refusal: it is none that a proxy takes.
    """
    lines = head.decode("latin-1")[:-4].split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or any(sign in head.replace(b"\r\n", b"") for sign in b"\r\n\0"):  # noqa: PLR2004
        raise Refusal("400 Bad Request", "this is no request")
    method, where, _ = parts
    if method == "CONNECT":
        host, _, port = where.rpartition(":")
        if not port.isdigit() or len(port) > 5:  # noqa: PLR2004 - digits of a port
            raise Refusal("400 Bad Request", "CONNECT needs host:port")
        return Target(host.lower(), int(port))
    return _request(method, where, lines[1:])


def _request(method: str, where: str, lines: list[str]) -> Target:
    try:
        url = check_url(where)
    except Refused as error:
        raise Refusal("403 Forbidden", str(error)) from error
    if url.scheme != "http":
        raise Refusal("400 Bad Request", "https goes through CONNECT")
    if not all(_HEADER.fullmatch(line) for line in lines):
        raise Refusal("400 Bad Request", "a line of the request's head is no header")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    sizes = [value for name, value in headers if name.lower() == "content-length"]
    if any(name.lower() == "transfer-encoding" for name, _ in headers):
        raise Refusal("411 Length Required", "a request's body needs a Content-Length")
    if len(sizes) > 1 or not all(size.isascii() and size.isdigit() for size in sizes):
        raise Refusal("400 Bad Request", "the Content-Length is no number")
    kept = [f"{name}: {value}" for name, value in headers if name.lower() not in _DROPPED]
    start = f"{method} {url.raw_path.decode('ascii')} HTTP/1.1"
    head = "\r\n".join([start, f"Host: {_authority(url)}", "Connection: close", *kept, "", ""])
    return Target(url.host, url.port or PORTS["http"], head.encode("latin-1"), int(sizes[0]) if sizes else 0)


def _authority(url: httpx.URL) -> str:
    return url.netloc.decode("ascii")


async def _say(writer: StreamWriter, answer: Refusal) -> None:
    text = f"{answer}\n".encode()
    head = f"HTTP/1.1 {answer.status}\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n"
    with suppress(OSError):
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + text)
        await writer.drain()


@dataclass(frozen=True, slots=True)
class Proxies:
    """Makes a proxy for each job that has a network."""

    policy: Policy = field(default_factory=Policy)
    resolver: Resolver = field(default_factory=Lookups)
    ports: tuple[int, ...] = tuple(PORTS.values())

    @asynccontextmanager
    async def __call__(self, hosts: tuple[str, ...]) -> AsyncIterator[Path]:
        """Serve a proxy while the block runs; yield the folder with its socket."""
        proxy = Proxy(hosts, policy=self.policy, resolver=self.resolver, ports=self.ports)
        tasks: set[asyncio.Task[None]] = set()

        def serve(reader: StreamReader, writer: StreamWriter) -> None:
            task = asyncio.create_task(proxy.serve(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="fairlead-proxy-"))
        try:
            server = await asyncio.start_unix_server(serve, folder / SOCKET, limit=_MAX_HEAD)
            # The sandbox's user is another one. Who finds this folder, with its random name, gets no further than it.
            os.chmod(folder, 0o711)  # noqa: PTH101, S103
            os.chmod(folder / SOCKET, 0o666)  # noqa: PTH101, S103
            try:
                yield folder
            finally:
                server.close()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
