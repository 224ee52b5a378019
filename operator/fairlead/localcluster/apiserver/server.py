"""One running server: opens the data folder, serves, and closes in order."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import uvicorn

from fairlead.clock import Clock, SystemClock
from fairlead.errors import Refused
from fairlead.localcluster.apiserver import pki
from fairlead.localcluster.apiserver.app import Application
from fairlead.localcluster.apiserver.audit import AuditLog
from fairlead.localcluster.apiserver.authn import static_users
from fairlead.localcluster.apiserver.builtins import builtin_resources
from fairlead.localcluster.apiserver.cluster import Cluster
from fairlead.localcluster.apiserver.controllers import Controllers
from fairlead.localcluster.apiserver.rbac import Authorizer
from fairlead.localcluster.apiserver.resources import Registry
from fairlead.localcluster.apiserver.store import Store
from fairlead.localcluster.apiserver.tokens import Tokens

DATA_FILE = "cluster.db"
AUDIT_FILE = "audit.log"
READY_FILE = "ready.json"
_GRACE_SECONDS = 5
_IDLE_SECONDS = 0.5
_ANY = frozenset({"0.0.0.0", "::"})  # noqa: S104 - what means every address, not where we listen
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How to run."""

    data_dir: Path
    bind: str = "127.0.0.1"
    port: int = 0
    pod_log_dir: Path | None = None
    hosts: tuple[str, ...] = ()
    """Further names and addresses that the certificate is for."""


class _Uvicorn(uvicorn.Server):
    """Leaves signals to us: the data file is closed after the last answer, not killed with the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def open_cluster(
    data_dir: Path, identity: pki.Pki, *, clock: Clock | None = None, pod_log_dir: Path | None = None
) -> AsyncIterator[Cluster]:
    """Yield the cluster in *data_dir*, its controllers running; a task that dies takes it down.

    Raises:
        Refused: another server has the folder, or a newer version wrote it.
    """
    time = clock or SystemClock()
    with _locked(data_dir):
        store = Store.open(data_dir / DATA_FILE)
        registry = Registry()
        for resource in builtin_resources():
            registry.add(resource)
        cluster = Cluster(
            store=store,
            registry=registry,
            authorizer=Authorizer(store),
            tokens=Tokens(identity.service_account_key, store, clock=time),
            clock=time,
            ca_pem=identity.ca_pem(),
            static_users=static_users(identity.admin_token, identity.node_token),
            pod_log_dir=pod_log_dir,
        )
        controllers = Controllers(cluster)
        controllers.start()
        tasks = [asyncio.create_task(store.run()), asyncio.create_task(controllers.run())]
        for task in tasks:
            task.add_done_callback(lambda _: cluster.closing.set())
        try:
            await store.settled()
            yield cluster
        finally:
            await _stop(cluster, tasks)


async def _stop(cluster: Cluster, tasks: list[asyncio.Task[None]]) -> None:
    cluster.closing.set()
    commits, controllers = tasks
    controllers.cancel()
    if not commits.done():
        await cluster.store.settled()
    commits.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    await cluster.store.close()
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


@contextlib.contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Refused(f"Another API server is using {data_dir}.", reason="DataFolderInUse") from None
    finally:
        os.close(descriptor)


async def serve(options: ServerOptions) -> None:
    """Serve until told to stop."""
    options.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    hosts = [host for host in (*_LOOPBACK, options.bind, *options.hosts) if host not in _ANY]
    identity = pki.ensure(options.data_dir, hosts)
    async with open_cluster(options.data_dir, identity, pod_log_dir=options.pod_log_dir) as cluster:
        audit = AuditLog(options.data_dir / AUDIT_FILE)
        try:
            with _listening(options.bind, options.port) as sock:
                await _run(cluster, audit, identity, sock=sock, options=options)
        finally:
            audit.close()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)


async def _run(
    cluster: Cluster, audit: AuditLog, identity: pki.Pki, *, sock: socket.socket, options: ServerOptions
) -> None:
    config = uvicorn.Config(
        Application(cluster, audit),
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=120,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        ssl_certfile=str(identity.cert),
        ssl_keyfile=str(identity.key),
    )
    server = _Uvicorn(config)
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, cluster.closing.set)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    closing = asyncio.create_task(cluster.closing.wait())
    ready = options.data_dir / READY_FILE
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.01)
        pki.write_private(ready, orjson.dumps({"url": _url(options.bind, sock), "pid": os.getpid()}))
        await asyncio.wait((serving, closing), return_when=asyncio.FIRST_COMPLETED)
    finally:
        ready.unlink(missing_ok=True)
        closing.cancel()
        cluster.closing.set()
        cluster.store.wake_all()
        server.should_exit = True
        await asyncio.wait((serving,), timeout=_IDLE_SECONDS)
        _drop_idle(server)
        await serving


def _drop_idle(server: uvicorn.Server) -> None:
    """Cut connections without a request: their clients need not answer TLS's good-bye for us to end."""
    for connection in list(server.server_state.connections):
        cycle = getattr(connection, "cycle", None)
        transport = getattr(connection, "transport", None)
        if transport is not None and (cycle is None or cycle.response_complete):
            transport.abort()


def _url(bind: str, sock: socket.socket) -> str:
    host = "127.0.0.1" if bind in _ANY else bind
    return f"https://{f'[{host}]' if ':' in host else host}:{sock.getsockname()[1]}"
