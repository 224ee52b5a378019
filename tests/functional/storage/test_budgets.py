from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fairlead.storage import Storage
from fairlead.storage.base import (
    Begun,
    BudgetLine,
    CallAnswer,
    Event,
    Fence,
    OverBudget,
    Payment,
    Reservation,
    RunEnd,
    RunState,
    Spent,
)
from fairlead.testing.storage import CLUSTER, NOW, claim, make_intent, make_turn, start_run

DOLLAR = 10**12
RUN = BudgetLine("run/run-1", "", max_cost=10 * DOLLAR, max_tokens=1000, name="the budget of the run")
MODEL = BudgetLine("model/c/default/fast", "2026-01", max_cost=100 * DOLLAR)
WORST = Reservation(
    (RUN, MODEL), input_tokens=100, input_cost=DOLLAR, output_tokens=400, output_token_cost=DOLLAR // 100
)
"""A token of output costs a cent: 5 dollars and 500 tokens at worst."""
ANSWER = CallAnswer({"result": "hi"}, NOW, input_tokens=90, output_tokens=30, cost=2 * DOLLAR)
END = RunEnd(RunState.CANCELLED, "Stopped", "", None, NOW)


async def begin(storage: Storage, fence: Fence, key: str = "a/-/1/1/0", *, reserve: Reservation = WORST) -> Begun:
    return await storage.begin_call(fence, make_intent(key, target="fast", reservation=reserve))


async def test_begin_call_reserves_the_worst_case_in_every_line(storage: Storage) -> None:
    fence = await start_run(storage)
    assert await storage.spent([MODEL]) == [Spent(MODEL, 0, 0, 0, 0)]

    assert await begin(storage, fence) == Begun(None, 400)

    assert await storage.spent([MODEL, RUN]) == [Spent(MODEL, 0, 0, 5 * DOLLAR, 500), Spent(RUN, 0, 0, 5 * DOLLAR, 500)]
    known = (await begin(storage, fence)).known
    assert known is not None
    assert (known.granted_output_tokens, known.intent.reservation) == (400, WORST)
    assert (await storage.spent([RUN]))[0].reserved_tokens == 500, "asking again reserves nothing"


async def test_begin_call_grants_what_the_budget_leaves(storage: Storage) -> None:
    fence = await start_run(storage)
    await begin(storage, fence)

    by_money = await begin(storage, fence, "k1", reserve=replace(WORST, input_cost=3 * DOLLAR))
    assert by_money.granted_output_tokens == 200, "2 of 10 dollars are left for output"
    with pytest.raises(OverBudget):
        await begin(storage, fence, "k2")


async def test_begin_call_grants_by_tokens_where_output_costs_nothing(storage: Storage) -> None:
    fence = await start_run(storage)
    free = replace(WORST, input_cost=0, output_token_cost=0, output_tokens=5000)

    assert (await begin(storage, fence, reserve=free)).granted_output_tokens == 900
    assert await storage.spent([RUN]) == [Spent(RUN, 0, 0, 0, 1000)]


async def test_begin_call_without_lines_grants_what_is_asked(storage: Storage) -> None:
    fence = await start_run(storage)

    assert (await begin(storage, fence, reserve=replace(WORST, lines=()))).granted_output_tokens == 400
    assert await storage.begin_call(fence, make_intent("k")) == Begun(None, None)


async def test_begin_call_over_budget_changes_nothing(storage: Storage) -> None:
    fence = await start_run(storage)
    await begin(storage, fence)
    before = await storage.spent([RUN, MODEL])

    with pytest.raises(OverBudget, match="the budget of the run") as caught:
        await begin(storage, fence, "k1", reserve=replace(WORST, least_output_tokens=401, output_tokens=500))

    assert caught.value.later, "it fits when the first call is settled"
    assert caught.value.spent == Spent(RUN, 0, 0, 5 * DOLLAR, 500)
    assert await storage.spent([RUN, MODEL]) == before
    assert await storage.get_call("run-1-task", "k1") is None


@pytest.mark.parametrize(
    ("changes", "grants"),
    [
        pytest.param({"input_tokens": 1000}, None, id="no-room-for-output"),
        pytest.param({"input_tokens": 999}, 1, id="room-for-one-token"),
        pytest.param({"input_tokens": 999, "least_output_tokens": 2}, None, id="less-than-makes-sense"),
        pytest.param({"input_cost": 10 * DOLLAR + 1}, None, id="too-dear"),
        pytest.param({"input_cost": 10 * DOLLAR, "output_token_cost": 0}, 400, id="to-the-last-digit"),
        pytest.param({"output_tokens": 0, "input_tokens": 1000}, 0, id="no-output-wanted"),
    ],
)
async def test_begin_call_at_the_edge_of_a_budget(
    storage: Storage, changes: dict[str, Any], grants: int | None
) -> None:
    fence = await start_run(storage)
    asked = replace(WORST, **changes)

    if grants is None:
        with pytest.raises(OverBudget) as caught:
            await begin(storage, fence, reserve=asked)
        assert not caught.value.later
        assert caught.value.spent.line == RUN
    else:
        assert (await begin(storage, fence, reserve=asked)).granted_output_tokens == grants


async def test_finish_call_settles_every_line_and_says_so(storage: Storage) -> None:
    fence = await start_run(storage)
    await begin(storage, fence)
    events = storage.subscribe("budget")

    for _ in range(2):
        await storage.finish_call("run-1-task", "a/-/1/1/0", ANSWER, span=None)

    assert await storage.spent([RUN, MODEL]) == [Spent(RUN, 2 * DOLLAR, 120, 0, 0), Spent(MODEL, 2 * DOLLAR, 120, 0, 0)]
    assert await anext(events) == Event("budget", "")


@pytest.mark.parametrize(
    ("answer", "cost"),
    [
        pytest.param(replace(ANSWER, cost=None), 5 * DOLLAR, id="unknown-counts-as-the-worst"),
        pytest.param(replace(ANSWER, cost=None, priced=False), 0, id="has-no-price"),
        pytest.param(replace(ANSWER, cost=7 * DOLLAR), 7 * DOLLAR, id="dearer-than-thought"),
    ],
)
async def test_finish_call_settles_by_what_is_known(storage: Storage, answer: CallAnswer, cost: int) -> None:
    await begin(storage, await start_run(storage))

    await storage.finish_call("run-1-task", "a/-/1/1/0", answer, span=None)

    assert await storage.spent([RUN]) == [Spent(RUN, cost, 120, 0, 0)]


async def test_finish_call_charges_the_model_that_answered_and_releases_the_others(storage: Storage) -> None:
    fence = await start_run(storage)
    spare, per_run = (replace(MODEL, scope=f"model/c/default/{name}") for name in ("spare", "spare@run-1"))
    await begin(storage, fence, reserve=replace(WORST, lines=(RUN, MODEL, spare, per_run)))

    await storage.finish_call("run-1-task", "a/-/1/1/0", replace(ANSWER, model="spare"), span=None)

    paid = [
        (spent.cost, spent.tokens, spent.reserved_cost) for spent in await storage.spent([RUN, MODEL, spare, per_run])
    ]
    assert paid == [(2 * DOLLAR, 120, 0), (0, 0, 0), (2 * DOLLAR, 120, 0), (2 * DOLLAR, 120, 0)]
    assert [row.key for row in await storage.costs(CLUSTER, by=("model",))] == [{"model": "spare"}]
    record = await storage.get_call("run-1-task", "a/-/1/1/0")
    assert record is not None
    assert record.answer == replace(ANSWER, model="spare")


async def test_finish_call_charges_each_model_what_it_took(storage: Storage) -> None:
    fence = await start_run(storage)
    spare, never = (replace(MODEL, scope=f"model/c/default/{name}") for name in ("spare", "never"))
    await begin(storage, fence, reserve=replace(WORST, lines=(RUN, MODEL, spare, never)))
    paid = (Payment("fast", 90, 20, DOLLAR // 2), Payment("spare", 8, 2, 3 * DOLLAR // 2))

    await storage.finish_call("run-1-task", "a/-/1/1/0", replace(ANSWER, model="spare", paid=paid), span=None)

    stand = [
        (spent.cost, spent.tokens, spent.reserved_cost) for spent in await storage.spent([RUN, MODEL, spare, never])
    ]
    assert stand == [(2 * DOLLAR, 120, 0), (DOLLAR // 2, 110, 0), (3 * DOLLAR // 2, 10, 0), (0, 0, 0)]
    record = await storage.get_call("run-1-task", "a/-/1/1/0")
    assert record is not None
    assert record.answer is not None
    assert record.answer.paid == paid


async def test_finish_call_takes_a_model_of_unknown_price_at_the_worst(storage: Storage) -> None:
    fence = await start_run(storage)
    spare = replace(MODEL, scope="model/c/default/spare")
    await begin(storage, fence, reserve=replace(WORST, lines=(RUN, MODEL, spare)))
    paid = (Payment("fast", 90, 20, None), Payment("spare", 8, 2, DOLLAR))

    await storage.finish_call(
        "run-1-task", "a/-/1/1/0", replace(ANSWER, model="spare", cost=None, paid=paid), span=None
    )

    assert [spent.cost for spent in await storage.spent([RUN, MODEL, spare])] == [5 * DOLLAR, 5 * DOLLAR, DOLLAR]


async def test_finish_call_makes_room_for_the_next(storage: Storage) -> None:
    fence = await start_run(storage)
    await begin(storage, fence)
    await begin(storage, fence, "k1")
    with pytest.raises(OverBudget) as caught:
        await begin(storage, fence, "k2")
    assert caught.value.later

    await storage.finish_call("run-1-task", "k1", ANSWER, span=None)

    assert (await begin(storage, fence, "k2")).granted_output_tokens == 200, "3 dollars are left: one for the input"


async def test_begin_call_that_can_never_fit_is_not_told_to_wait(storage: Storage) -> None:
    fence = await start_run(storage)
    await begin(storage, fence)
    await storage.finish_call("run-1-task", "a/-/1/1/0", replace(ANSWER, cost=9 * DOLLAR + 1), span=None)
    await begin(storage, fence, "k1", reserve=replace(WORST, lines=(MODEL,)))

    with pytest.raises(OverBudget) as caught:
        await begin(storage, fence, "k2")

    assert not caught.value.later
    assert caught.value.spent == Spent(RUN, 9 * DOLLAR + 1, 120, 0, 0)


async def test_repeat_call_charges_the_lost_one_at_its_worst_and_reserves_again(storage: Storage) -> None:
    fence = await start_run(storage)
    await begin(storage, fence)
    again = make_intent(gateway="gateway-2", target="fast", reservation=WORST)

    assert await storage.repeat_call(again, lost="gateway-1") == Begun(None, 400)
    assert await storage.repeat_call(again, lost="gateway-1") is None

    assert await storage.spent([RUN]) == [Spent(RUN, 5 * DOLLAR, 500, 5 * DOLLAR, 500)]
    await storage.finish_call("run-1-task", "a/-/1/1/0", ANSWER, span=None)
    assert await storage.spent([RUN]) == [Spent(RUN, 7 * DOLLAR, 620, 0, 0)]
    run = await storage.get_run("run-1")
    assert run is not None
    assert (run.cost, run.input_tokens, run.output_tokens, run.unpriced_calls) == (7 * DOLLAR, 190, 430, 0)


async def test_repeat_call_is_granted_what_the_lost_one_leaves(storage: Storage) -> None:
    fence = await start_run(storage)
    await begin(storage, fence)
    await begin(storage, fence, "k1", reserve=replace(WORST, output_tokens=100))

    begun = await storage.repeat_call(make_intent(gateway="gateway-2"), lost="gateway-1")

    assert begun == Begun(None, 200)
    assert await storage.spent([RUN]) == [Spent(RUN, 5 * DOLLAR, 500, 5 * DOLLAR, 500)]
    record = await storage.get_call("run-1-task", "a/-/1/1/0")
    assert record is not None
    assert (record.granted_output_tokens, record.repeats) == (200, 1)


async def test_repeat_call_that_does_not_fit_beside_the_lost_one_is_taken_over_to_be_ended(storage: Storage) -> None:
    fence = await start_run(storage)
    await begin(storage, fence)
    await begin(storage, fence, "k1", reserve=replace(WORST, input_cost=3 * DOLLAR))
    before = await storage.spent([RUN, MODEL])
    second, third = (make_intent(gateway=gateway) for gateway in ("gateway-2", "gateway-3"))

    with pytest.raises(OverBudget) as caught:
        await storage.repeat_call(second, lost="gateway-1")

    assert caught.value.spent.cost == 5 * DOLLAR, "the lost one counts"
    assert await storage.repeat_call(third, lost="gateway-1") is None
    assert await storage.spent([RUN, MODEL]) == before
    record = await storage.get_call("run-1-task", "a/-/1/1/0")
    assert record is not None
    assert (record.intent.gateway, record.repeats) == ("gateway-2", 0)


async def test_repeat_call_after_the_end_of_the_run_leaves_nothing_reserved(storage: Storage) -> None:
    await begin(storage, await start_run(storage))
    await storage.end_run("run-1", END)

    await storage.repeat_call(make_intent(gateway="gateway-2"), lost="gateway-1")
    await storage.finish_call("run-1-task", "a/-/1/1/0", ANSWER, span=None)

    assert await storage.spent([MODEL]) == [Spent(MODEL, 7 * DOLLAR, 620, 0, 0)]


async def test_finish_call_by_nobody_knows_which_model_counts_for_all(storage: Storage) -> None:
    fence = await start_run(storage)
    spare = replace(MODEL, scope="model/c/default/spare")
    await begin(storage, fence, reserve=replace(WORST, lines=(MODEL, spare)))

    await storage.finish_call("run-1-task", "a/-/1/1/0", replace(ANSWER, model=""), span=None)

    assert [spent.cost for spent in await storage.spent([MODEL, spare])] == [2 * DOLLAR, 2 * DOLLAR]


@pytest.mark.parametrize("reservation", [None, replace(WORST, lines=(), priced=False)])
async def test_repeat_call_of_unknown_price_makes_the_total_unknown(
    storage: Storage, reservation: Reservation | None
) -> None:
    fence = await start_run(storage)
    await storage.begin_call(fence, make_intent(reservation=reservation))
    await storage.begin_call(fence, make_intent("t", action="tool"))

    await storage.repeat_call(make_intent(gateway="gateway-2"), lost="gateway-1")
    await storage.repeat_call(make_intent("t", action="tool", gateway="gateway-2"), lost="gateway-1")

    run = await storage.get_run("run-1")
    assert run is not None
    assert (run.cost, run.unpriced_calls) == (0, 1), "a tool costs nothing"


@pytest.mark.parametrize("how", ["ended", "deleted"])
async def test_end_of_the_run_counts_open_calls_as_spent(storage: Storage, how: str) -> None:
    await begin(storage, await start_run(storage))

    if how == "ended":
        await storage.end_run("run-1", END)
    else:
        await storage.delete_run("run-1")

    run_line = Spent(RUN, 5 * DOLLAR, 500, 0, 0) if how == "ended" else Spent(RUN, 0, 0, 0, 0)
    assert await storage.spent([MODEL, RUN]) == [Spent(MODEL, 5 * DOLLAR, 500, 0, 0), run_line]


async def test_finish_call_after_the_end_of_the_run_sets_it_right(storage: Storage) -> None:
    await begin(storage, await start_run(storage))
    await storage.end_run("run-1", END)

    await storage.finish_call("run-1-task", "a/-/1/1/0", ANSWER, span=None)

    assert await storage.spent([MODEL]) == [Spent(MODEL, 2 * DOLLAR, 120, 0, 0)]
    run = await storage.get_run("run-1")
    assert run is not None
    assert run.cost == 2 * DOLLAR


async def test_end_of_a_turn_counts_its_open_calls_as_spent(storage: Storage) -> None:
    fence = await start_run(storage)
    await begin(storage, fence)
    await storage.start_turn(fence, make_turn())
    turn_fence, claimed = await claim(storage, "pod-2")
    intent = make_intent(task_id=claimed.task.id, reservation=replace(WORST, output_tokens=100))
    await storage.begin_call(turn_fence, intent)

    await storage.cancel_turns(fence, keys=[make_turn().key], at=NOW)

    assert await storage.spent([RUN]) == [Spent(RUN, 2 * DOLLAR, 200, 5 * DOLLAR, 500)]


async def test_delete_run_forgets_the_lines_of_that_run(storage: Storage) -> None:
    per_run = replace(MODEL, scope="model/c/default/fast@run-1", period="")
    await begin(storage, await start_run(storage), reserve=replace(WORST, lines=(RUN, per_run, MODEL)))
    await storage.finish_call("run-1-task", "a/-/1/1/0", ANSWER, span=None)

    await storage.delete_run("run-1")

    assert [spent.cost for spent in await storage.spent([RUN, per_run, MODEL])] == [0, 0, 2 * DOLLAR]
