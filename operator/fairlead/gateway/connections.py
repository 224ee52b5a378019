"""Connections of strangers: what is no request's body is bounded in time and size."""

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
    """Of the address and the headers that are whole."""
    _unread = 0
    """Bytes that came since the last that was whole: the parser keeps them, and copies them with each piece."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._have_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._unread += len(data)
        super().data_received(data)
        if self._unread > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("Request head too large.")

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
        self._unread = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Let the request be answered; if it was already, the next one is waited for."""
        self._unread = 0
        if not self.cycle.response_complete:
            self._have_head()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, and no longer for the rest of a body that nobody reads any more."""
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._wait_for_head()

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
