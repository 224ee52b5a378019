from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.localcluster.apiserver import pki
from fairlead.localcluster.apiserver.app import Application
from fairlead.localcluster.apiserver.audit import AuditLog
from fairlead.localcluster.apiserver.cluster import Cluster
from fairlead.localcluster.apiserver.server import open_cluster
from fairlead.testing.clock import FakeClock

Json = dict[str, Any]


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> pki.Pki:
    return pki.ensure(tmp_path_factory.mktemp("identity"))


class StillClock(FakeClock):
    """Time that passes only when the test says so: who sleeps, sleeps until the end."""

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.Event().wait()


@pytest.fixture
def clock() -> FakeClock:
    return StillClock()


@pytest.fixture
async def cluster(tmp_path: Path, identity: pki.Pki, clock: FakeClock) -> AsyncIterator[Cluster]:
    async with open_cluster(tmp_path, identity, clock=clock, pod_log_dir=tmp_path / "logs") as opened:
        yield opened


class Client:
    """Speaks ASGI to the application, as the administrator."""

    def __init__(self, app: Application, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json", token: str | None = None
    ) -> tuple[int, Any]:
        url, _, query = path.partition("?")
        headers = [(b"authorization", f"Bearer {token or self._token}".encode()), (b"content-type", kind.encode())]
        scope = {"type": "http", "method": method, "path": url, "query_string": query.encode(), "headers": headers}
        sent: list[Any] = []
        data = b"" if body is None else json.dumps(body).encode()

        async def receive() -> Any:
            return {"type": "http.request", "body": data}

        async def send(message: Any) -> None:
            sent.append(message)

        async with asyncio.timeout(20):
            await self._app(scope, receive, send)
        text = b"".join(message.get("body", b"") for message in sent[1:])
        return sent[0]["status"], json.loads(text)


@pytest.fixture
def call(cluster: Cluster, identity: pki.Pki, tmp_path: Path) -> Iterator[Client]:
    audit = AuditLog(tmp_path / "audit.log")
    yield Client(Application(cluster, audit), identity.admin_token)
    audit.close()
