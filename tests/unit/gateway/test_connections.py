"""What a connection may do before its request is known. Time is a list of what was to happen later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from fairlead.gateway.connections import HEAD_SECONDS, MAX_HEAD, BoundedProtocol

TRAILER = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: "


class Loop(asyncio.SelectorEventLoop):
    """Keeps what is to be done later."""

    def __init__(self) -> None:
        super().__init__()
        self.later: list[asyncio.TimerHandle] = []

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, **more: Any) -> asyncio.TimerHandle:
        del more
        self.later.append(asyncio.TimerHandle(self.time() + delay, callback, args, self))
        return self.later[-1]

    def pending(self) -> list[asyncio.TimerHandle]:
        return [one for one in self.later if not one.cancelled()]

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass


class Line(asyncio.Transport):
    """The other end."""

    def __init__(self) -> None:
        super().__init__()
        self.said = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.said += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def app(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def take(loop: Loop, protocol: BoundedProtocol, data: bytes) -> None:
    """Let what came be taken, and answered if it is a request."""

    async def answer() -> None:
        protocol.data_received(data)
        await asyncio.sleep(0)

    loop.run_until_complete(answer())


@pytest.fixture
def loop() -> Any:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def line(loop: Loop) -> tuple[BoundedProtocol, Line]:
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    made, line = BoundedProtocol(config, ServerState(), {}, _loop=loop), Line()
    made.connection_made(line)
    return made, line


@pytest.mark.parametrize("sent", [b"", b"GET /", b"GET / HTTP/1.1\r\nA: b\r\n"])
def test_connection_that_does_not_get_to_its_request_is_closed(loop: Loop, line: Any, sent: bytes) -> None:
    protocol, end = line
    protocol.data_received(sent)
    (timer,) = loop.pending()
    assert timer.when() <= loop.time() + HEAD_SECONDS
    timer._run()
    assert end.closed


def test_connection_has_its_time_anew_for_the_next_request(loop: Loop, line: Any) -> None:
    protocol, end = line
    take(loop, protocol, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert end.said.startswith(b"HTTP/1.1 204")
    assert [one for one in loop.pending() if one._callback == end.close] == []  # type: ignore[attr-defined]
    protocol.data_received(b"GET /again HTTP/1.1\r\n")
    assert [one for one in loop.pending() if one._callback == end.close]  # type: ignore[attr-defined]
    protocol.connection_lost(ConnectionResetError())
    assert [one for one in loop.pending() if one._callback == end.close] == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("large", [b"GET /", b"GET / HTTP/1.1\r\nA: ", b"POST / HTTP/1.1\r\nA", TRAILER])
def test_head_that_never_ends_is_refused(loop: Loop, line: Any, large: bytes) -> None:
    protocol, end = line
    take(loop, protocol, large)
    pieces = 0
    while not end.closed and pieces < MAX_HEAD:
        protocol.data_received(b"a" * 1024)
        pieces += 1
    assert pieces <= MAX_HEAD // 1024 + 1
    assert b"HTTP/1.1 400" in end.said


def test_body_of_any_size_is_none_of_its_business(loop: Loop, line: Any) -> None:
    protocol, end = line
    take(loop, protocol, b"POST / HTTP/1.1\r\nContent-Length: 10000000\r\n\r\n")
    for _ in range(9):
        protocol.data_received(b"a" * 1_000_000)
    assert not end.closed


def test_body_that_nobody_waits_for_has_its_time(loop: Loop, line: Any) -> None:
    protocol, end = line
    take(loop, protocol, b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n")
    assert end.said.startswith(b"HTTP/1.1 204")
    protocol.data_received(b"a")
    (timer,) = loop.pending()
    protocol.data_received(b"a")
    assert not timer.cancelled(), "the next request is waited for"
    take(loop, protocol, b"GET / HTTP/1.1\r\n\r\n")
    assert timer.cancelled()


@pytest.mark.parametrize("large", [b"GET /%s HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nA: %s\r\n\r\n"])
def test_head_that_is_too_large_is_refused(line: Any, large: bytes) -> None:
    protocol, end = line
    for at in range(0, len(data := large % (b"a" * (MAX_HEAD + 1))), 8192):
        if not end.closed:
            protocol.data_received(data[at : at + 8192])
    assert end.said.startswith(b"HTTP/1.1 400")
    assert end.closed
