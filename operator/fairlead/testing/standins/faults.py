"""What goes wrong between a provider and whoever asks it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from fairlead.testing.standins.wire import wire_of

_LARGE: Final = 10 << 20
_NO_LINGER: Final = struct.pack("ii", 1, 0)
_DRIP_SECONDS: Final = 0.02
_KEYS: Final = ("authorization", "x-api-key", "x-goog-api-key")


@dataclass(frozen=True, slots=True)
class Failure:
    """What is answered instead."""

    status: int
    message: str = "no"
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0
    """How long it takes to say so."""


class Fault(StrEnum):
    """An answer with status 200 that is none."""

    RESET = "reset"
    """Begins, then the connection is reset."""
    CUT = "cut"
    """Begins, then the connection is closed as if all had been said."""
    TOLD = "told"
    """Begins, then says what went wrong, with the key in it."""
    EMPTY = "empty"
    HTML = "html"
    INVALID_JSON = "invalid-json"
    HUGE = "huge"
    """10 MB in one piece."""
    ENDLESS = "endless"
    """Goes on for ever, as fast as it can."""
    DRIP = "drip"
    """Goes on for ever, slowly."""
    STALL = "stall"
    """Begins, then says nothing more and keeps the connection."""
    SILENT = "silent"
    """Never says anything."""


class Connections:
    """Knows the sockets of requests, so that they can be reset."""

    def __init__(self) -> None:
        self._transports: dict[Any, Any] = {}

    def protocol(self) -> type[H11Protocol]:
        """Return a protocol for uvicorn that tells of its connections."""
        transports = self._transports

        class Known(H11Protocol):
            def connection_made(self, transport: Any) -> None:
                transports[transport.get_extra_info("peername")] = transport
                super().connection_made(transport)

        return Known

    def reset(self, request: Request) -> None:
        """Reset the connection that a request came by."""
        transport = self._transports[tuple(request.scope["client"])]
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        transport.abort()


async def fail(failure: Failure) -> Response:
    """Answer with an error, in time."""
    await asyncio.sleep(failure.seconds)
    error = {"error": {"message": failure.message, "type": "error", "code": failure.status}}
    return JSONResponse(error, failure.status, headers=failure.headers)


def broken(fault: Fault, request: Request, connections: Connections, *, model: str) -> Response:
    """Answer with *fault*."""
    wire = wire_of(request.url.path)
    media = "text/html" if fault is Fault.HTML else wire.media_type
    return StreamingResponse(_body(fault, request, connections, model=model), media_type=media)


async def _body(fault: Fault, request: Request, connections: Connections, *, model: str) -> AsyncIterator[bytes]:
    wire = wire_of(request.url.path)
    if fault is Fault.HTML:
        yield b"<html><body><h1>Please sign in</h1></body></html>"
    elif fault is Fault.INVALID_JSON:
        yield b'data: {"id": [\n\n' if wire.media_type == "text/event-stream" else b'{"model": \n'
    elif fault is Fault.HUGE:
        yield wire.piece("x" * _LARGE, model)
    elif fault in {Fault.RESET, Fault.CUT, Fault.STALL, Fault.TOLD}:
        yield wire.piece("it begins ", model)
        await asyncio.sleep(_DRIP_SECONDS)
    if fault is Fault.TOLD:
        text = f"overloaded for {[request.headers.get(name) for name in _KEYS]}"
        error = orjson.dumps({"error": {"type": "overloaded_error", "message": text}})
        yield b"data: " + error + b"\n\n" if wire.media_type == "text/event-stream" else error + b"\n"
    while fault in {Fault.ENDLESS, Fault.DRIP}:
        yield wire.piece("and so on " * (200 if fault is Fault.ENDLESS else 1), model)
        await asyncio.sleep(0 if fault is Fault.ENDLESS else _DRIP_SECONDS)
    if fault is Fault.RESET:
        connections.reset(request)
    if fault in {Fault.STALL, Fault.SILENT}:
        await asyncio.Event().wait()  # cancelled when whoever asked has gone
