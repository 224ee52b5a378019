"""Bounds the bodies of requests before anybody reads them."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fairlead.gateway.errors import problem

MAX_BODY_BYTES: Final = 24 << 20


class _TooMuch(Exception):
    pass


class BodyLimit:
    """Refuses bodies over a limit, also those that do not say how long they are."""

    def __init__(self, app: ASGIApp, *, limit: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = next((value for key, value in scope["headers"] if key == b"content-length"), b"0")
        refusal = problem(413, "TooLarge", f"a request has at most {self._limit} bytes")
        if not declared.isdigit() or int(declared) > self._limit:
            await refusal(scope, receive, send)
            return
        try:
            await self._app(scope, self._counting(receive), send)
        except _TooMuch:
            await refusal(scope, receive, send)

    def _counting(self, receive: Receive) -> Receive:
        left = self._limit

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise _TooMuch
            return message

        return counted
