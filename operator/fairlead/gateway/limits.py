"""Bounds the bodies of requests before anybody reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fairlead.gateway.errors import problem

MAX_BODY_BYTES: Final = 24 << 20
SMALL_BODIES: Final[Mapping[str, int]] = {"/v1/register": 64 << 10}
"""Less is enough where nobody has shown yet who it is: the body is read before the token is reviewed."""
_OF_STRANGERS: Final = ("/a2a/", 1 << 20)
"""Messages of people and programs that are no agents of ours."""
BODY_SECONDS: Final = 60.0


class _TooMuch(Exception):
    pass


class _TooSlow(Exception):
    pass


class BodyLimit:
    """Refuses bodies over a limit, also those that do not say how long they are, and those that do not come to an end.

    Args:
        seconds: a whole body has to be there within this time.
    """

    def __init__(self, app: ASGIApp, *, limit: int = MAX_BODY_BYTES, seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._limit = limit
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = next((value for key, value in scope["headers"] if key == b"content-length"), b"0")
        limit = min(_limit(scope["path"]), self._limit)
        refusal = problem(413, "TooLarge", f"a request has at most {limit} bytes")
        if not declared.isdigit() or int(declared) > limit:
            await refusal(scope, receive, send)
            return
        try:
            await self._app(scope, self._counting(receive, limit), send)
        except _TooMuch:
            await refusal(scope, receive, send)
        except _TooSlow:
            late = problem(408, "Timeout", f"the body was not there within {self._seconds:g} s", Connection="close")
            await late(scope, receive, send)

    def _counting(self, receive: Receive, limit: int) -> Receive:
        left = limit
        deadline: float | None = asyncio.get_running_loop().time() + self._seconds

        async def counted() -> Message:
            nonlocal left, deadline
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise _TooSlow from None
            left -= len(message.get("body", b""))
            if left < 0:
                raise _TooMuch
            if not message.get("more_body", False):
                deadline = None  # what comes now says that the other side hung up, whenever it does
            return message

        return counted


def _limit(path: str) -> int:
    prefix, small = _OF_STRANGERS
    return small if path.startswith(prefix) else SMALL_BODIES.get(path, MAX_BODY_BYTES)
