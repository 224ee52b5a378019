"""Runs the application over TLS until it is told to end, and ends without losing what is under way."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import uvicorn

from fairlead.clock import Clock
from fairlead.errors import FairleadError
from fairlead.gateway.app import create_app
from fairlead.gateway.connections import BoundedProtocol
from fairlead.logs import get_logger
from fairlead.services.certificates import Certificates, Identity
from fairlead.wiring import Gateway

_log = get_logger(__name__)
GRACE_SECONDS: Final = 20.0
_RENEW_SECONDS: Final = 3600.0
_HANG_UP_SECONDS: Final = 5


async def serve(
    gateway: Gateway,
    *,
    bind: str,
    port: int,
    socket: Path | None = None,
    started: Callable[[int], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT, on *socket* too if it is given; *started* is told the port once it accepts."""
    identity = await gateway.certificates.ensure()
    await gateway.storage.beat_gateway(gateway.id, at=gateway.clock.now())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_identity(context, identity)
    server = _Server(_config(gateway, context, bind=bind, port=port), gateway, socket=socket, started=started)
    async with asyncio.TaskGroup() as group:
        beside = [
            group.create_task(gateway.agents.calls.beat(), name="beat"),
            group.create_task(gateway.wakeups.run(), name="wakeups"),
            group.create_task(gateway.agents.waiting.run(), name="waiting"),
            group.create_task(gateway.exporting.run(), name="exporting"),
            group.create_task(keep_identity(gateway.certificates, context, gateway.clock), name="certificate"),
            group.create_task(_look_for_sandbox(gateway), name="sandbox"),
            group.create_task(gateway.abroad.probing.run(), name="external agents"),
        ]
        await server.serve()
        for task in beside:
            task.cancel()


def load_identity(context: ssl.SSLContext, identity: Identity) -> None:
    """Serve new connections with *identity*. Python's ssl reads files only: these are gone at once."""
    with tempfile.TemporaryDirectory(prefix="fairlead-tls-") as folder:
        certificate, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
        key.touch(mode=0o600)
        certificate.write_bytes(identity.certificate)
        key.write_bytes(identity.key)
        context.load_cert_chain(certificate, key)


class _Server(uvicorn.Server):
    """Ends in order: hands out nothing more, lets calls in flight finish, then closes connections."""

    def __init__(
        self, config: uvicorn.Config, gateway: Gateway, *, socket: Path | None, started: Callable[[int], None]
    ) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._socket = socket
        self._announce = started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End in order at SIGTERM and SIGINT, and return: uvicorn's own way raises the signal once more."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.end)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def end(self) -> None:
        """Hand out nothing more, and end."""
        self._gateway.agents.sessions.closing = True
        self._gateway.agents.waiting.closing = True
        self._gateway.wakeups.close()
        self.should_exit = True

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        for port in {int(socket.getsockname()[1]) for server in self.servers for socket in server.sockets}:
            _log.info("gateway_serves", port=port, gateway=self._gateway.id)
            self._announce(port)
        if self._socket is not None:
            self.servers.append(await self._serve_socket(self._socket))

    async def _serve_socket(self, path: Path) -> asyncio.Server:
        """Serve on a Unix socket: its folder decides who may connect, so the socket itself is open to everybody."""
        config = self.config

        def create_protocol() -> asyncio.Protocol:
            return config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            )

        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(create_protocol, path, ssl=config.ssl, backlog=config.backlog)
        await asyncio.to_thread(path.chmod, 0o666)
        _log.info("gateway_serves_socket", path=str(path), gateway=self._gateway.id)
        return server

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await self._gateway.agents.calls.drain(GRACE_SECONDS)
        await super().shutdown(sockets)  # type: ignore[arg-type]
        _log.info("gateway_ended", gateway=self._gateway.id)


def _config(gateway: Gateway, context: ssl.SSLContext, *, bind: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(gateway),
        host=bind,
        port=port,
        ssl_context_factory=lambda _config, _default: context,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        http=BoundedProtocol,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_HANG_UP_SECONDS,
    )


async def _look_for_sandbox(gateway: Gateway) -> None:
    """Choose what programs run in before the first one comes, so that it need not wait."""
    try:
        _log.info("sandbox_chosen", sandbox=await gateway.sandbox.describe())
    except Exception:  # noqa: BLE001 - without a sandbox programs are refused; everything else goes on
        _log.exception("sandbox_not_chosen")


async def keep_identity(certificates: Certificates, context: ssl.SSLContext, clock: Clock) -> None:
    """Serve with what is good now, for ever: what cannot be renewed today is good for months, calls are under way."""
    while True:
        await clock.sleep(_RENEW_SECONDS)
        try:
            load_identity(context, await certificates.ensure())
        except FairleadError as error:
            _log.warning("certificate_not_checked", error=str(error))
