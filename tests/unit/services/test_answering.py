from __future__ import annotations

from typing import Any

from fairlead.api.v1alpha1.model import ModelSpec
from fairlead.errors import RetryableError
from fairlead.llm.base import Completion, TokenUsage, ToolCall
from fairlead.services.answering import Paid, build_failure, build_outcome
from fairlead.services.budgets import Candidate
from fairlead.storage.base import Payment

BROKE = RetryableError("it broke", reason="ModelUnavailable")


def candidate(name: str, **spec: Any) -> Candidate:
    return Candidate(name, ModelSpec.model_validate({"model": "openai/own", **spec}))


def priced(name: str, given: str, taken: str) -> Candidate:
    return candidate(name, price={"inputPerMillionTokens": given, "outputPerMillionTokens": taken})


FIRST, SECOND = priced("first", "3", "15"), priced("second", "0.15", "0.6")


def test_build_outcome_adds_what_lost_answers_used_each_at_its_own_price() -> None:
    lost = [Paid(FIRST, TokenUsage(100, 10, estimated=True)), Paid(SECOND, TokenUsage(100, 1, estimated=True))]
    done = Completion("ok", TokenUsage(100, 5), "own-2", (ToolCall("c", "sql", None, "{bad"),), tries=2)
    outcome = build_outcome(SECOND, done, lost, [BROKE])
    dear, cheap = 100 * 3_000_000 + 10 * 15_000_000, 200 * 150_000 + 6 * 600_000
    assert (outcome.cost, outcome.model) == (dear + cheap, "second")
    assert outcome.paid == (Payment("first", 100, 10, dear), Payment("second", 200, 6, cheap))
    assert (outcome.reply.usage.input_tokens, outcome.reply.usage.output_tokens) == (300, 16)
    assert (outcome.reply.tool_calls[0].arguments, outcome.reply.tool_calls[0].raw) == (None, "{bad")
    shown = outcome.attributes
    assert (shown["fairlead.lost_answers"], shown["fairlead.tries"], shown["fairlead.usage.estimated"]) == (2, 2, True)
    assert shown["fairlead.fallback_from"] == "it broke"


def test_build_outcome_one_unknown_price_makes_the_sum_unknown() -> None:
    done = Completion("ok", TokenUsage(100, 5), "own-2")
    outcome = build_outcome(SECOND, done, [Paid(candidate("odd"), TokenUsage(1, 1))], [])
    assert (outcome.cost, outcome.reply.cost, outcome.priced) == (None, None, True)


def test_build_failure_is_paid_by_who_lost_the_answer() -> None:
    outcome = build_failure(FIRST, BROKE, [Paid(SECOND, TokenUsage(10, 2))])
    assert outcome.paid == (Payment("second", 10, 2, 2_700_000),)


def test_build_failure_is_paid() -> None:
    outcome = build_failure(FIRST, BROKE, [Paid(FIRST, TokenUsage(10, 2))])
    assert outcome.reply.error is not None
    assert (outcome.reply.error.reason, outcome.cost) == ("ModelUnavailable", 60_000_000)
    assert outcome.reply.usage.input_tokens == 10
