from __future__ import annotations

import asyncio
import contextlib
import gzip
import ipaddress
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead import egress
from fairlead.egress import (
    EgressTransport,
    Fetch,
    Fetched,
    Lookups,
    Policy,
    build_client,
    check_address,
    check_url,
    fetch,
)
from fairlead.errors import Refused, RetryableError, TerminalError
from fairlead.testing.standins import StandIn, running_standin

PUBLIC = Policy()
INSIDE = Policy(loopback=True, private=True)


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("127.0.0.1", id="loopback"),
        pytest.param("127.255.0.3", id="loopback-net"),
        pytest.param("0.0.0.0", id="unspecified"),  # noqa: S104 - a destination
        pytest.param("10.1.2.3", id="private-10"),
        pytest.param("172.16.0.1", id="private-172"),
        pytest.param("192.168.1.1", id="private-192"),
        pytest.param("169.254.169.254", id="metadata"),
        pytest.param("100.64.0.1", id="cgnat"),
        pytest.param("100.100.100.200", id="metadata-in-cgnat"),
        pytest.param("168.63.129.16", id="platform-service"),
        pytest.param("192.0.0.192", id="special-purpose"),
        pytest.param("198.18.0.1", id="benchmark"),
        pytest.param("224.0.0.1", id="multicast"),
        pytest.param("255.255.255.255", id="broadcast"),
        pytest.param("240.0.0.1", id="reserved"),
        pytest.param("::", id="v6-unspecified"),
        pytest.param("::1", id="v6-loopback"),
        pytest.param("fe80::1", id="v6-link-local"),
        pytest.param("fe80::1%eth0", id="v6-scope"),
        pytest.param("fd00:ec2::254", id="v6-metadata"),
        pytest.param("fc00::1", id="v6-unique-local"),
        pytest.param("fec0::1", id="v6-site-local"),
        pytest.param("ff02::1", id="v6-multicast"),
        pytest.param("::ffff:127.0.0.1", id="mapped-loopback"),
        pytest.param("::ffff:169.254.169.254", id="mapped-metadata"),
        pytest.param("::ffff:10.0.0.1", id="mapped-private"),
        pytest.param("::127.0.0.1", id="compatible-loopback"),
        pytest.param("64:ff9b::7f00:1", id="nat64-loopback"),
        pytest.param("64:ff9b::a9fe:a9fe", id="nat64-metadata"),
        pytest.param("64:ff9b:1::a00:1", id="local-nat64-private"),
        pytest.param("2002:7f00:1::", id="6to4-loopback"),
        pytest.param("2002:a9fe:a9fe::1", id="6to4-metadata"),
        pytest.param("2001:db8::1", id="v6-documentation"),
        pytest.param("2001::7f00:1", id="teredo"),
        pytest.param("100::1", id="v6-discard"),
    ],
)
def test_check_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(Refused, match="not allowed") as refused:
        check_address(address, PUBLIC)
    assert refused.value.reason == "AddressRefused"


@pytest.mark.parametrize("address", ["93.184.215.14", "1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_check_address_that_is_public_is_allowed(address: str) -> None:
    assert check_address(address, PUBLIC)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.1", "100.64.0.1", "fc00::1", "fd00:10::1"]
)
def test_check_address_inside_is_allowed_by_policy(address: str) -> None:
    assert check_address(address, INSIDE)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
        "fd00:42::42",
        "fec0::1",
        "224.0.0.1",
        "0.0.0.0",  # noqa: S104 - a destination
    ],
)
def test_check_address_of_a_cloud_is_refused_by_every_policy(address: str) -> None:
    with pytest.raises(Refused):
        check_address(address, INSIDE)


@given(st.ip_addresses(v=4))
def test_check_address_v4_is_public_or_refused(address: ipaddress.IPv4Address) -> None:
    inside = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast
    embedded = (str(address), f"::ffff:{address}", str(ipaddress.IPv6Address((0x64FF9B << 96) + int(address))))
    for text in embedded:
        try:
            check_address(text, PUBLIC)
        except Refused:
            continue
        assert not inside
        assert address.is_global


@given(st.ip_addresses(v=6))
def test_check_address_v6_is_public_or_refused(address: ipaddress.IPv6Address) -> None:
    try:
        check_address(str(address), PUBLIC)
    except Refused:
        return
    assert address.is_global or address.sixtofour is not None


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("file:///etc/passwd", id="file"),
        pytest.param("gopher://example.com/", id="gopher"),
        pytest.param("ftp://example.com/", id="ftp"),
        pytest.param("https://user@example.com/", id="user"),
        pytest.param("https://user:password@example.com/", id="password"),
        pytest.param("https://example.com@127.0.0.1/", id="host-as-user"),
        pytest.param("http://2130706433/", id="decimal"),
        pytest.param("http://0x7f000001/", id="hexadecimal"),
        pytest.param("http://0177.0.0.1/", id="octal"),
        pytest.param("http://127.1/", id="short"),
        pytest.param("http://0x7f.0.0.1/", id="hexadecimal-part"),
        pytest.param("http://127.0.0.1.:80.5/", id="bad-port"),
        pytest.param("https:///path", id="no-host"),
        pytest.param("https://example.com/" + "a" * 9000, id="too-long"),
        pytest.param("", id="empty"),
    ],
)
def test_check_url_that_deceives_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        check_url(url)


@pytest.mark.parametrize(
    "url", ["https://example.com/a?b=c", "http://1.1.1.1:8080/", "https://[2606:4700::1]/", "https://7up.example/"]
)
def test_check_url_that_is_plain_is_allowed(url: str) -> None:
    assert str(check_url(url)) == url


def resolving(*answers: list[str]) -> Callable[[str, int], Awaitable[list[str]]]:
    """Return a resolver that gives one answer after the other."""
    left = list(answers)

    async def resolve(_host: str, _port: int) -> list[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


async def get(url: str, transport: EgressTransport, *, max_bytes: int = 1 << 20) -> Fetched:
    async with build_client(transport) as client:
        return await fetch(client, Fetch("GET", url, {"X-Key": "secret", "Accept": "*/*"}, max_bytes=max_bytes))


async def test_fetch_name_that_resolves_inside_is_refused() -> None:
    with pytest.raises(Refused, match="this machine"):
        await get("http://evil.example/", EgressTransport(PUBLIC, resolver=resolving(["127.0.0.1"])))


async def test_fetch_name_with_one_address_inside_is_refused() -> None:
    with pytest.raises(Refused, match=r"10\.0\.0\.1"):
        await get("http://evil.example/", EgressTransport(PUBLIC, resolver=resolving(["1.1.1.1", "10.0.0.1"])))


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with running_standin() as server:
        yield server


async def test_fetch_connects_to_the_address_that_was_checked(standin: StandIn) -> None:
    port = httpx.URL(standin.url).port
    transport = EgressTransport(Policy(loopback=True), resolver=resolving(["127.0.0.1"], ["169.254.169.254"]))

    answer = await get(f"http://some.example:{port}/x", transport)

    assert answer.status == 200
    assert standin.seen[0].headers["host"] == f"some.example:{port}"
    assert standin.seen[0].headers["accept-encoding"] == "identity"


async def test_fetch_redirect_to_inside_is_refused(standin: StandIn) -> None:
    with pytest.raises(Refused, match=r"169\.254\.169\.254"):
        await get(f"{standin.url}/redirect", EgressTransport(Policy(loopback=True)))


async def test_fetch_answer_over_the_limit_is_refused(standin: StandIn) -> None:
    standin.text = "x" * 5000
    with pytest.raises(TerminalError, match="more than 1000 bytes"):
        await get(f"{standin.url}/x", EgressTransport(Policy(loopback=True)), max_bytes=1000)


async def test_fetch_nobody_there_is_retryable() -> None:
    with pytest.raises(RetryableError) as failed:
        await get("http://127.0.0.1:9/", EgressTransport(Policy(loopback=True)))
    assert failed.value.reason == "Unreachable"


async def test_fetch_ignores_proxies_of_the_environment(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert (await get(f"{standin.url}/x", EgressTransport(Policy(loopback=True)))).status == 200


@contextlib.asynccontextmanager
async def answering(
    head: str, *chunks: bytes, repeat: int = 1, status: str = "200 OK"
) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve one raw answer to every request; yield the URL and what was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(f"HTTP/1.1 {status}\r\nConnection: close\r\n{head}\r\n\r\n".encode())
            for _ in range(repeat):
                for chunk in chunks:
                    writer.write(chunk)
                    await writer.drain()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", asked


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
async def test_fetch_redirect_to_another_origin_inside_is_refused_by_every_policy(status: str) -> None:
    async with (
        answering("") as (inside, asked),
        answering(f"Location: {inside}\r\nContent-Length: 0", status=status) as (url, _),
        build_client(EgressTransport(INSIDE)) as client,
    ):
        with pytest.raises(Refused, match=r"a redirect led to another origin.*this machine"):
            await fetch(client, Fetch("POST", url, {}, b"{}"))
    assert asked == []


async def test_fetch_redirect_within_the_origin_is_followed_as_the_policy_allows() -> None:
    async with answering("Location: /again\r\nContent-Length: 0", status="307 Temporary Redirect") as (url, asked):
        with pytest.raises(TerminalError) as failed:
            await get(url, EgressTransport(INSIDE))
    assert failed.value.reason == "TooManyRedirects"
    assert all(b"x-key: secret" in head.lower() for head in asked)


class Stuck:
    """A name server that does not answer until it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = threading.Event()

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked.append(host)
        self.answer.wait(30)
        return [(None, None, None, "", ("1.1.1.1", port))]


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    made = Stuck()
    yield made
    made.answer.set()


async def test_lookups_that_hang_hold_up_no_other_thread(stuck: Stuck) -> None:
    lookups = Lookups(limit=64, look_up=stuck)
    waiting = [asyncio.create_task(lookups(f"n{n}.example", 443)) for n in range(64)]
    async with asyncio.timeout(10):
        while len(stuck.asked) < 64:
            await asyncio.to_thread(lambda: None)
    stuck.answer.set()
    assert await asyncio.gather(*waiting) == [["1.1.1.1"]] * 64


async def test_lookups_place_is_taken_until_the_thread_ends(stuck: Stuck) -> None:
    lookups = Lookups(limit=1, look_up=stuck)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await lookups("first.example", 443)
    second = asyncio.create_task(lookups("second.example", 443))
    assert await lookups("192.0.2.1", 443) == ["192.0.2.1"]
    assert stuck.asked == ["first.example"]
    stuck.answer.set()
    assert await second == ["1.1.1.1"]


async def test_lookups_of_a_name_without_addresses_fails() -> None:
    def fail(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror("no such name")

    with pytest.raises(OSError, match="no such name"):
        await Lookups(look_up=fail)("absent.example", 443)


async def test_lookups_ask_the_system() -> None:
    assert "127.0.0.1" in await Lookups()("localhost", 80)


async def test_client_sends_no_cookie_of_an_earlier_answer() -> None:
    transport = EgressTransport(Policy(loopback=True))
    async with answering("Set-Cookie: session=canary; Path=/") as (url, asked), build_client(transport) as client:
        first = await fetch(client, Fetch("GET", url, {}))
        await fetch(client, Fetch("GET", url, {}))
    assert first.headers["set-cookie"] == "session=canary; Path=/"
    assert len(asked) == 2
    assert b"canary" not in asked[1]


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, gzip"])
async def test_transport_refuses_what_would_grow(encoding: str) -> None:
    transport = EgressTransport(Policy(loopback=True))
    async with (
        answering(f"Content-Encoding: {encoding}", gzip.compress(bytes(1 << 20))) as (url, _),
        httpx.AsyncClient(transport=transport) as client,
    ):
        with pytest.raises(TerminalError) as failed:
            await client.get(url)
    assert failed.value.reason == "UnexpectedEncoding"


async def test_transport_ends_an_answer_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "MAX_ANSWER_BYTES", 1 << 20)
    transport = EgressTransport(Policy(loopback=True))
    async with (
        answering("X-Endless: yes", bytes(65536), repeat=10_000) as (url, _),
        httpx.AsyncClient(transport=transport) as client,
    ):
        with pytest.raises(TerminalError) as failed:
            await client.get(url)
    assert failed.value.reason == "TooLarge"


async def test_fetch_headers_without_end_are_refused() -> None:
    async with answering("\r\n".join(f"X-{n}: {'y' * 1000}" for n in range(1000))) as (url, _):
        with pytest.raises(RetryableError):
            await get(url, EgressTransport(Policy(loopback=True)))
