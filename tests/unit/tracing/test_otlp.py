from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from fairlead.settings import ExportSettings
from fairlead.tracing.ids import span_id, trace_id
from fairlead.tracing.otlp import SPANS_PER_REQUEST, build_requests, parse_headers

NOW = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)


@dataclass
class Part:
    name: str = "a"
    span_id: str = span_id("uid", "a")
    parent_id: str = ""
    started_at: datetime = NOW
    finished_at: datetime | None = None
    status: str = "ok"
    attributes: dict[str, Any] = field(default_factory=dict)


def parsed(*parts: Part) -> list[ExportTraceServiceRequest]:
    end = NOW + timedelta(seconds=5)
    requests = build_requests(trace_id("uid"), parts, resource={"service.name": "fairlead"}, end=end)
    return [ExportTraceServiceRequest.FromString(one) for one in requests]


def only_span(part: Part) -> Span:
    (request,) = parsed(part)
    return request.resource_spans[0].scope_spans[0].spans[0]


def test_build_requests_gives_ids_times_and_status() -> None:
    span = only_span(Part(parent_id=span_id("uid"), finished_at=NOW + timedelta(microseconds=1)))
    assert (span.trace_id.hex(), span.span_id.hex()) == (trace_id("uid"), span_id("uid", "a"))
    assert span.parent_span_id.hex() == span_id("uid")
    assert span.start_time_unix_nano == 1_795_262_400_123_456_000
    assert span.end_time_unix_nano - span.start_time_unix_nano == 1000
    assert span.status.code == Status.STATUS_CODE_OK


def test_build_requests_ends_what_was_cut_off_with_the_run() -> None:
    span = only_span(Part())
    assert span.end_time_unix_nano - span.start_time_unix_nano == 5_000_000_000


def test_build_requests_says_what_went_wrong() -> None:
    span = only_span(Part(status="error", attributes={"error.type": "Timeout", "error.message": "late"}))
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "late")


def test_build_requests_knows_calls_of_models_as_clients() -> None:
    assert only_span(Part(attributes={"gen_ai.operation.name": "chat"})).kind == Span.SPAN_KIND_CLIENT
    assert only_span(Part(attributes={"gen_ai.operation.name": "execute_tool"})).kind == Span.SPAN_KIND_INTERNAL


def test_build_requests_keeps_the_types_of_attributes() -> None:
    given = {"a": True, "b": 3, "c": 1.5, "d": "x\ud800", "e": ["stop", 1], "f": {"k": 1}, "g": None, "h": 1 << 80}
    values = {one.key: one.value for one in only_span(Part(attributes=given)).attributes}
    assert (values["a"].bool_value, values["b"].int_value, values["c"].double_value) == (True, 3, 1.5)
    assert values["d"].string_value == "x?"
    assert [one.string_value or one.int_value for one in values["e"].array_value.values] == ["stop", 1]
    assert values["f"].string_value == '{"k":1}'
    assert "g" not in values
    assert values["h"].string_value


def test_build_requests_bounds_the_spans_of_one_request() -> None:
    requests = parsed(*[Part() for _ in range(2 * SPANS_PER_REQUEST + 1)])
    assert [len(one.resource_spans[0].scope_spans[0].spans) for one in requests] == [200, 200, 1]
    assert {one.key: one.value.string_value for one in requests[2].resource_spans[0].resource.attributes} == {
        "service.name": "fairlead"
    }


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ("", {}),
        ("Authorization=Basic%20abc==,x-a=1 ", {"authorization": "Basic abc==", "x-a": "1"}),
        ("nonsense", {}),
    ],
)
def test_parse_headers_as_opentelemetry_writes_them(text: str, headers: dict[str, str]) -> None:
    assert parse_headers(text) == headers


def test_export_settings_take_opentelemetrys_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ExportSettings().traces_url == ""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=canary1234")
    settings = ExportSettings()
    assert settings.traces_url == "http://collector:4318/v1/traces"
    assert settings.traces_headers == "authorization=canary1234"
    assert "canary1234" not in repr(settings)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://other/x")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=b")
    assert (ExportSettings().traces_url, ExportSettings().traces_headers) == ("http://other/x", "a=b")
