"""Refuses answers that would take long to read, before they are read: that is done in the event loop of everybody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import httpx

from fairlead import egress
from fairlead.errors import TerminalError

MAX_VALUES: Final = 1 << 16
_MARKS: Final = (b"{", b"[", b",")
_ENDS: Final = (b"\n\n", b"\r\n\r\n")
"""Of an event in a stream of them."""


class BoundedTransport(egress.EgressTransport):
    """A transport that bounds how many values the JSON of an answer, or of one event in it, can have."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request."""
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - the transport is asynchronous
        events = "text/event-stream" in response.headers.get("Content-Type", "")
        response.stream = FewValues(response.stream, events=events)
        return response


class FewValues(httpx.AsyncByteStream):
    """Counts what begins a value, in texts too: that is less exact than reading, and takes next to no time.

    Args:
        events: it is a stream of events, which are read one by one.
    """

    def __init__(self, inner: httpx.AsyncByteStream, *, events: bool) -> None:
        self._inner = inner
        self._events = events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        count = 0
        async for chunk in self._inner:
            for number, event in enumerate(self._split(chunk)):
                marks = sum(event.count(mark) for mark in _MARKS)
                count = marks if number else count + marks
                if count > MAX_VALUES:
                    raise TerminalError(f"the answer has more than {MAX_VALUES} values", reason="TooLarge")
            yield chunk

    async def aclose(self) -> None:
        """Close the connection."""
        await self._inner.aclose()

    def _split(self, chunk: bytes) -> list[bytes]:
        """Return the events in *chunk*; an end that is cut in two goes unseen, so that more is counted, not less."""
        if not self._events:
            return [chunk]
        end = next((end for end in _ENDS if end in chunk), None)
        return [chunk] if end is None else chunk.split(end)
