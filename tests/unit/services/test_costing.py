from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from fairlead.errors import InvalidObject
from fairlead.services.costing import Costing, CostQuery
from fairlead.storage import Storage
from fairlead.storage.base import CallAnswer, Effects, NodeRecord, RunEnd, RunState
from fairlead.testing.storage import CLUSTER, NAMESPACE, NOW, make_intent, sqlite_storage, start_run


async def spend(
    storage: Storage, uid: str, key: str, *, cost: int | None, target: str = "fast", scripted: bool = False
) -> None:
    fence = await start_run(storage, uid)
    node = key.rsplit("/", 4)[0]
    intent = make_intent(key, uid, node=node, target=target, started_at=NOW)
    await storage.begin_call(fence, intent)
    reply = {"result": "x", "scripted": scripted}
    await storage.finish_call(intent.task_id, key, CallAnswer(reply, NOW, 100, 10, cost), span=None)
    record = NodeRecord(uid, intent.node, state="Succeeded", started_at=NOW, finished_at=NOW)
    end = RunEnd(RunState.SUCCEEDED, "Succeeded", "", None, NOW)
    await storage.append(fence, first=0, entries=[{"kind": "x"}], effects=Effects(nodes=(record,), end=end), at=NOW)


async def test_costs_by_model_are_exact_and_never_zero_for_what_is_unknown(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        await spend(storage, "run-1", "a/-/1/1/0", cost=3)
        await spend(storage, "run-2", "a/-/1/1/0", cost=4)
        await spend(storage, "run-3", "a/-/1/1/0", cost=None, target="odd")
        await spend(storage, "run-4", "a/-/1/1/0", cost=0, target="play", scripted=True)
        shown = await Costing(storage, cluster=CLUSTER).costs(CostQuery(("model",), namespace=NAMESPACE))
    rows = {row["model"]: row for row in shown["items"]}
    assert (rows["fast"]["cost"], rows["fast"]["calls"]) == ("0.000000000007", 2)
    assert rows["fast"]["usage"] == {"inputTokens": 200, "outputTokens": 20}
    assert (rows["odd"]["cost"], rows["odd"]["known"], rows["odd"]["unpricedCalls"]) == (None, "0", 1)
    assert (rows["play"]["cost"], rows["play"]["scriptedCalls"]) == ("0", 1)
    assert (shown["total"]["cost"], shown["total"]["known"], shown["total"]["calls"]) == (None, "0.000000000007", 4)


async def test_costs_by_several_and_since(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        await spend(storage, "run-1", "a/-/1/1/0", cost=3)
        costing = Costing(storage, cluster=CLUSTER)
        shown = await costing.costs(CostQuery(("day", "workflow", "namespace", "agent"), since=NOW))
        later = await costing.costs(CostQuery(("day",), since=NOW + timedelta(days=1)))
    (row,) = shown["items"]
    assert (row["day"], row["workflow"], row["namespace"], row["agent"]) == ("2026-01-02", "triage", NAMESPACE, "")
    assert later["items"] == []
    assert later["total"]["cost"] == "0"


async def test_costs_by_node_count_what_is_inside_once(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        await spend(storage, "run-1", "outer/inner/-/1/1/0", cost=5)
        await spend(storage, "run-2", "outer#2.1/inner/-/1/1/0", cost=6)
        costing = Costing(storage, cluster=CLUSTER)
        run = await storage.get_run("run-1")
        assert run is not None
        of_run = await costing.of_run(run)
        of_workflow = await costing.costs(CostQuery(("node",), namespace=NAMESPACE, workflow="triage"))
    assert [(row["node"], row["known"]) for row in of_run["items"]] == [("outer/inner", "0.000000000005")]
    (row,) = of_workflow["items"]
    assert (row["node"], row["executions"], row["cost"]) == ("outer/inner", 2, "0.000000000011")
    assert of_workflow["runs"] == 2
    assert of_workflow["total"]["cost"] == "0.000000000011"


@pytest.mark.parametrize("by", [(), ("user",), ("node", "day"), ("",)])
async def test_costs_refuse_what_cannot_be_summed_by(by: tuple[str, ...], tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        with pytest.raises(InvalidObject, match="costs are summed by"):
            await Costing(storage, cluster=CLUSTER).costs(CostQuery(by))


async def test_costs_by_node_are_of_one_workflow(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        with pytest.raises(InvalidObject, match="one workflow"):
            await Costing(storage, cluster=CLUSTER).costs(CostQuery(("node",), namespace=NAMESPACE))
