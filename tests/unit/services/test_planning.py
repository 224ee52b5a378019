from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from fairlead.core.estimates import Range
from fairlead.core.runplan import There
from fairlead.services.planning import Planning, listed_prices, read_prices, show_prices
from fairlead.storage.base import Effects, NodeRecord, RunEnd, RunState
from fairlead.testing.clock import FakeClock
from fairlead.testing.storage import CLUSTER, NAMESPACE, NOW, sqlite_storage, start_run

SPEC = {"model": "fast", "nodes": [{"name": "ask", "llm": {"prompt": "x" * 400, "parameters": {"max_tokens": 10}}}]}
THERE = There(models={"fast": {"model": "openai/gpt-4.1-mini"}})


async def test_plan_knows_listed_prices_and_earlier_runs(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        fence = await start_run(storage, started_at=NOW)
        later = NOW + timedelta(seconds=9)
        record = NodeRecord("run-1", "ask", state="Succeeded", started_at=NOW, finished_at=later)
        end = RunEnd(RunState.SUCCEEDED, "Succeeded", "", None, later)
        await storage.append(fence, first=0, entries=[{"kind": "x"}], effects=Effects(nodes=(record,), end=end), at=NOW)
        planning = Planning(storage, FakeClock(), cluster=CLUSTER)
        plan = await planning.plan(NAMESPACE, "triage", spec=SPEC, inputs={}, there=THERE)
        inline = await planning.plan(NAMESPACE, "", spec=SPEC, inputs={}, there=THERE)
    price = listed_prices(["openai/gpt-4.1-mini"])["openai/gpt-4.1-mini"]
    assert plan.cost == Range(price.cost(100, 10), price.cost(100, 10))
    assert plan.history is not None
    assert (plan.history.runs, plan.history.seconds.p50) == (1, 9)
    assert plan.nodes[0].history is not None
    assert inline.history is None


@pytest.mark.parametrize("models", [[], ["acme/unknown"], [""]])
def test_listed_prices_of_what_nobody_knows(models: list[str]) -> None:
    assert listed_prices(models) == {}


def test_prices_survive_the_wire() -> None:
    prices = listed_prices(["openai/gpt-4.1-mini", "ollama_chat/llama3.2"])
    assert len(prices) == 2
    assert read_prices(show_prices(prices)) == prices
