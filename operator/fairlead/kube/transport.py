"""HTTPS to the API server: configuration, credentials and connections from the official client, JSON by orjson."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
from yarl import URL

from fairlead.errors import Refused, Unavailable
from fairlead.kube.official import (
    ConfigException,
    Configuration,
    RESTClientObject,
    load_incluster_config,
    load_kube_config,
)

CONNECT_SECONDS: Final = 10
REQUEST_SECONDS: Final = 30

Answer = tuple[int, Mapping[str, str], bytes]


async def load_configuration(kubeconfig: Path | None, *, context: str = "") -> Configuration:
    """Return what the client needs to know of the server: from a kubeconfig, or from the pod's service account.

    Credentials in a kubeconfig are read again when the file changes: whoever wrote a short-lived token renews it there.
    """
    found = Configuration()
    # Python 3.13 wants key identifiers of every certificate, which those of EKS and of older MicroK8s lack.
    found.disable_strict_ssl_verification = True
    try:
        if kubeconfig is None:
            load_incluster_config(client_configuration=found)
        else:
            await _load_kubeconfig(kubeconfig, found, context=context)
            found.refresh_api_key_hook = _reloader(kubeconfig, context)
    except (ConfigException, OSError) as error:
        where = kubeconfig or "the pod's service account"
        raise Refused(f"no access to a Kubernetes API from {where}: {error}", reason="NoKubeconfig") from error
    return found


@dataclass(frozen=True, slots=True)
class Request:
    """What to send. *body* is sent as it is if it is bytes, as JSON otherwise."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Credentials:
    """How another client reaches the same server as the same user, now: tokens rotate."""

    server: str
    ca_path: str | None
    certificate_path: str | None
    key_path: str | None
    authorization: str = field(repr=False)
    """Scheme and token, or empty."""


async def _load_kubeconfig(kubeconfig: Path, into: Configuration, *, context: str) -> None:
    await load_kube_config(
        config_file=str(kubeconfig), context=context or None, client_configuration=into, persist_config=False
    )


def _reloader(kubeconfig: Path, context: str) -> Callable[[Configuration], Awaitable[None]]:
    seen = _modified(kubeconfig)

    async def reload(configuration: Configuration) -> None:
        nonlocal seen
        if (now := _modified(kubeconfig)) != seen:
            fresh = Configuration()
            await _load_kubeconfig(kubeconfig, fresh, context=context)
            configuration.api_key, seen = fresh.api_key, now

    return reload


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # several files in one variable, or the moment in which it is replaced
        return 0


class Transport:
    """One pool of connections to one server."""

    def __init__(self, configuration: Configuration, user_agent: str) -> None:
        self._configuration = configuration
        self._rest = RESTClientObject(configuration)
        self._base: str = configuration.host.rstrip("/")
        self._user_agent = user_agent

    @property
    def server(self) -> str:
        """The server's URL."""
        return self._base

    async def credentials(self) -> Credentials:
        """Return what is valid now."""
        of = self._configuration
        settings = (await of.auth_settings()).values()
        authorization = next((setting["value"] for setting in settings if setting["key"] == "authorization"), "")
        return Credentials(self._base, of.ssl_ca_cert, of.cert_file, of.key_file, authorization)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._rest.close()

    async def send(self, request: Request) -> Answer:
        """Send a request and read all of the answer, whatever its status.

        Raises:
            Unavailable: the server did not answer.
        """
        limits = aiohttp.ClientTimeout(total=REQUEST_SECONDS, connect=CONNECT_SECONDS)
        async with self.open(request, limits) as answer:
            return answer.status, answer.headers, await answer.read()

    @asynccontextmanager
    async def open(self, request: Request, limits: aiohttp.ClientTimeout) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and give the answer to be read piece by piece."""
        body = request.body
        extra: dict[str, Any] = {}
        if self._rest.proxy:
            extra["proxy"] = self._rest.proxy
        if self._rest.server_hostname:
            extra["server_hostname"] = self._rest.server_hostname
        try:
            async with self._rest.pool_manager.request(
                request.method,
                URL(self._base + request.path).with_query(request.query),
                data=body if body is None or isinstance(body, bytes) else orjson.dumps(body),
                headers=await self._headers(request),
                timeout=limits,
                allow_redirects=False,
                **extra,
            ) as answer:
                yield answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = f"{request.method} {request.path}: the Kubernetes API at {self._base} did not answer"
            raise Unavailable(f"{what}: {str(error) or type(error).__name__}") from error

    async def _headers(self, request: Request) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": self._user_agent}
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        for setting in (await self._configuration.auth_settings()).values():
            headers[setting["key"]] = setting["value"]
        return headers | dict(request.headers)
