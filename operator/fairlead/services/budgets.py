"""What a model call may cost at worst, and which budgets it counts against. Pure: storage decides whether it fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from fairlead.api.v1alpha1.model import ModelSpec
from fairlead.errors import TerminalError
from fairlead.llm.base import TokenUsage, ToolDefinition, to_json
from fairlead.llm.prices import FREE, TokenPrice, listed_price, output_limit, price_per_million
from fairlead.llm.requests import LIMITS
from fairlead.services.outcomes import PICODOLLARS, dollars
from fairlead.services.tasks import TaskContext
from fairlead.storage.base import BudgetLine, OverBudget, Reservation
from fairlead_agent.protocol import LlmRequest

_DEFAULT_OUTPUT: Final = 8192
"""Asked for at most under a budget, where neither the Model nor the price list says more."""
_LEAST_OUTPUT: Final = 16
_PER_MESSAGE: Final = 16
_MOST: Final = 2**63 - 1
"""Picodollars: nine million dollars, which is what a sum can be."""
_PER_REQUEST: Final = 64
_FOR_TOOLS: Final = 1024
"""Tokens that providers add around what is sent."""
_MONTH: Final = len("2026-11")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A Model that may answer a call: the one that is asked, or one of its fallbacks."""

    name: str
    spec: ModelSpec


@dataclass(frozen=True, slots=True)
class _Worst:
    """What one candidate may take at most."""

    input_tokens: int
    input_cost: int
    output_tokens: int
    output_token_cost: int
    least: int


def model_price(spec: ModelSpec, usage: TokenUsage) -> TokenPrice | None:
    """Return what a Model's tokens cost, or None where nobody knows."""
    if spec.price is not None:
        return price_per_million(
            input_tokens=spec.price.input_per_million_tokens, output_tokens=spec.price.output_per_million_tokens
        )
    return FREE if spec.scripted is not None else listed_price(spec.model or "", usage)


def longest_answer(spec: ModelSpec, parameters: Mapping[str, Any]) -> int:
    """Return how many tokens of output a call asks for at most."""
    if spec.scripted is not None and spec.scripted.usage is not None:
        return max(spec.scripted.usage.output_tokens, 1)
    given = {**(spec.parameters or {}), **parameters}
    stated = [given[name] for name in LIMITS if isinstance(given.get(name), int) and given[name] > 0]
    return min(stated) if stated else output_limit(spec.model or "") or _DEFAULT_OUTPUT


def input_bound(request: LlmRequest, tools: Sequence[ToolDefinition]) -> int:
    """Return a number of tokens that the input cannot exceed: no token has less than a byte."""
    shown = [{"name": tool.name, "description": tool.description, "parameters": tool.parameters} for tool in tools]
    asked = request.model_dump(mode="json", include={"messages", "output"})
    size = len(to_json(asked).encode()) + len(to_json(shown).encode())
    return size + _PER_MESSAGE * len(request.messages) + _PER_REQUEST + (_FOR_TOOLS if tools else 0)


def build_reservation(
    lines: tuple[BudgetLine, ...],
    candidates: Sequence[Candidate],
    request: LlmRequest,
    tools: Sequence[ToolDefinition] = (),
) -> Reservation | None:
    """Return what has to be kept free in *lines* before any of *candidates* is asked; None where nothing limits it.

    Raises:
        TerminalError: with reason ``PriceUnknown``: money is limited, and nobody knows what the call costs.
    """
    if not lines:
        return None
    limited = next((line for line in lines if line.max_cost is not None), None)
    bound = input_bound(request, tools)
    worst = [_worst(candidate, request.parameters, bound, limited) for candidate in candidates]
    return Reservation(
        lines=lines,
        input_tokens=max(each.input_tokens for each in worst),
        input_cost=max(each.input_cost for each in worst),
        output_tokens=max(each.output_tokens for each in worst),
        least_output_tokens=max(each.least for each in worst),
        output_token_cost=max(each.output_token_cost for each in worst),
    )


def _worst(candidate: Candidate, parameters: Mapping[str, Any], bound: int, limited: BudgetLine | None) -> _Worst:
    spec, script = candidate.spec, candidate.spec.scripted
    exact = script.usage if script is not None else None
    tokens = exact.input_tokens if exact is not None else bound
    price = model_price(spec, TokenUsage(tokens))
    if price is None:
        if limited is not None:
            raise _price_unknown(candidate, limited)
        price = FREE  # only tokens are counted
    output = longest_answer(spec, parameters)
    return _Worst(
        tokens,
        _picodollars(price.input * tokens),
        output,
        _picodollars(price.output),
        output if exact is not None else min(output, _LEAST_OUTPUT),
    )


def _picodollars(amount: Decimal) -> int:
    """Return an amount, rounded up: a reservation is never too small."""
    return int((amount * PICODOLLARS).to_integral_value(ROUND_CEILING))


def _price_unknown(candidate: Candidate, line: BudgetLine) -> TerminalError:
    return TerminalError(
        f"{line.name} limits what may be spent, but the price of Model {candidate.name} ({candidate.spec.model}) is "
        f"not known: set spec.price of Model {candidate.name}, or limit tokens (maxTokens) instead of money",
        reason="PriceUnknown",
    )


def budget_lines(context: TaskContext, candidates: Iterable[Candidate], *, at: datetime) -> tuple[BudgetLine, ...]:
    """Return every limit that a model call counts against; a sub-workflow shares those of its run."""
    found = [line for line in _lines(context, candidates, at) if line is not None]
    return tuple({(line.scope, line.period): line for line in found}.values())


def external_lines(context: TaskContext, agent: str, *, at: datetime) -> tuple[BudgetLine, ...]:
    """Return every limit that a call of an external agent counts against."""
    frozen: Mapping[str, Any] = (context.document.get("agents") or {}).get(agent) or {}
    own = _Scopes(context, at).line("Agent", agent, frozen.get("budget"))
    return tuple(line for line in (*_lines(context, (), at), own) if line is not None)


def _lines(context: TaskContext, candidates: Iterable[Candidate], at: datetime) -> Iterator[BudgetLine | None]:
    scopes = _Scopes(context, at)
    if context.run_budget:
        yield scopes.of_run(context.run_budget)
    yield scopes.line("Workflow", context.workflow, context.document["workflow"]["spec"].get("budget"))
    if context.agent:
        yield scopes.line("Agent", context.agent, context.agent_spec().get("budget"))
    for candidate in candidates:
        budget = candidate.spec.budget
        given = None if budget is None else budget.model_dump(mode="json", by_alias=True)
        yield scopes.line("Model", candidate.name, given)


@dataclass(frozen=True, slots=True)
class _Scopes:
    """Names budget lines."""

    context: TaskContext
    at: datetime

    def of_run(self, budget: Mapping[str, Any]) -> BudgetLine:
        return _line(f"run/{self.context.run_uid}", "", "the run's budget", budget)

    def line(self, kind: str, name: str, budget: Mapping[str, Any] | None) -> BudgetLine | None:
        """Return the line of an object's budget, if it has one."""
        if not budget:
            return None
        scope = f"{kind.lower()}/{self.context.cluster}/{self.context.namespace}/{name}"
        day = self.at.date().isoformat()
        match budget.get("period") or ("Month" if kind == "Model" else "Run"):
            case "Day":
                return _line(scope, day, f"the budget of {kind} {name} for {day}", budget)
            case "Month":
                return _line(scope, day[:_MONTH], f"the budget of {kind} {name} for {day[:_MONTH]}", budget)
            case _:
                return _line(f"{scope}@{self.context.run_uid}", "", f"the budget of {kind} {name} for a run", budget)


def _line(scope: str, period: str, name: str, budget: Mapping[str, Any]) -> BudgetLine:
    limit = budget.get("maxCostUSD")
    most = None if limit is None else min(int(Decimal(limit) * PICODOLLARS), _MOST)
    return BudgetLine(scope, period, max_cost=most, max_tokens=budget.get("maxTokens"), name=name)


def budget_exceeded(error: OverBudget, reservation: Reservation) -> TerminalError:
    """Return what the run is told of a call that does not fit: what was spent, what the limit is, what to do."""
    spent, line = error.spent, error.spent.line
    least = reservation.input_cost + reservation.least_output_tokens * reservation.output_token_cost
    over = line.max_cost is not None and spent.cost + spent.reserved_cost + least > line.max_cost
    if over:
        sums = [_usd(spent.cost), _usd(line.max_cost), _usd(spent.reserved_cost), _usd(least)]
    else:
        needed = reservation.input_tokens + reservation.least_output_tokens
        sums = [_tokens(amount) for amount in (spent.tokens, line.max_tokens, spent.reserved_tokens, needed)]
    in_flight = f", {sums[2]} are reserved by calls in flight" if sums[2] not in {_usd(0), _tokens(0)} else ""
    field = "maxCostUSD" if over else "maxTokens"
    return TerminalError(
        f"{line.name} does not allow another call: {sums[0]} of {sums[1]} are spent{in_flight}, and this call may need "
        f"{sums[3]}; raise {field}, or ask for less",
        reason="BudgetExceeded",
    )


def cut_off(granted: int) -> TerminalError:
    """Return the error for an answer that ended where the budget did."""
    return TerminalError(
        f"the answer was cut off after {_tokens(granted)}, which is what the budgets left for it; raise the budget, or "
        "ask for a shorter answer with parameters.max_tokens",
        reason="BudgetExceeded",
    )


def _usd(amount: int | None) -> str:
    return f"{dollars(amount or 0)} USD"


def _tokens(count: int | None) -> str:
    return f"{count or 0:,} tokens"
