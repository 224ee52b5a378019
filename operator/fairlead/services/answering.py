"""What came of asking Models, and what it cost. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fairlead.errors import FairleadError
from fairlead.llm.base import Completion, TokenUsage, ToolCall
from fairlead.llm.prices import cost
from fairlead.services.budgets import Candidate, model_price
from fairlead.services.outcomes import Outcome, dollars, to_error_info
from fairlead.storage.base import Payment
from fairlead.tracing.attributes import attributes
from fairlead_agent.protocol import CallReply, ToolUse, Usage


@dataclass(frozen=True, slots=True)
class Paid:
    """Tokens that a Model used."""

    candidate: Candidate
    usage: TokenUsage

    @property
    def cost(self) -> int | None:
        """Picodollars; None: the price is unknown."""
        price = model_price(self.candidate.spec, self.usage)
        return None if price is None else cost(price, self.usage)


def build_outcome(
    candidate: Candidate, done: Completion, lost: Sequence[Paid], failures: Sequence[FairleadError]
) -> Outcome:
    """Return the outcome of an answer of *candidate*.

    *lost* is what answers used that came to nothing, of this Model and others; *failures* are those of the Models that
    were asked before.
    """
    paid = [*lost, Paid(candidate, done.usage)]
    amount, usage = _sum(paid)
    return Outcome(
        reply=CallReply(
            result=done.text,
            tool_calls=tuple(_tool_use(call) for call in done.tool_calls),
            finish_reason=done.finish_reason,
            usage=Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens),
            cost=dollars(amount),
            scripted=done.scripted,
        ),
        cost=amount,
        priced=True,
        model=candidate.name,
        paid=_by_model(paid),
        attributes=attributes(
            **_described(candidate, usage),
            gen_ai__response__model=done.model,
            gen_ai__response__finish_reasons=[done.finish_reason] if done.finish_reason else None,
            fairlead__model=candidate.name,
            fairlead__tries=done.tries if done.tries > 1 else None,
            fairlead__lost_answers=len(lost) or None,
            fairlead__fallback_from="; ".join(str(failure) for failure in failures),
        ),
    )


def build_failure(candidate: Candidate, error: FairleadError, lost: Sequence[Paid]) -> Outcome:
    """Return the outcome of a call that failed and used tokens all the same."""
    amount, usage = _sum(lost)
    return Outcome(
        reply=CallReply(
            error=to_error_info(error),
            usage=Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens),
            cost=dollars(amount),
        ),
        cost=amount,
        priced=True,
        model=candidate.name,
        paid=_by_model(lost),
        attributes=attributes(**_described(candidate, usage), fairlead__lost_answers=len(lost)),
    )


def _sum(paid: Sequence[Paid]) -> tuple[int | None, TokenUsage]:
    total = TokenUsage()
    amount: int | None = 0
    for each in paid:
        total += each.usage
        price = each.cost
        amount = None if amount is None or price is None else amount + price
    return amount, total


def _by_model(paid: Sequence[Paid]) -> tuple[Payment, ...]:
    """Return what each Model took, in the order in which they were asked first."""
    shares: dict[str, list[Paid]] = {}
    for each in paid:
        shares.setdefault(each.candidate.name, []).append(each)
    sums = {name: _sum(share) for name, share in shares.items()}
    return tuple(Payment(name, used.input_tokens, used.output_tokens, spent) for name, (spent, used) in sums.items())


def _described(candidate: Candidate, usage: TokenUsage) -> dict[str, object]:
    model = candidate.spec.model or ""
    return {
        "gen_ai__operation__name": "chat",
        "gen_ai__provider__name": model.partition("/")[0] or "scripted",
        "gen_ai__request__model": model or "scripted",
        "gen_ai__usage__input_tokens": usage.input_tokens,
        "gen_ai__usage__output_tokens": usage.output_tokens,
        "fairlead__usage__cached_tokens": usage.cached_tokens or None,
        "fairlead__usage__estimated": usage.estimated or None,
    }


def _tool_use(call: ToolCall) -> ToolUse:
    arguments = None if call.arguments is None else dict(call.arguments)
    return ToolUse(id=call.id, name=call.name, arguments=arguments, raw=call.raw)
