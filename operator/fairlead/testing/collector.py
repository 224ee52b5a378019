"""A stand-in for a collector of traces: a real HTTP server that reads OTLP's protobuf."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_START_SECONDS = 10.0
_PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True, slots=True)
class Received:
    """A request that was taken."""

    headers: dict[str, str]
    resource: dict[str, Any]
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a request is answered with instead."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    """How long it takes."""


@dataclass
class CollectorStandIn:
    """What the stand-in saw, and how it answers."""

    url: str = ""
    received: list[Received] = field(default_factory=list)
    refusals: deque[Refusal] = field(default_factory=deque)
    """Given out first, one a request."""
    rejected_spans: int = 0
    asked: int = 0
    """Requests, refused ones too."""

    @property
    def spans(self) -> list[Span]:
        """Every span that was taken."""
        return [span for one in self.received for span in one.spans]


def values_of(span: Span) -> dict[str, Any]:
    """Return a span's attributes as plain values."""
    return {one.key: _plain(one.value) for one in span.attributes}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_collector(*, port: int = 0) -> Iterator[CollectorStandIn]:
    """Serve on a port of this machine, in a thread."""
    standin = CollectorStandIn()
    app = Starlette(routes=[Route("/v1/traces", _take(standin), methods=["POST"])])
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="collector", daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_SECONDS
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    standin.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield standin
    finally:
        server.should_exit = True
        thread.join(_START_SECONDS)


def _take(standin: CollectorStandIn) -> Any:
    async def take(request: Request) -> Response:
        standin.asked += 1
        body = await request.body()
        if standin.refusals:
            refusal = standin.refusals.popleft()
            await asyncio.sleep(refusal.seconds)
            return Response(status_code=refusal.status, headers=refusal.headers)
        if request.headers.get("content-type") != _PROTOBUF:
            return Response(status_code=415)
        raw = gzip.decompress(body) if request.headers.get("content-encoding") == "gzip" else body
        whole = ExportTraceServiceRequest.FromString(raw)
        for one in whole.resource_spans:
            resource = {each.key: _plain(each.value) for each in one.resource.attributes}
            spans = tuple(span for scope in one.scope_spans for span in scope.spans)
            standin.received.append(Received(dict(request.headers), resource, spans))
        partial = ExportTracePartialSuccess(rejected_spans=standin.rejected_spans, error_message="too many")
        answer = ExportTraceServiceResponse(partial_success=partial if standin.rejected_spans else None)
        return Response(answer.SerializeToString(), media_type=_PROTOBUF)

    return take


def _plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None
