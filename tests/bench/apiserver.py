"""The embedded API server next to the least that could serve objects on the same web server, both over TLS."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from tests.bench.harness import Arm, Comparison
from tests.bench.http1 import Connection

from fairlead.localcluster.apiserver import pki
from fairlead.testing.apiserver import ApiServer, running_apiserver
from fairlead.testing.kubectl import free_port

MADE = "/api/v1/namespaces/made/configmaps"
KEPT = "/api/v1/namespaces/kept/configmaps"
_CONNECTIONS = 8
_WATCHERS = 20
_KEPT = 100


def config_map(name: str, **data: str) -> bytes:
    """Return an object of about 1.8 KB."""
    text = {f"key-{number}": "some text of some length " * 7 for number in range(10)}
    metadata = {"name": name, "labels": {"app": "bench"}}
    return orjson.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": text | data})


@dataclass
class Client:
    """What is measured against one server. Every operation finds the objects that it needs."""

    url: str
    token: str
    context: ssl.SSLContext
    pid: int
    connections: list[Connection] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def connect(self) -> Connection:
        """Open one more connection."""
        return await Connection.open(self.url, context=self.context, token=self.token)

    async def start(self) -> None:
        """Connect, and make what lists and reads look at."""
        self.connections = [await self.connect() for _ in range(_CONNECTIONS)]
        for name in ("made", "kept"):
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            await self._all("POST", [("/api/v1/namespaces", orjson.dumps(namespace))])
        await self._all("POST", [(KEPT, config_map(f"kept-{number}")) for number in range(_KEPT)])

    async def create(self, count: int) -> Sequence[float]:
        """Create objects."""
        return await self._all("POST", [(MADE, config_map(self._name())) for _ in range(count)])

    async def read(self, count: int) -> Sequence[float]:
        """Read single objects."""
        return await self._all("GET", [(f"{KEPT}/kept-{number % _KEPT}", b"") for number in range(count)])

    async def list(self, count: int) -> Sequence[float]:
        """List a hundred objects."""
        return await self._all("GET", [(KEPT, b"")] * count)

    async def update(self, count: int) -> Sequence[float]:
        """Replace objects."""
        turn = self._name()
        names = [f"kept-{number % _KEPT}" for number in range(count)]
        return await self._all("PUT", [(f"{KEPT}/{name}", config_map(name, turn=turn)) for name in names])

    async def delete(self, count: int) -> Sequence[float]:
        """Create objects and delete them; a deletion alone has nothing to delete the second time."""
        names = [self._name() for _ in range(count)]
        await self._all("POST", [(MADE, config_map(name)) for name in names])
        return await self._all("DELETE", [(f"{MADE}/{name}", b"") for name in names])

    async def watch(self, count: int) -> Sequence[float]:
        """Create objects until every watcher has seen its share of *count* events."""
        names = {self._name() for _ in range(count // _WATCHERS)}
        _, answer = await self.connections[0].request("GET", f"{MADE}?limit=1")
        since = orjson.loads(answer)["metadata"]["resourceVersion"]
        watchers = [await self.connect() for _ in range(_WATCHERS)]
        streams = [await watcher.stream(f"{MADE}?watch=1&resourceVersion={since}") for watcher in watchers]
        seen = [asyncio.create_task(_see(stream, set(names))) for stream in streams]
        await self._all("POST", [(MADE, config_map(name)) for name in names])
        await asyncio.gather(*seen)
        for watcher in watchers:
            watcher.drop()
        return ()

    def _name(self) -> str:
        return f"made-{next(self._numbers)}"

    async def _all(self, method: str, calls: Sequence[tuple[str, bytes]]) -> Sequence[float]:
        """Make calls over all connections at once."""
        todo = iter(calls)

        async def work(connection: Connection) -> list[float]:
            taken = []
            for path, body in todo:
                start = time.perf_counter()
                status, answer = await connection.request(method, path, body)
                taken.append(time.perf_counter() - start)
                if status >= 300:
                    raise RuntimeError(f"{method} {path}: {status} {answer[:300]!r}")
            return taken

        return [each for taken in await asyncio.gather(*map(work, self.connections)) for each in taken]


async def _see(stream: AsyncIterator[bytes], missing: set[str]) -> None:
    """Read a watch until every one of the names was seen."""
    rest = b""
    async for piece in stream:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            missing.discard(orjson.loads(line)["object"]["metadata"]["name"])
        if not missing:
            return


@asynccontextmanager
async def _floor(server: ApiServer) -> AsyncIterator[Client]:
    """Start the floor with the real server's certificate."""
    assert server.data_dir is not None
    identity = pki.ensure(server.data_dir)
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.floor_server", str(port), str(identity.cert), str(identity.key)]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        client = Client(f"https://127.0.0.1:{port}", "none", _trusting(server), process.pid)
        await _started(client)
        yield client
    finally:
        process.kill()  # it has nothing to lose
        await process.wait()


async def _started(client: Client) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await client.start()
            except OSError:
                await asyncio.sleep(0.05)
            else:
                return


def _trusting(server: ApiServer) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(server.ca_file))


@asynccontextmanager
async def comparisons(folder: Path) -> AsyncIterator[list[Comparison]]:
    """Start both servers and yield what to compare."""
    with running_apiserver(folder) as server:
        assert server.process is not None
        ours = Client(server.url, server.admin_token, _trusting(server), server.process.pid)
        await ours.start()
        async with _floor(server) as floor:

            def arms(operation: str) -> list[Arm]:
                return [
                    Arm("bare ASGI", getattr(floor, operation), lambda: [floor.pid]),
                    Arm("API server", getattr(ours, operation), lambda: [ours.pid]),
                ]

            yield [
                Comparison("create a ConfigMap of 1.8 KB", 300, arms("create")),
                Comparison("get one", 500, arms("read")),
                Comparison("list 100", 60, arms("list")),
                Comparison("replace one", 300, arms("update")),
                Comparison("create and delete one", 200, arms("delete")),
                Comparison(f"deliver an event to one of {_WATCHERS} watchers", 2000, arms("watch")),
            ]
