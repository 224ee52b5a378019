"""The agent's client, against a server that answers what each test says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fairlead.clock import SystemClock
from fairlead.gateway.server import load_identity
from fairlead.services.certificates import make_authority, make_identity
from fairlead_agent.connections import Answer, Connections, Door, NoAnswer

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRetry-After: 3\r\n\r\nok"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class _Server:
    """Counts connections and keeps what was asked for."""

    def __init__(self, answers: Handler) -> None:
        self.asked: list[bytes] = []
        self.connections = 0
        self._answers = answers

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.asked.append(head)
                await self._answers(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()


async def _ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(4)
    writer.write(_OK)


@asynccontextmanager
async def _served(
    answers: Handler, *, socket: Path | None = None, path: str = ""
) -> AsyncIterator[tuple[_Server, Connections]]:
    now = SystemClock().now()
    authority = make_authority(now)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_identity(context, make_identity(authority, ["127.0.0.1"], now))
    server = _Server(answers)
    if socket is None:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
        port = listening.sockets[0].getsockname()[1]
    else:
        listening, port = await asyncio.start_unix_server(server.serve, socket, ssl=context), 1
    trust = ssl.create_default_context(cadata=authority.certificate.decode())
    door = Door(f"https://127.0.0.1:{port}{path}", trust, "" if socket is None else str(socket))
    connections = Connections(door, headers={"content-type": "application/json"})
    async with listening:
        yield server, connections
        await connections.aclose()


async def _post(connections: Connections, body: bytes = b"body", *, patience: float = 10) -> Answer:
    return await connections.post("/x", body, token="secret", patience=patience)


async def test_post_again_uses_the_same_connection() -> None:
    async with _served(_ok) as (server, connections):
        answers = [await _post(connections) for _ in range(3)]
    assert {(answer.status, answer.body, answer.headers[b"retry-after"]) for answer in answers} == {(200, b"ok", b"3")}
    assert server.connections == 1
    assert b"POST /x HTTP/1.1\r\n" in server.asked[0]
    assert b"authorization: bearer secret\r\n" in server.asked[0].lower()


async def test_post_side_by_side_opens_a_connection_each() -> None:
    both = asyncio.Barrier(2)

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        await both.wait()
        writer.write(_OK)

    async with _served(meet) as (server, connections):
        await asyncio.gather(_post(connections), _post(connections))
        await asyncio.gather(_post(connections), _post(connections))
        assert server.connections == 2


async def test_post_after_the_server_closed_opens_another_connection() -> None:
    closed = asyncio.Event()

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _ok(reader, writer)
        writer.close()
        await writer.wait_closed()
        closed.set()

    async with _served(once) as (server, connections):
        await _post(connections)
        await closed.wait()
        assert (await _post(connections)).status == 200
        assert server.connections == 2


async def test_post_never_takes_what_nobody_asked_for_as_its_answer() -> None:
    async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        writer.write(_OK + _OK.replace(b"200 OK", b"408 Late"))

    async with _served(twice) as (server, connections):
        assert [(await _post(connections)).status for _ in range(2)] == [200, 200]
        assert server.connections == 2


async def test_post_that_was_given_up_leaves_its_connection_to_nobody() -> None:
    come, go = asyncio.Event(), asyncio.Event()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        come.set()
        await go.wait()
        writer.write(_OK)

    async with _served(late) as (server, connections):
        given_up = asyncio.create_task(_post(connections))
        await come.wait()
        given_up.cancel()
        await asyncio.wait([given_up])
        go.set()
        assert (await _post(connections)).status == 200
        assert server.connections == 2


@pytest.mark.parametrize("token", ["", "sec\nret"])
async def test_post_with_a_token_that_is_none_does_not_show_it(token: str) -> None:
    async with _served(_ok) as (server, connections):
        with pytest.raises(NoAnswer, match="the token is none") as failed:
            await connections.post("/x", b"body", token=token, patience=10)
    assert failed.value.__cause__ is None
    assert "sec" not in str(failed.value)
    assert server.asked == []


async def test_post_when_told_to_close_opens_another_connection() -> None:
    async def last(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        writer.write(b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    async with _served(last) as (server, connections):
        assert [(await _post(connections)).status for _ in range(2)] == [503, 503]
        assert server.connections == 2


async def test_post_answered_in_chunks_returns_all_of_it() -> None:
    async def chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await writer.drain()
        writer.write(b"4\r\n two\r\n0\r\n\r\n")

    async with _served(chunks) as (_, connections):
        assert (await _post(connections)).body == b"one two"


async def test_post_refused_before_it_was_read_returns_the_refusal() -> None:
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")
        await writer.drain()
        writer.close()

    async with _served(refuse) as (_, connections):
        answer = await _post(connections, b"x" * (1 << 22))
    assert (answer.status, answer.body) == (413, b"big")


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", id="half-of-it"),
        pytest.param(b"what?\r\n\r\n", id="no-HTTP"),
    ],
)
async def test_post_that_is_not_answered_says_so(said: bytes) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        writer.write(said)
        raise ConnectionError

    async with _served(hang_up) as (_, connections):
        with pytest.raises(NoAnswer):
            await _post(connections)


async def test_post_to_a_silent_server_runs_out_of_patience() -> None:
    async def wait(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with _served(wait) as (_, connections):
        with pytest.raises(NoAnswer, match="TimeoutError"):
            await _post(connections, patience=0.2)


async def test_post_to_nobody_says_so() -> None:
    async with _served(_ok) as (_, connections):
        pass
    with pytest.raises(NoAnswer):
        await _post(connections)


async def test_post_through_a_socket_below_a_path(tmp_path: Path) -> None:
    async with _served(_ok, socket=tmp_path / "s", path="/fairlead") as (server, connections):
        assert (await _post(connections)).status == 200
    assert b"POST /fairlead/x HTTP/1.1\r\n" in server.asked[0]
