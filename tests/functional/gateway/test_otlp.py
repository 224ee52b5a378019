"""Traces go to a collector over real HTTP, whatever it does, and no run waits for that."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from fairlead.clock import SystemClock
from fairlead.services.exporting import LOOK_SECONDS, MAX_PAUSE, Exporting
from fairlead.storage import Storage
from fairlead.storage.base import RunEnd, RunState
from fairlead.testing.clock import FakeClock
from fairlead.testing.collector import CollectorStandIn, Refusal, free_port, running_collector, values_of
from fairlead.testing.storage import NOW, sqlite_storage, start_run
from fairlead.testing.world import World
from fairlead.tracing.ids import span_id, trace_id
from fairlead.tracing.otlp import Collector, parse_headers

CANARY = "canary-4f1c2d3e5a6b7c8d9e0f"
SECRET_TEXT = f"call with sk-{CANARY} and Bearer {CANARY}"
_DEADLINE = 60.0


@pytest.fixture
def collector() -> Iterator[CollectorStandIn]:
    with running_collector() as standin:
        yield standin


@pytest.fixture
def own_gateway(collector: CollectorStandIn, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{CANARY}")
    return {"log_level": "DEBUG"}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(_DEADLINE):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.05)


async def finish(world: World) -> Any:
    """Run a run to its end, with a call of a model and one of a tool; secrets in what goes in and comes out."""
    run = await world.submit(run={"name": "exported"})
    pod = await world.pod("agent-0")
    (task,) = await pod.claim()
    await pod.append(task, 0, {"kind": "NodeStarted", "node": "greet"}, {"kind": "NodeStarted", "node": "count"})
    asked = {"model": "default", "messages": [{"role": "user", "content": f"hello {SECRET_TEXT}"}]}
    await pod.call(task, "greet", llm=asked)
    await pod.call(task, "count", action="tool", tool={"name": "sql", "arguments": {"query": "select 42 as n"}})
    done = {"state": "Succeeded", "output": {"said": SECRET_TEXT, "password": CANARY}}
    await pod.append(
        task,
        2,
        {"kind": "NodeFinished", "node": "greet", **done},
        {"kind": "NodeFinished", "node": "count", **done},
        {"kind": "RunFinished", **done},
    )
    return run


async def test_the_gateway_exports_a_whole_trace_without_secrets(world: World, collector: CollectorStandIn) -> None:
    run = await finish(world)
    await until(lambda: len(collector.spans) >= 5)

    (received,) = collector.received
    assert received.headers["authorization"] == f"Bearer {CANARY}"
    assert received.resource == {
        "service.name": "fairlead",
        "k8s.cluster.uid": world.cluster,
        "k8s.namespace.name": world.namespace,
    }
    spans = {span.name: span for span in collector.spans}
    assert set(spans) == {"invoke_workflow triage", "greet", "count", "chat scripted", "execute_tool sql"}
    root, chat, tool = (spans[name] for name in ("invoke_workflow triage", "chat scripted", "execute_tool sql"))
    assert {span.trace_id.hex() for span in collector.spans} == {trace_id(run.uid)}
    assert root.parent_span_id == b""
    assert spans["greet"].parent_span_id.hex() == span_id(run.uid)
    assert chat.parent_span_id == spans["greet"].span_id
    assert (chat.kind, tool.kind) == (Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_INTERNAL)
    assert root.status.code == Status.STATUS_CODE_OK
    known = values_of(chat)
    assert known["gen_ai.operation.name"] == "chat"
    assert known["gen_ai.usage.input_tokens"] > 0
    assert known["fairlead.scripted"] is True
    assert "hi there" in known["gen_ai.output.messages"]
    assert values_of(tool)["gen_ai.tool.name"] == "sql"
    assert "select 42" in values_of(tool)["gen_ai.tool.call.arguments"]
    assert values_of(root)["fairlead.run.name"] == "exported"
    everything = "".join(str(values_of(span)) for span in collector.spans) + world.gateway.log.read_text()
    assert "[redacted]" in everything
    assert CANARY not in everything


async def test_a_run_does_not_wait_for_a_collector_that_is_slow(world: World, collector: CollectorStandIn) -> None:
    collector.refusals.append(Refusal(503, seconds=1.5))
    run = await finish(world)
    ended = await world.storage.get_run(run.uid)
    assert ended is not None
    assert (ended.state, ended.exported, collector.received) == (RunState.SUCCEEDED, False, [])
    await until(lambda: bool(collector.received))
    assert collector.asked == 2


async def finished(storage: Storage, uid: str, **changes: Any) -> None:
    await start_run(storage, uid, **changes)
    await storage.end_run(uid, RunEnd(RunState.FAILED, "Timeout", "late", None, NOW))


class _Bench:
    """An exporter over a storage, with a clock that nobody waits for."""

    def __init__(self, storage: Storage, client: httpx.AsyncClient, url: str) -> None:
        self.storage = storage
        self.clock = FakeClock(NOW + timedelta(seconds=60))
        self.sender = Collector(client, self.clock, url=f"{url}/v1/traces", headers=parse_headers("x-a=b"))
        self.exporting = Exporting(
            storage,
            self.clock,
            self.sender,
            spread=random.Random(1),  # noqa: S311 - no secret
        )

    async def round(self) -> float:
        return await self.exporting.round(self.sender)

    async def exported(self, uid: str) -> bool:
        run = await self.storage.get_run(uid)
        assert run is not None
        return run.exported


async def test_exporting_comes_back_when_the_collector_does(tmp_path: Path) -> None:
    port = free_port()
    async with sqlite_storage(tmp_path) as storage, httpx.AsyncClient(trust_env=False) as client:
        bench = _Bench(storage, client, f"http://127.0.0.1:{port}")
        await finished(storage, "run-1")
        pauses = [await bench.round() for _ in range(10)]
        assert not await bench.exported("run-1")
        assert all(0.5 * min(2.0**n, MAX_PAUSE) <= pause <= min(2.0**n, MAX_PAUSE) for n, pause in enumerate(pauses))
        with running_collector(port=port) as collector:
            assert await bench.round() == LOOK_SECONDS
            assert await bench.exported("run-1")
            assert collector.received[0].headers["x-a"] == "b"
            await bench.round()
            assert collector.asked == 1


@pytest.mark.parametrize(
    ("refusal", "least"),
    [
        pytest.param(Refusal(429, {"Retry-After": "17"}), 17, id="busy"),
        pytest.param(Refusal(429, {"Retry-After": "86400"}), MAX_PAUSE, id="busy-for-long"),
        pytest.param(Refusal(503), 0.5, id="down"),
        pytest.param(Refusal(401), 0.5, id="not-set-up"),
        pytest.param(Refusal(404), 0.5, id="wrong-path"),
    ],
)
async def test_exporting_waits_as_long_as_it_is_asked_to(
    refusal: Refusal, least: float, collector: CollectorStandIn, tmp_path: Path
) -> None:
    collector.refusals.append(refusal)
    async with sqlite_storage(tmp_path) as storage, httpx.AsyncClient(trust_env=False) as client:
        bench = _Bench(storage, client, collector.url)
        await finished(storage, "run-1")
        assert least <= await bench.round() <= max(least, 1)
        assert not await bench.exported("run-1")
        await bench.round()
        assert await bench.exported("run-1")
    (span,) = collector.spans
    assert (span.name, span.status.code) == ("invoke_workflow triage", Status.STATUS_CODE_ERROR)
    assert values_of(span)["error.type"] == "Timeout"


@pytest.mark.parametrize("url", ["nonsense", "http://[x", "ftp://collector"])
async def test_exporting_keeps_traces_while_the_address_is_wrong(url: str, tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage, httpx.AsyncClient(trust_env=False) as client:
        bench = _Bench(storage, client, url)
        await finished(storage, "run-1")
        assert await bench.round() <= 1
        assert not await bench.exported("run-1")


async def test_exporting_drops_a_trace_that_is_refused_for_good_and_goes_on(
    collector: CollectorStandIn, tmp_path: Path
) -> None:
    async with sqlite_storage(tmp_path) as storage, httpx.AsyncClient(trust_env=False) as client:
        bench = _Bench(storage, client, collector.url)
        await finished(storage, "run-1")
        await finished(storage, "run-2")
        collector.refusals.append(Refusal(400))
        await bench.round()
        assert await bench.exported("run-1")
        assert await bench.exported("run-2")
    assert len(collector.received) == 1


async def test_exporting_lets_a_run_settle_first(collector: CollectorStandIn, tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage, httpx.AsyncClient(trust_env=False) as client:
        bench = _Bench(storage, client, collector.url)
        bench.clock = FakeClock(NOW + timedelta(seconds=1))
        early = Exporting(storage, bench.clock, bench.sender)
        await finished(storage, "run-1")
        await early.round(bench.sender)
        assert not await bench.exported("run-1")
        bench.clock.advance(2)
        await early.round(bench.sender)
        assert await bench.exported("run-1")


async def test_exporting_names_the_cluster_of_the_run(collector: CollectorStandIn, tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage, httpx.AsyncClient(trust_env=False) as client:
        bench = _Bench(storage, client, collector.url)
        await finished(storage, "run-1", cluster="another")
        await bench.round()
    assert collector.received[0].resource["k8s.cluster.uid"] == "another"


async def test_exporting_says_what_the_collector_left_out(
    collector: CollectorStandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collector.rejected_spans = 3
    async with sqlite_storage(tmp_path) as storage, httpx.AsyncClient(trust_env=False) as client:
        bench = _Bench(storage, client, collector.url)
        await finished(storage, "run-1")
        await bench.round()
        assert await bench.exported("run-1")
    said = capsys.readouterr()
    assert "3 spans: too many" in said.out + said.err


async def test_exporting_without_a_collector_does_nothing(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        await finished(storage, "run-1")
        await Exporting(storage, SystemClock(), None).run()
        (waiting,) = await storage.runs_to_export()
    assert waiting.uid == "run-1"
