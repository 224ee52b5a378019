from __future__ import annotations

from dataclasses import replace

import pytest

from fairlead.storage import Storage
from fairlead.storage.base import (
    CallAnswer,
    CallIntent,
    CallRecord,
    CallState,
    Effects,
    Fence,
    NodeRecord,
    Run,
    RunEnd,
    RunState,
    Span,
)
from fairlead.testing.storage import NOW, make_revision, make_run, make_session, make_task
from fairlead_agent.protocol import call_key

FENCE = Fence("run-1-task", "pod-1-session", 1)
INTENT = CallIntent(
    task_id="run-1-task",
    run_uid="run-1",
    key="a/-/1/1/0",
    digest="d",
    action="llm",
    node="a",
    item="",
    gateway="gateway-1",
    target="default",
    request={"prompt": "hi"},
    started_at=NOW,
)
ANSWER = CallAnswer({"result": "hello"}, NOW, input_tokens=10, output_tokens=20, cost=3_000_000_000_000)


@pytest.fixture(autouse=True)
async def claimed(storage: Storage) -> None:
    await storage.submit(make_run(), revision=make_revision(), task=make_task())
    await storage.register(make_session(), at=NOW)
    await storage.claim(make_session(), limit=1, at=NOW)


async def run_of(storage: Storage) -> Run:
    run = await storage.get_run("run-1")
    assert run is not None
    return run


async def test_begin_call_is_new_once(storage: Storage) -> None:
    assert (await storage.begin_call(FENCE, INTENT)).known is None

    record = (await storage.begin_call(FENCE, replace(INTENT, digest="other", gateway="gateway-2"))).known

    assert record == CallRecord(INTENT, CallState.INTENT, None, 0)
    assert await storage.get_call("run-1-task", INTENT.key) == record


async def test_finish_call_charges_once_however_often_it_is_repeated(storage: Storage) -> None:
    await storage.begin_call(FENCE, INTENT)
    span = Span("run-1", "call-1", "", "default", "call", NOW, NOW, "ok")

    await storage.finish_call("run-1-task", INTENT.key, ANSWER, span=span)
    await storage.finish_call("run-1-task", INTENT.key, replace(ANSWER, cost=1, reply={}), span=None)

    run = await run_of(storage)
    assert (run.input_tokens, run.output_tokens, run.cost, run.unpriced_calls) == (10, 20, 3_000_000_000_000, 0)
    assert (await storage.begin_call(FENCE, INTENT)).known == CallRecord(INTENT, CallState.DONE, ANSWER, 0)
    assert await storage.spans_of_run("run-1") == [span]


async def test_finish_call_is_kept_when_the_attempt_is_over(storage: Storage) -> None:
    await storage.begin_call(FENCE, INTENT)
    await storage.requeue_pod("pod-1-uid", at=NOW)

    await storage.finish_call("run-1-task", INTENT.key, ANSWER, span=None)

    assert (await run_of(storage)).cost == ANSWER.cost
    await storage.register(make_session("pod-2"), at=NOW)
    await storage.claim(make_session("pod-2"), limit=1, at=NOW)
    record = (await storage.begin_call(Fence("run-1-task", "pod-2-session", 2), INTENT)).known
    assert record is not None
    assert record.answer == ANSWER


@pytest.mark.parametrize(
    ("cost", "priced", "unpriced"),
    [
        pytest.param(None, True, 1, id="unknown-price"),
        pytest.param(None, False, 0, id="a-tool-has-no-price"),
        pytest.param(0, True, 0, id="free"),
    ],
)
async def test_finish_call_counts_calls_whose_price_is_unknown(
    storage: Storage, *, cost: int | None, priced: bool, unpriced: int
) -> None:
    await storage.begin_call(FENCE, INTENT)

    await storage.finish_call("run-1-task", INTENT.key, replace(ANSWER, cost=cost, priced=priced), span=None)

    run = await run_of(storage)
    assert (run.cost, run.unpriced_calls) == (0, unpriced)


async def test_finish_call_counts_what_a_script_answered(storage: Storage) -> None:
    for key, reply in (("k0", {"scripted": True}), ("k1", {})):
        await storage.begin_call(FENCE, replace(INTENT, key=key))
        await storage.finish_call("run-1-task", key, replace(ANSWER, reply=reply), span=None)

    assert (await run_of(storage)).scripted_calls == 1


async def test_repeat_call_is_taken_over_by_one(storage: Storage) -> None:
    await storage.begin_call(FENCE, INTENT)
    second, third = replace(INTENT, gateway="gateway-2"), replace(INTENT, gateway="gateway-3")

    assert await storage.repeat_call(second, lost="gateway-1")
    assert not await storage.repeat_call(third, lost="gateway-1")

    record = await storage.get_call("run-1-task", INTENT.key)
    assert record == CallRecord(second, CallState.INTENT, None, 1)
    await storage.finish_call("run-1-task", INTENT.key, ANSWER, span=None)
    assert not await storage.repeat_call(third, lost="gateway-2")


async def test_calls_of_run_come_by_start(storage: Storage) -> None:
    for number in (2, 0, 1):
        started = NOW.replace(second=number)
        await storage.begin_call(FENCE, replace(INTENT, key=f"k{number}", started_at=started))

    assert [call.intent.key for call in await storage.calls_of_run("run-1")] == ["k0", "k1", "k2"]


async def test_beat_gateway_keeps_the_last_time(storage: Storage) -> None:
    assert await storage.gateway_seen("gateway-1") is None
    await storage.beat_gateway("gateway-1", at=NOW)
    await storage.beat_gateway("gateway-1", at=NOW.replace(minute=59))

    assert await storage.gateway_seen("gateway-1") == NOW.replace(minute=59)


async def test_unwanted_calls_are_those_of_an_ended_task_node_or_item(storage: Storage) -> None:
    def made(node: str, item: str | None = None, iteration: int = 1, task: str = "run-1-task") -> CallIntent:
        key = call_key(node, item, iteration, 1, 0)
        return replace(INTENT, task_id=task, key=key, node=node, item=item or "", action="code")

    def record(node: str, item: str = "", *, iteration: int = 1, ended: bool = True) -> NodeRecord:
        state, at = ("Cancelled", NOW) if ended else ("Running", None)
        return NodeRecord(run_uid="run-1", node=node, item=item, iteration=iteration, state=state, finished_at=at)

    records = (record("over"), record("each", "x"), record("each", ended=False), record("again"))
    entries = [{"kind": "NodeFinished", "node": "over"}]
    await storage.append(FENCE, first=0, entries=entries, effects=Effects(nodes=records), at=NOW)
    wanted = [made("each", "y"), made("again", iteration=2), made("new")]
    unwanted = [made("over"), made("over", "x"), made("each", "x"), made("again"), made("new", task="gone")]

    found = await storage.unwanted_calls([*wanted, *unwanted])

    assert found == {(intent.task_id, intent.key) for intent in unwanted}
    assert await storage.unwanted_calls([]) == set()
    await storage.end_run("run-1", RunEnd(RunState.CANCELLED, "Stopped", "", None, NOW))
    assert await storage.unwanted_calls(wanted) == {(intent.task_id, intent.key) for intent in wanted}
