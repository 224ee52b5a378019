"""The one client for addresses that somebody else supplied: a user, a model, an event.

An address is judged when it is connected to, for every connection: the name is resolved here, every address that it has
is checked, and the connection goes to the very address that was checked. A redirect is a new request and so is judged
again. Nothing of the environment (proxies, certificates, ``.netrc``) is used.

Does not belong here: what a request means, keys, retries.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import httpcore
import httpx

from fairlead.errors import Refused, RetryableError, TerminalError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[list[str]]]
MAX_REDIRECTS: Final = 5
MAX_ANSWER_BYTES: Final = 32 << 20
"""Of any answer, a model's too; `Fetch` may allow less."""
_MAX_URL: Final = 8192
_NUMBER_LABEL: Final = re.compile(r"(?i)^(0x[0-9a-f]*|\d+)$")
_PLATFORM: Final = tuple(
    map(
        ipaddress.ip_network,
        ("168.63.129.16", "100.100.100.200", "fd00:c1::/32", "fd00:42::/32", "fd00:ec2::/32", "fd20:ce::/32"),
    )
)
"""Metadata and host services that clouds put on addresses which look public or merely private."""
_SPECIAL: Final = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "100::/64", "2001::/23", "3fff::/20", "5f00::/16", "fec0::/10"),
    )
)
"""Special-purpose networks that not every version of Python knows. Source: IANA's registries of such addresses."""
_EMBEDDING: Final = tuple(
    (ipaddress.IPv6Network(net), shift)
    for net, shift in (("64:ff9b::/96", 0), ("64:ff9b:1::/48", 0), ("2002::/16", 80), ("::/96", 0))
)
"""IPv6 networks in which an IPv4 address is embedded, and where: NAT64, 6to4, IPv4-compatible."""
_INSIDE: Final = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)
"""What clusters and offices use inside."""
_NEVER_SENT: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "accept-encoding"}
)


_LED_AWAY: Final = "fairlead.led_away"
"""The extension of a request that a redirect to another origin made, and of those after it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Which addresses are allowed besides public ones."""

    loopback: bool = False
    private: bool = False


def check_url(url: httpx.URL | str) -> httpx.URL:
    """Return the URL if its form is one that may be asked.

    Raises:
        Refused: no http(s), credentials in it, or a host that is written to deceive.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise Refused(f"this is no URL: {error}", reason="AddressRefused") from error
    host = parsed.host
    if parsed.scheme not in {"http", "https"}:
        raise Refused(f"the scheme {parsed.scheme!r} is not allowed: use https or http", reason="AddressRefused")
    if parsed.userinfo:
        raise Refused("credentials in a URL are not allowed: use a header", reason="AddressRefused")
    if not host or len(str(parsed)) > _MAX_URL:
        raise Refused("the URL has no host, or is too long", reason="AddressRefused")
    if _is_odd(host):
        raise Refused(
            f"the host {host!r} is an address in an unusual notation: write it plainly", reason="AddressRefused"
        )
    return parsed


def check_address(address: str, policy: Policy) -> IPAddress:
    """Return the address if it may be connected to.

    Raises:
        Refused: it is loopback, private, link-local, multicast, reserved or a cloud's own.
    """
    parsed = ipaddress.ip_address(address)
    for ip in (parsed, *_embedded(parsed)):
        kind = _forbidden(ip, policy)
        if kind:
            raise Refused(f"the address {address} is {kind}: requests to it are not allowed", reason="AddressRefused")
    return parsed


def _is_odd(host: str) -> bool:
    """Whether a host is an IPv4 address in decimal, octal, hexadecimal or short form."""
    bare = host.rstrip(".")
    last = bare.rpartition(".")[2]
    if ":" in bare or not _NUMBER_LABEL.match(last):
        return False
    try:
        ipaddress.IPv4Address(bare)
    except ValueError:
        return True
    return False


def _embedded(ip: IPAddress) -> Iterable[IPAddress]:
    if isinstance(ip, ipaddress.IPv4Address):
        return ()
    if ip.ipv4_mapped is not None:
        return (ip.ipv4_mapped,)
    if ip in (ipaddress.IPv6Address("::"), ipaddress.IPv6Address("::1")):
        return ()
    return tuple(
        ipaddress.IPv4Address((int(ip) >> shift) & 0xFFFFFFFF) for network, shift in _EMBEDDING if ip in network
    )


def _forbidden(ip: IPAddress, policy: Policy) -> str:
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ""  # judged by the address inside
    if _is_in(ip, _PLATFORM) or ip.is_link_local:
        return "link-local or a cloud's metadata service"
    if ip.is_loopback:
        return "" if policy.loopback else "this machine"
    special = ip.is_multicast or ip.is_unspecified or _is_in(ip, _SPECIAL)
    if special or (ip.is_reserved and not _embedded(ip)):
        return "multicast, unspecified or reserved"
    if _embedded(ip):
        return ""
    return "" if ip.is_global or (policy.private and _is_in(ip, _INSIDE)) else "private"


def _is_in(ip: IPAddress, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    return any(ip in network for network in networks if network.version == ip.version)


class Lookups:
    """Finds the addresses of names, as the system does, in threads of its own.

    Looking up a name cannot be ended, and whoever chose the name may have chosen a dead name server, too. So nothing
    else waits for these threads: not the loop's own ones, of which there are few, and not the end of the process.

    Args:
        limit: how many names are looked up at a time.
    """

    def __init__(self, *, limit: int = 16, look_up: Callable[..., Iterable[Any]] = socket.getaddrinfo) -> None:
        self._places = asyncio.Semaphore(limit)
        self._look_up = look_up

    async def __call__(self, host: str, port: int) -> list[str]:
        """Return the addresses of *host*.

        Raises:
            OSError: it has none.
        """
        with suppress(ValueError):
            return [str(ipaddress.ip_address(host))]
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[str]] = loop.create_future()

        def end(outcome: list[str] | Exception) -> None:
            self._places.release()  # only now, even if nobody waits any more: the thread was busy
            if found.done():
                return
            if isinstance(outcome, Exception):
                found.set_exception(outcome)
            else:
                found.set_result(outcome)

        def find() -> None:
            outcome: list[str] | Exception = OSError("the look-up broke")
            try:
                entries = self._look_up(host, port, type=socket.SOCK_STREAM)
                outcome = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
            except (OSError, ValueError) as error:
                outcome = error
            finally:
                with suppress(RuntimeError):  # the loop is closed: nobody waits
                    loop.call_soon_threadsafe(end, outcome)

        try:
            threading.Thread(target=find, name="lookup", daemon=True).start()
        except RuntimeError as error:
            end(OSError(str(error)))  # no more threads can be had
        return await found


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects only to addresses that were checked, and to exactly those."""

    def __init__(self, policy: Policy, resolver: Resolver) -> None:
        self._policy = policy
        self._resolver = resolver
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        del local_address
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._resolver(host, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"{host} was not resolved in time") from error
        except OSError as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved") from error
        checked = [str(check_address(address, self._policy)) for address in addresses]
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in checked:
            try:
                return await self._inner.connect_tcp(address, port, timeout, socket_options=socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(self, path: str, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        raise Refused(f"sockets such as {path} are not allowed", reason="AddressRefused")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class EgressTransport(httpx.AsyncBaseTransport):
    """A transport that checks every request's URL, every connection's address and every answer's size.

    A request that was led away by a redirect goes to public addresses only, whatever the policy allows: who may choose
    an address inside is whoever wrote the first one, and not the server that answers there.

    Args:
        policy: which addresses are allowed.
        resolver: finds the addresses of a name; absent: the system does.
        max_connections: at a time.
        max_answer_bytes: where an answer is cut off.
        authority: a certificate (PEM) to trust instead of the public ones.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        resolver: Resolver | None = None,
        max_connections: int = 200,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        authority: str = "",
    ) -> None:
        context = ssl.create_default_context(cadata=authority) if authority else None
        context = context or httpx.create_ssl_context(trust_env=False)
        resolver = resolver or Lookups()
        self._max_answer_bytes = max_answer_bytes
        self._direct, self._led_away = (
            _open(context, _CheckedBackend(allowed, resolver), max_connections) for allowed in (policy, Policy())
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Check the URL and send the request."""
        check_url(request.url)
        request.headers["Accept-Encoding"] = "identity"  # what is small on the wire must not be huge here
        transport = self._led_away if _LED_AWAY in request.extensions else self._direct
        response = await transport.handle_async_request(request)
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            await response.aclose()
            raise TerminalError("the answer is compressed although that was not accepted", reason="UnexpectedEncoding")
        response.stream = _BoundedStream(response.stream, self._max_answer_bytes)
        return response

    async def aclose(self) -> None:
        """Close every connection."""
        await self._direct.aclose()
        await self._led_away.aclose()


def _open(context: ssl.SSLContext, backend: _CheckedBackend, max_connections: int) -> httpx.AsyncHTTPTransport:
    transport = httpx.AsyncHTTPTransport(verify=context, trust_env=False)
    transport._pool = httpcore.AsyncConnectionPool(  # noqa: SLF001 - httpx takes no network backend
        ssl_context=context,
        max_connections=max_connections,
        max_keepalive_connections=20,
        keepalive_expiry=30,
        network_backend=backend,
    )
    return transport


class _BoundedStream(httpx.AsyncByteStream):
    """Ends an answer that does not end."""

    def __init__(self, inner: httpx.SyncByteStream | httpx.AsyncByteStream, limit: int) -> None:
        assert isinstance(inner, httpx.AsyncByteStream)  # noqa: S101 - the transport is asynchronous
        self._inner = inner
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._limit
        async for chunk in self._inner:
            left -= len(chunk)
            if left < 0:
                raise TerminalError(f"the answer has more than {self._limit} bytes", reason="TooLarge")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


def build_client(transport: EgressTransport) -> httpx.AsyncClient:
    """Return a client over *transport*; redirects are followed by `fetch` only."""
    client = httpx.AsyncClient(transport=transport, trust_env=False, follow_redirects=False, timeout=30)
    forget_cookies(client)
    return client


def forget_cookies(client: httpx.AsyncClient) -> None:
    """Keep no cookies: a client is shared, and what a server gave to one run must not go out with another's request."""
    client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer, read to its end."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Fetch:
    """A request to an address that somebody else supplied."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    timeout_seconds: float = 30
    max_bytes: int = 1 << 20


async def fetch(client: httpx.AsyncClient, asked: Fetch) -> Fetched:
    """Send a request and read the answer, following redirects.

    Raises:
        Refused: the address, or that of a redirect, is not allowed.
        TerminalError: the answer is too large, or redirects for ever.
        RetryableError: nobody answered, or not in time.
    """
    try:
        async with asyncio.timeout(asked.timeout_seconds):
            return await _follow(client, asked)
    except (TimeoutError, httpx.TimeoutException) as error:
        raise RetryableError(f"no answer within {asked.timeout_seconds:g} s", reason="Timeout") from error
    except httpx.HTTPError as error:
        raise RetryableError(f"the request failed: {error}", reason="Unreachable") from error
    except (httpx.InvalidURL, ValueError) as error:
        raise Refused(f"the request cannot be sent: {error}", reason="AddressRefused") from error


async def _follow(client: httpx.AsyncClient, asked: Fetch) -> Fetched:
    headers = {key: value for key, value in asked.headers.items() if key.lower() not in _NEVER_SENT}
    request = client.build_request(asked.method, check_url(asked.url), headers=headers, content=asked.body)
    for _ in range(MAX_REDIRECTS + 1):
        response = await _send(client, request)
        try:
            if response.next_request is None:
                return await _read(response, asked.max_bytes)
            request = _next(request, response.next_request, asked.headers)
        finally:
            await response.aclose()
    raise TerminalError(f"more than {MAX_REDIRECTS} redirects", reason="TooManyRedirects")


async def _send(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    try:
        return await client.send(request, stream=True)
    except Refused as error:
        if _LED_AWAY not in request.extensions:
            raise
        raise error.within("a redirect led to another origin, which must be public") from None


def _next(before: httpx.Request, after: httpx.Request, given: Mapping[str, str]) -> httpx.Request:
    """To another origin go none of the headers that were given for the first one; from there no way leads inside."""
    if (before.url.scheme, before.url.netloc) != (after.url.scheme, after.url.netloc):
        after.extensions = {**after.extensions, _LED_AWAY: True}
        for name in given:
            if name.lower() not in {"accept", "accept-language", "content-type", "user-agent"}:
                after.headers.pop(name, None)
    return after


async def _read(response: httpx.Response, limit: int) -> Fetched:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            raise TerminalError(f"the answer has more than {limit} bytes", reason="TooLarge")
    return Fetched(str(response.url), response.status_code, dict(response.headers), bytes(body))
