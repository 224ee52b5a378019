"""HTTP/1.1 to the gateway and nobody else: POST requests over TLS connections that are kept open.

h11 writes and reads the bytes. What is around it is here because a client for the whole web needs four times the
processor time for each of a pod's many small requests.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import h11

MAX_IDLE: Final = 20
IDLE_SECONDS: Final = 30.0
"""Well below what servers and balancers allow a connection to be silent."""
CONNECT_SECONDS: Final = 30.0
_NEXT_ADDRESS_SECONDS: Final = 0.25
_PORT: Final = 443
_CHUNK: Final = 1 << 16


class NoAnswer(Exception):
    """The request may have arrived, or not."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where the gateway is, and how to know that it is the one."""

    url: str
    """``https://…``, without a slash at its end."""
    tls: ssl.SSLContext
    socket: str = ""
    """The path of a Unix socket to connect to in place of the URL's address; empty: none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said."""

    status: int
    headers: Mapping[bytes, bytes]
    """By their names in lower case."""
    body: bytes


class Connections:
    """Connections to one server. As many as are needed at a time; a few are kept when they are not.

    Args:
        headers: of every request.
    """

    def __init__(self, door: Door, *, headers: Mapping[str, str]) -> None:
        self._door = door
        self._to = urlsplit(door.url)
        self._headers = [("host", self._to.netloc), *headers.items()]
        self._idle: list[tuple[float, _Connection]] = []
        """With the time from which on they were idle; the last one used comes last."""

    async def aclose(self) -> None:
        """Close the connections that nobody uses."""
        for _, connection in self._idle:
            connection.drop()
        self._idle.clear()

    async def post(self, path: str, body: bytes, *, token: str, patience: float) -> Answer:
        """Send a request and return its answer.

        Args:
            path: below the URL's own.
            body: as JSON.
            token: of whoever asks.
            patience: how many seconds the server may do nothing at all.

        Raises:
            NoAnswer: it did nothing for longer, or the connection broke.
        """
        headers = [*self._headers, ("authorization", f"Bearer {token}"), ("content-length", str(len(body)))]
        try:
            request = h11.Request(method="POST", target=self._to.path + path, headers=headers)
        except h11.LocalProtocolError:  # its words may hold the token
            raise NoAnswer("the token is none: it is empty, or more than one line") from None
        try:
            connection = self._take() or await self._open(patience)
            try:
                return await connection.exchange(request, body, patience=patience)
            finally:
                self._leave(connection)
        except (OSError, h11.ProtocolError) as error:
            raise NoAnswer(f"{type(error).__name__}: {error}") from error

    def _take(self) -> _Connection | None:
        """Return the connection that was used last, if it can still be used."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            since, connection = self._idle.pop()
            if connection.is_ready and now - since < IDLE_SECONDS:
                return connection
            connection.drop()
        return None

    async def _open(self, patience: float) -> _Connection:
        host, port, door = self._to.hostname, self._to.port or _PORT, self._door
        async with asyncio.timeout(min(patience, CONNECT_SECONDS)):
            if door.socket:
                streams = await asyncio.open_unix_connection(door.socket, ssl=door.tls, server_hostname=host)
            else:
                delay = _NEXT_ADDRESS_SECONDS
                streams = await asyncio.open_connection(host, port, ssl=door.tls, happy_eyeballs_delay=delay)
        return _Connection(*streams)

    def _leave(self, connection: _Connection) -> None:
        """Keep a connection for the next request, or close it."""
        if connection.is_ready and len(self._idle) < MAX_IDLE:
            self._idle.append((asyncio.get_running_loop().time(), connection))
        else:
            connection.drop()


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)

    @property
    def is_ready(self) -> bool:
        """Whether it may take a request: the last one is answered, and nobody has closed it."""
        ended = self._reader.at_eof() or self._writer.transport.is_closing()
        unasked, _ = self._http.trailing_data
        return self._http.our_state is h11.IDLE and not ended and not unasked

    def drop(self) -> None:
        """Close it without a farewell."""
        self._writer.transport.abort()

    async def exchange(self, request: h11.Request, body: bytes, *, patience: float) -> Answer:
        """Send a request; return the answer."""
        events = (request, h11.Data(data=body), h11.EndOfMessage())
        self._writer.write(b"".join(self._http.send(event) or b"" for event in events))
        with suppress(ConnectionError):  # who takes no more may have said why
            async with asyncio.timeout(patience):
                await self._writer.drain()
        status, headers, pieces = 0, {}, []
        while not isinstance(event := await self._next_event(patience), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status, headers = event.status_code, dict(event.headers)
            elif isinstance(event, h11.Data):
                pieces.append(event.data)
        if self._http.our_state is self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        return Answer(status, headers, b"".join(pieces))

    async def _next_event(self, patience: float) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            async with asyncio.timeout(patience):
                self._http.receive_data(await self._reader.read(_CHUNK))
        return event
