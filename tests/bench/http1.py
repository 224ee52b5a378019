"""As little HTTP/1.1 client as a measurement needs, so that it measures the server."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlsplit


class Connection:
    """One connection that is kept open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: bytes) -> None:
        self._reader = reader
        self._writer = writer
        self._headers = headers

    @classmethod
    async def open(
        cls, url: str, *, context: ssl.SSLContext | None, token: str, media_type: str = "application/json"
    ) -> Connection:
        """Connect to a server. *media_type*: of what is sent."""
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=context, limit=2**22)
        headers = f"Host: {parts.netloc}\r\nAuthorization: Bearer {token}\r\nContent-Type: {media_type}\r\n"
        return cls(reader, writer, headers.encode())

    async def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request and return the status and the whole answer."""
        status, length = await self._send(method, path, body)
        if length is not None:
            return status, await self._reader.readexactly(length)
        return status, b"".join([chunk async for chunk in self._chunks()])

    async def stream(self, path: str) -> AsyncIterator[bytes]:
        """Wait for an answer to begin and return its pieces as they come."""
        await self._send("GET", path, b"")
        return self._chunks()

    def drop(self) -> None:
        """Close the connection without a farewell: a TLS goodbye in the middle of an answer may take half a minute."""
        self._writer.transport.abort()

    async def _send(self, method: str, path: str, body: bytes) -> tuple[int, int | None]:
        head = f"{method} {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n".encode() + self._headers + b"\r\n"
        self._writer.write(head + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        status = int(answer[9:12])
        for line in answer.lower().split(b"\r\n")[1:]:
            if line.startswith(b"content-length:"):
                return status, int(line[15:])
        return status, None

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            yield await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)
