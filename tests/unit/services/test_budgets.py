from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.api.v1alpha1.model import ModelSpec
from fairlead.errors import TerminalError
from fairlead.llm.base import TokenUsage, ToolDefinition
from fairlead.llm.prices import cost
from fairlead.services.budgets import (
    Candidate,
    budget_exceeded,
    budget_lines,
    build_reservation,
    input_bound,
    longest_answer,
    model_price,
)
from fairlead.services.tasks import TaskContext
from fairlead.storage.base import BudgetLine, OverBudget, Spent
from fairlead_agent.protocol import LlmRequest, Message, StartTurn

AT = datetime(2026, 11, 21, 23, 59, tzinfo=UTC)
LINE = BudgetLine("run/u", "", max_cost=10**12, name="the run's budget")
TOKENS = BudgetLine("run/u", "", max_tokens=1000, name="the run's budget")
ASK = LlmRequest(model="fast", messages=(Message(role="user", content="hello"),))
PRICE = {"inputPerMillionTokens": "3", "outputPerMillionTokens": "15"}
SCRIPT = {"responses": [{"reply": "hi"}]}


def candidate(name: str = "fast", **spec: Any) -> Candidate:
    return Candidate(name, ModelSpec.model_validate({"model": "openai/gpt-4o-mini", **spec}))


def scripted(name: str = "fast", **spec: Any) -> Candidate:
    return Candidate(name, ModelSpec.model_validate({"scripted": SCRIPT, **spec}))


def context(*, document: dict[str, Any] | None = None, agent: str = "", **more: Any) -> TaskContext:
    turn = StartTurn(attempt=1, key="k", node="fix", agent=agent, prompt="?") if agent else None
    known = {"workflow": {"spec": {"nodes": []}}, **(document or {})}
    return TaskContext("t", "uid-1", "ns", "run-1", "triage", AT, known, cluster="c1", turn=turn, **more)


def lines_of(found: tuple[BudgetLine, ...]) -> dict[str, tuple[str, int | None, int | None]]:
    return {line.scope: (line.period, line.max_cost, line.max_tokens) for line in found}


def test_budget_lines_of_everything_that_has_a_budget() -> None:
    document = {
        "workflow": {"spec": {"budget": {"maxCostUSD": "0.50", "period": "Run"}}},
        "agents": {"engineer": {"budget": {"maxCostUSD": "2", "period": "Day"}}},
    }
    given = context(document=document, agent="engineer", run_budget={"maxTokens": 9})
    models = [
        candidate(budget={"maxCostUSD": "0.000000000001"}),
        candidate("slow", budget={"maxTokens": 5, "period": "Run"}),
    ]
    assert lines_of(budget_lines(given, models, at=AT)) == {
        "run/uid-1": ("", None, 9),
        "workflow/c1/ns/triage@uid-1": ("", 5 * 10**11, None),
        "agent/c1/ns/engineer": ("2026-11-21", 2 * 10**12, None),
        "model/c1/ns/fast": ("2026-11", 1, None),
        "model/c1/ns/slow@uid-1": ("", None, 5),
    }


def test_build_reservation_without_budgets_is_none() -> None:
    assert budget_lines(context(), [candidate()], at=AT) == ()
    assert build_reservation((), [candidate()], ASK) is None


def test_build_reservation_takes_the_worst_of_all_candidates() -> None:
    cheap, dear = candidate(price=PRICE), candidate("slow", price={**PRICE, "outputPerMillionTokens": "60"})
    found = build_reservation((LINE,), [cheap, dear], ASK)
    assert found is not None
    assert found.output_token_cost == 60_000_000
    assert found.input_cost == found.input_tokens * 3_000_000
    assert found.output_tokens == 16384, "what the price list says that the model can"


def test_build_reservation_price_unknown_is_refused_only_where_money_is_limited() -> None:
    unknown = candidate("odd", model="openai/no-such-model")
    with pytest.raises(TerminalError, match=r"the run's budget .* Model odd \(openai/no-such-model\)") as failed:
        build_reservation((TOKENS, LINE), [candidate(), unknown], ASK)
    assert failed.value.reason == "PriceUnknown"
    assert build_reservation((TOKENS,), [candidate(), unknown], ASK) is not None


def test_build_reservation_of_a_script_that_states_its_usage_is_exact() -> None:
    script = {"responses": [{"reply": "hi"}], "usage": {"inputTokens": 100, "outputTokens": 20}}
    found = build_reservation((LINE,), [scripted(scripted=script, price=PRICE)], ASK)
    assert found is not None
    assert (found.input_tokens, found.output_tokens, found.least_output_tokens) == (100, 20, 20)
    assert found.input_cost + 20 * found.output_token_cost == 600 * 10**6


@pytest.mark.parametrize(
    ("spec", "parameters", "most"),
    [
        pytest.param({"parameters": {"max_tokens": 500}}, {}, 500, id="the-models"),
        pytest.param({"parameters": {"max_tokens": 500}}, {"max_tokens": 50}, 50, id="the-nodes"),
        pytest.param({"model": "openai/x"}, {"max_completion_tokens": 70}, 70, id="the-other-name"),
        pytest.param({"model": "openai/x"}, {"max_tokens": "many"}, 8192, id="nonsense"),
        pytest.param({"model": "openai/x"}, {}, 8192, id="nobody-knows"),
    ],
)
def test_longest_answer(spec: dict[str, Any], parameters: dict[str, Any], most: int) -> None:
    assert longest_answer(candidate(**spec).spec, parameters) == most


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=300), st.text(max_size=100), st.integers(0, 10**30))
def test_input_bound_is_never_below_the_bytes(text: str, described: str, number: int) -> None:
    tool = ToolDefinition("sql", described, {"maximum": number})
    request = LlmRequest(model="m", messages=(Message(role="user", content=text),), output={"const": number})
    assert input_bound(request, (tool,)) >= len((text + described + 2 * str(number)).encode("utf-8", "ignore"))


MONEY = st.decimals(min_value=0, max_value=1000, places=12).map(lambda amount: f"{amount:f}")


@settings(deadline=None, max_examples=100)
@given(MONEY, MONEY, st.integers(0, 5000), st.integers(0, 20000), st.integers(0, 20000))
def test_build_reservation_is_never_below_the_cost(
    given: str, taken: str, used: int, output: int, granted: int
) -> None:
    model = candidate(price={"inputPerMillionTokens": given, "outputPerMillionTokens": taken})
    found = build_reservation((LINE,), [model], ASK)
    assert found is not None
    usage = TokenUsage(min(used, found.input_tokens), min(output, granted))
    price = model_price(model.spec, usage)
    assert price is not None
    assert cost(price, usage) <= found.input_cost + granted * found.output_token_cost
    exact = (Decimal(given) * usage.input_tokens + Decimal(taken) * usage.output_tokens) * 10**6
    assert abs(cost(price, usage) - exact) <= Decimal("0.5")


def test_budget_lines_of_a_limit_beyond_measure_can_be_kept() -> None:
    given = context(run_budget={"maxCostUSD": "999999999999"})
    [line] = budget_lines(given, [], at=AT)
    assert line.max_cost == 2**63 - 1


def test_budget_exceeded_says_what_was_spent_and_what_to_do() -> None:
    reservation = build_reservation((LINE,), [candidate(price=PRICE)], ASK)
    assert reservation is not None
    over = OverBudget("no", spent=Spent(LINE, 10**12 - 5, 70, 3 * 10**9, 40), later=False)
    error = budget_exceeded(over, reservation)
    assert error.reason == "BudgetExceeded"
    assert str(error).startswith(
        "the run's budget does not allow another call: 0.999999999995 USD of 1 USD are spent, "
    )
    assert "0.003 USD are reserved by calls in flight" in str(error)
    assert "raise maxCostUSD" in str(error)

    many = OverBudget("no", spent=Spent(TOKENS, 0, 990, 0, 0), later=False)
    assert "990 tokens of 1,000 tokens are spent, and this call may need" in str(budget_exceeded(many, reservation))
