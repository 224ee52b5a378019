"""Connections of strangers: what comes before a request is known is bounded in time and size."""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS: Final = 30.0
"""From the first byte of a request, or the connection, to the last of its headers."""
MAX_HEAD: Final = 64 * 1024
"""Bytes of address and headers together."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol; it hangs up on whoever sends a request's head too slowly, and refuses one too large."""

    _timer: asyncio.TimerHandle | None = None
    _size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._have_head()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of the head."""
        super().on_message_begin()
        self._size = 0
        self._wait_for_head()

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._count(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Let the request begin; its body has bounds of its own."""
        self._have_head()
        super().on_headers_complete()

    def _count(self, *parts: bytes) -> None:
        self._size += sum(map(len, parts))
        if self._size > MAX_HEAD:
            raise ValueError("the head of the request is too large")  # the parser makes a 400 of it

    def _wait_for_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _have_head(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
