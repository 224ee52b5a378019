"""Sends traces to a collector: OTLP over HTTP, as protobuf.

Does not belong here: which traces there are, and when another try is made.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, Final, Protocol

import httpx
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan

from fairlead import __version__
from fairlead.clock import Clock
from fairlead.errors import RetryableError, TerminalError
from fairlead.tracing.attributes import to_text

SCOPE: Final = "fairlead"
SPANS_PER_REQUEST: Final = 200
_MAX_ANSWER: Final = 1 << 20
_SECONDS: Final = 30.0
_MAX_INT: Final = 1 << 63
_BAD_REQUEST: Final = 400
_FOR_LATER: Final = frozenset({401, 403, 404, 405, 407, 408, 429})
"""Refusals that say nothing against the trace itself: the collector is busy, or not set up as it should be."""
_STATUS: Final = {"ok": Status.STATUS_CODE_OK, "error": Status.STATUS_CODE_ERROR}


class SpanLike(Protocol):
    """What is exported of a span."""

    @property
    def span_id(self) -> str: ...  # noqa: D102 - a protocol of plain values
    @property
    def parent_id(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def started_at(self) -> datetime: ...  # noqa: D102
    @property
    def finished_at(self) -> datetime | None: ...  # noqa: D102
    @property
    def status(self) -> str: ...  # noqa: D102
    @property
    def attributes(self) -> Mapping[str, Any]: ...  # noqa: D102


def build_requests(
    trace_id: str, spans: Iterable[SpanLike], *, resource: Mapping[str, Any], end: datetime
) -> Iterator[bytes]:
    """Yield a trace as requests of a bounded number of spans.

    Args:
        trace_id: 32 digits in hexadecimal.
        spans: all of one trace.
        resource: what the spans are of.
        end: of spans that have none: of calls that were cut off when their run ended.
    """
    left = iter(spans)
    while some := list(islice(left, SPANS_PER_REQUEST)):
        scope = ScopeSpans(
            scope=InstrumentationScope(name=SCOPE, version=__version__),
            spans=[_span(bytes.fromhex(trace_id), span, end) for span in some],
        )
        whole = ResourceSpans(resource=Resource(attributes=_attributes(resource)), scope_spans=[scope])
        yield ExportTraceServiceRequest(resource_spans=[whole]).SerializeToString()


def _span(trace_id: bytes, span: SpanLike, end: datetime) -> ProtoSpan:
    asks = span.attributes.get("gen_ai.operation.name") == "chat"
    return ProtoSpan(
        trace_id=trace_id,
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id),
        name=span.name,
        kind=ProtoSpan.SPAN_KIND_CLIENT if asks else ProtoSpan.SPAN_KIND_INTERNAL,
        start_time_unix_nano=_nanoseconds(span.started_at),
        end_time_unix_nano=_nanoseconds(max(span.started_at, span.finished_at or end)),
        attributes=_attributes(span.attributes),
        status=Status(
            code=_STATUS.get(span.status, Status.STATUS_CODE_UNSET),
            message=str(span.attributes.get("error.message") or "") if span.status == "error" else "",
        ),
    )


def _nanoseconds(moment: datetime) -> int:
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


def _attributes(values: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in values.items() if value is not None]


def _value(value: Any) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int() if -_MAX_INT <= value < _MAX_INT:
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=to_text(value))
        case list() | tuple():
            return AnyValue(array_value=ArrayValue(values=[_value(one) for one in value]))
        case _:
            return AnyValue(string_value=to_text(value))


class Collector:
    """A collector's endpoint for traces.

    Args:
        url: the whole URL, ``…/v1/traces``.
        headers: secret; never shown.
    """

    def __init__(self, client: httpx.AsyncClient, clock: Clock, *, url: str, headers: Mapping[str, str]) -> None:
        self._client = client
        self._clock = clock
        self._url = url
        self._headers = {
            **headers,
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "gzip",
            "User-Agent": f"fairlead/{__version__}",
        }

    async def send(self, request: bytes) -> str:
        """Send one request; return what the collector did not take of it, or nothing.

        Raises:
            RetryableError: not now.
            TerminalError: never, as it is.
        """
        try:
            async with (
                asyncio.timeout(_SECONDS),
                self._client.stream(
                    "POST", self._url, content=gzip.compress(request, 5), headers=self._headers
                ) as answer,
            ):
                body = await _bounded_body(answer)
        except TimeoutError:
            raise RetryableError(f"the collector does not answer within {_SECONDS:g} s", retry_after=0) from None
        except httpx.InvalidURL as error:
            raise RetryableError(
                f"the collector's URL is none: {error}", retry_after=0, reason="InvalidEndpoint"
            ) from None
        except httpx.HTTPError as error:
            raise RetryableError(f"the collector does not answer: {type(error).__name__}", retry_after=0) from None
        status = answer.status_code
        if status < _BAD_REQUEST:
            return _rejected(body)
        if status in _FOR_LATER or status >= 500:  # noqa: PLR2004 - HTTP's
            after = _seconds(answer.headers.get("Retry-After", ""), self._clock.now())
            raise RetryableError(f"the collector answers HTTP {status}", retry_after=after)
        raise TerminalError(f"the collector answers HTTP {status}", reason="CollectorRefused")


async def _bounded_body(answer: httpx.Response) -> bytes:
    body = b""
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > _MAX_ANSWER:
            return b""
    return body


def _rejected(body: bytes) -> str:
    """Return what an answer says of spans that were not taken."""
    response = ExportTraceServiceResponse()
    try:
        response.ParseFromString(body)
    except DecodeError:
        return ""
    partial = response.partial_success
    return f"{partial.rejected_spans} spans: {partial.error_message}" if partial.rejected_spans else ""


def _seconds(header: str, now: datetime) -> float:
    """Return the seconds that ``Retry-After`` asks for, a number or a date; 0 for none."""
    if header.strip().isdigit():
        return float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - now).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def parse_headers(text: str) -> dict[str, str]:
    """Return the headers that ``OTEL_EXPORTER_OTLP_HEADERS`` means: ``name=value`` with commas between, URL-encoded."""
    from urllib.parse import unquote

    pairs: Sequence[tuple[str, str, str]] = [part.partition("=") for part in text.split(",")]
    return {unquote(name.strip()).lower(): unquote(value.strip()) for name, equals, value in pairs if equals}
