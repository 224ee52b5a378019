"""Budgets and sums of money: what a call may cost, what it is held against, what was spent.

Money is whole picodollars (10⁻¹² USD), so that sums are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.errors import Conflict


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """One limit that a call counts against."""

    scope: str
    """``run/<uid>``, ``workflow/<cluster>/<namespace>/<name>``, ``agent/…``, ``model/…``; with ``@<run uid>`` at the
    end when it holds for each run."""
    period: str
    """``""`` (no period), ``2026-11-21`` (a day) or ``2026-11`` (a month), in UTC."""
    max_cost: int | None = None
    """Picodollars."""
    max_tokens: int | None = None
    name: str = ""
    """For people: ``the budget of Model fast for 2026-11``."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a call may cost at worst. How much output is granted is decided by the budgets, in one transaction."""

    lines: tuple[BudgetLine, ...]
    input_tokens: int
    """At most."""
    input_cost: int
    """Picodollars, at most; with anything that does not depend on the output."""
    output_tokens: int
    """What is asked for at most."""
    least_output_tokens: int = 1
    """Less makes no sense: the call is refused instead."""
    output_token_cost: int = 0
    """Picodollars for each token of output."""
    priced: bool = True
    """Whether the price is known; if not, both costs are 0 and no line limits money."""

    def worst(self, granted: int) -> tuple[int, int]:
        """Return the cost and the tokens of a call that uses all that it was granted."""
        return self.input_cost + granted * self.output_token_cost, self.input_tokens + granted


@dataclass(frozen=True, slots=True)
class Spent:
    """How a budget line stands."""

    line: BudgetLine
    cost: int
    tokens: int
    reserved_cost: int
    reserved_tokens: int


@dataclass(frozen=True, slots=True)
class Payment:
    """What one Model took of what a call cost."""

    model: str
    input_tokens: int
    output_tokens: int
    cost: int | None
    """Picodollars; None: its price is unknown."""


class OverBudget(Conflict):
    """A call does not fit into a budget.

    Attributes:
        spent: the line that it does not fit into.
        later: whether it may fit when the calls that are in flight have been settled.
    """

    reason = "BudgetExceeded"

    def __init__(self, message: str, *, spent: Spent, later: bool) -> None:
        super().__init__(message)
        self.spent = spent
        self.later = later


@dataclass(frozen=True, slots=True)
class CostRow:
    """A sum of calls."""

    key: Mapping[str, str]
    """What they have in common: ``{"model": …}``, ``{"day": …, "workflow": …}``."""
    calls: int
    input_tokens: int
    output_tokens: int
    cost: int
    unpriced_calls: int
    scripted_calls: int
