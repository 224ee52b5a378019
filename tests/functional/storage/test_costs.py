from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fairlead.errors import InvalidObject
from fairlead.storage import Storage
from fairlead.storage.base import CallAnswer, CostRow, Effects, Fence, NodeRecord, Payment, Reservation
from fairlead.testing.storage import CLUSTER, NOW, make_intent, start_run

ANSWER = CallAnswer({"result": "hi"}, NOW, input_tokens=10, output_tokens=5, cost=700)
TOMORROW = NOW + timedelta(days=1)


async def call(storage: Storage, fence: Fence, key: str, answer: CallAnswer = ANSWER, **changes: object) -> None:
    """Make a call and answer it."""
    uid = fence.task_id.removesuffix("-task")
    await storage.begin_call(fence, make_intent(key, uid, **changes))
    await storage.finish_call(fence.task_id, key, answer, span=None)


async def sums_of_nodes(storage: Storage) -> dict[tuple[str, str, int], tuple[int, int, int, int]]:
    return {
        (node.node, node.item, node.iteration): (
            node.input_tokens,
            node.output_tokens,
            node.cost,
            node.unpriced_calls,
        )
        for node in await storage.nodes_of_run("run-1")
    }


async def test_calls_are_summed_for_the_item_and_the_node_in_every_iteration(storage: Storage) -> None:
    fence = await start_run(storage)
    keys = [("a", "", 1), ("a", "0", 1), ("a", "0", 2), ("a", "1", 1), ("b", "", 1)]
    nodes = tuple(NodeRecord("run-1", node, item, iteration, started_at=NOW) for node, item, iteration in keys)
    await storage.append(fence, first=0, entries=[{"kind": "X"}], effects=Effects(nodes=nodes), at=NOW)

    await call(storage, fence, "a/=0/1/1/0", item="0")
    await call(storage, fence, "a/=0/1/2/0", replace(ANSWER, cost=None), item="0")
    await call(storage, fence, "a/=0/2/1/0", item="0")
    await call(storage, fence, "a/=1/1/1/0", item="1")
    await call(storage, fence, "b/-/1/1/0", replace(ANSWER, cost=1))
    await call(storage, fence, "b/-/1/1/1", CallAnswer({}, NOW, cost=0, priced=False), action="tool")

    assert await sums_of_nodes(storage) == {
        ("a", "", 1): (30, 15, 1400, 1),
        ("a", "0", 1): (20, 10, 700, 1),
        ("a", "1", 1): (10, 5, 700, 0),
        ("a", "0", 2): (10, 5, 700, 0),
        ("a", "", 2): (10, 5, 700, 0),
        ("b", "", 1): (10, 5, 1, 0),
    }


async def test_calls_are_summed_for_the_nodes_around_a_sub_workflow(storage: Storage) -> None:
    fence = await start_run(storage)

    await call(storage, fence, "a[x]#3.2/b[]/c/=0/2/1/0", node="a[x]#3.2/b[]/c", item="0")

    spent = (10, 5, 700, 0)
    assert await sums_of_nodes(storage) == {
        ("a", "", 3): spent,
        ("a", "x", 3): spent,
        ("a[x]#3.2/b", "", 1): spent,
        ("a[x]#3.2/b", '""', 1): spent,
        ("a[x]#3.2/b[]/c", "", 2): spent,
        ("a[x]#3.2/b[]/c", "0", 2): spent,
    }


async def test_calls_are_summed_for_each_model_that_was_paid(storage: Storage) -> None:
    fence = await start_run(storage)
    paid = (Payment("broken", 4, 3, 100), Payment("odd", 3, 1, None), Payment("spare", 3, 1, 600))

    await call(storage, fence, "a/-/1/1/0", replace(ANSWER, model="spare", cost=None, paid=paid))
    await call(storage, fence, "b/-/1/1/0", replace(ANSWER, model="spare"))

    rows = await storage.costs(CLUSTER, by=("model",))
    assert {row.key["model"]: (row.calls, row.input_tokens, row.cost, row.unpriced_calls) for row in rows} == {
        "broken": (0, 4, 100, 0),
        "odd": (0, 3, 0, 1),
        "spare": (2, 13, 1300, 0),
    }
    run = await storage.get_run("run-1")
    assert run is not None
    assert (run.input_tokens, run.output_tokens, run.cost, run.unpriced_calls) == (20, 10, 1400, 1)


async def test_a_node_that_is_written_again_keeps_its_sums(storage: Storage) -> None:
    fence = await start_run(storage)
    began = NodeRecord("run-1", "a", started_at=NOW)
    await storage.append(fence, first=0, entries=[{"kind": "X"}], effects=Effects(nodes=(began,)), at=NOW)
    await call(storage, fence, "a/-/1/1/0")
    ended = replace(began, state="Succeeded", output={"x": 1}, finished_at=NOW, reused="run-0")

    await storage.append(fence, first=1, entries=[{"kind": "Y"}], effects=Effects(nodes=(ended,)), at=NOW)

    assert await storage.nodes_of_run("run-1") == [replace(ended, input_tokens=10, output_tokens=5, cost=700)]


async def test_costs_are_summed_by_whatever_is_asked(storage: Storage) -> None:
    for uid, workflow, namespace in (("run-1", "triage", "default"), ("run-2", "report", "team")):
        fence = await start_run(storage, uid, workflow=workflow, namespace=namespace)
        await call(storage, fence, "a/-/1/1/0", target="fast")
        await call(storage, fence, "a/-/1/1/1", replace(ANSWER, finished_at=TOMORROW), target="slow", agent="engineer")
        await call(storage, fence, "a/-/1/1/2", CallAnswer({}, NOW, cost=0, priced=False), action="tool", target="sql")
    await call(storage, fence, "a/-/1/1/3", replace(ANSWER, cost=None, reply={"scripted": True}), target="fast")

    assert await storage.costs(CLUSTER, by=("model",)) == [
        CostRow({"model": "fast"}, 3, 30, 15, 1400, 1, 1),
        CostRow({"model": "slow"}, 2, 20, 10, 1400, 0, 0),
    ]
    assert await storage.costs(CLUSTER, by=("day", "agent"), namespace="team") == [
        CostRow({"day": "2026-01-02", "agent": ""}, 2, 20, 10, 700, 1, 1),
        CostRow({"day": "2026-01-03", "agent": "engineer"}, 1, 10, 5, 700, 0, 0),
    ]
    assert await storage.costs(CLUSTER, by=(), workflow="triage") == [CostRow({}, 2, 20, 10, 1400, 0, 0)]
    assert await storage.costs("another cluster", by=()) == []


@pytest.mark.parametrize(
    ("since", "until", "calls"),
    [
        pytest.param(None, None, 2, id="all"),
        pytest.param(TOMORROW, None, 1, id="since-a-moment-of-a-day"),
        pytest.param(None, datetime(2026, 1, 3, tzinfo=UTC), 1, id="until-midnight"),
        pytest.param(NOW, TOMORROW, 2, id="until-a-moment-of-a-day"),
        pytest.param(TOMORROW + timedelta(days=1), None, 0, id="later"),
    ],
)
async def test_costs_of_days(storage: Storage, since: datetime | None, until: datetime | None, calls: int) -> None:
    fence = await start_run(storage)
    await call(storage, fence, "k0")
    await call(storage, fence, "k1", replace(ANSWER, finished_at=TOMORROW))

    rows = await storage.costs(CLUSTER, by=("workflow",), since=since, until=until)

    assert sum(row.calls for row in rows) == calls


async def test_costs_by_something_unknown_is_refused(storage: Storage) -> None:
    with pytest.raises(InvalidObject, match="day, namespace, workflow, agent, model"):
        await storage.costs(CLUSTER, by=("day", "cost; --"))


async def test_a_lost_call_is_part_of_the_sums(storage: Storage) -> None:
    fence = await start_run(storage)
    worst = Reservation((), input_tokens=50, input_cost=100, output_tokens=20, output_token_cost=10)
    await storage.begin_call(fence, make_intent(reservation=worst))

    await storage.repeat_call(make_intent(gateway="gateway-2", reservation=worst), lost="gateway-1")
    await storage.finish_call("run-1-task", "a/-/1/1/0", ANSWER, span=None)

    assert await storage.costs(CLUSTER, by=()) == [CostRow({}, 2, 60, 25, 1000, 0, 0)]
    assert await sums_of_nodes(storage) == {("a", "", 1): (60, 25, 1000, 0)}
    run = await storage.get_run("run-1")
    assert run is not None
    assert (run.cost, run.input_tokens, run.output_tokens) == (1000, 60, 25)


async def test_a_lost_call_of_an_external_agent_is_part_of_the_sums(storage: Storage) -> None:
    fence = await start_run(storage)
    worst = Reservation((), input_tokens=0, input_cost=100, output_tokens=0, least_output_tokens=0)
    await storage.begin_call(fence, make_intent(action="agent", reservation=worst))

    await storage.repeat_call(make_intent(action="agent", gateway="gateway-2", reservation=worst), lost="gateway-1")

    run = await storage.get_run("run-1")
    assert run is not None
    assert (run.cost, run.unpriced_calls) == (100, 0)
    assert await sums_of_nodes(storage) == {("a", "", 1): (0, 0, 100, 0)}
    (row,) = await storage.costs(CLUSTER, by=("agent", "model"))
    assert (row.key, row.calls, row.cost) == ({"agent": "default", "model": ""}, 1, 100)
