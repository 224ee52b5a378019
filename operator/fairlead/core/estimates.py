"""Estimates how often a node asks a model or a tool, and how many tokens that takes. Pure; nothing is asked.

Every figure is a range. Its lower end is a run in which everything goes well at once, its upper end one that uses every
try, iteration, turn and token that it may use. What is not known beforehand is assumed: `ASSUMPTIONS` says how.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

import orjson

from fairlead_agent.compiling import Expression
from fairlead_agent.expressions import ExpressionError, Scope, compile_expression, render, template

BYTES_PER_TOKEN: Final = 4
OUTPUT_TOKENS: Final = 1000
LEAST_OUTPUT_TOKENS: Final = 10
VALUE_TOKENS: Final = 1000
ITEMS: Final = 10
TURNS: Final = 10
TOOL_CALLS: Final = 50
TOOL_TOKENS: Final = 100
ASSUMPTIONS: Final = {
    "tokens": f"a token is {BYTES_PER_TOKEN} bytes of text",
    "most": "the upper end takes every retry, iteration and turn that is allowed, and one repair of each answer",
    "output": f"an answer without max_tokens has at most {OUTPUT_TOKENS:,} tokens",
    "value": f"a value that is known only while it runs or that a tool gives has at most {VALUE_TOKENS:,} tokens",
    "items": f"a forEach whose list is known only while it runs has at most {ITEMS} items",
    "tools": f"the description of a tool has {TOOL_TOKENS} tokens",
    "fallbacks": "fallbacks of a Model are not counted",
}
_PICO: Final = Decimal(10) ** 12
_PER_MILLION: Final = Decimal(10) ** 6
_ELSEWHERE: Final = frozenset({"outputs", "item", "index", "iteration", "run", "memory"})


@dataclass(frozen=True, slots=True)
class Range:
    """From the least to the most."""

    least: int
    most: int

    def __add__(self, other: Range) -> Range:
        return Range(self.least + other.least, self.most + other.most)

    def __mul__(self, other: Range) -> Range:
        return Range(self.least * other.least, self.most * other.most)


NONE: Final = Range(0, 0)
ONCE: Final = Range(1, 1)
_UNKNOWN_VALUE: Final = Range(0, VALUE_TOKENS)


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """US dollars for one token, and how long an answer can be."""

    input: Decimal
    output: Decimal
    max_output_tokens: int | None = None

    def cost(self, input_tokens: int, output_tokens: int) -> int:
        """Return picodollars, rounded up."""
        total = (self.input * input_tokens + self.output * output_tokens) * _PICO
        return int(total.to_integral_value(ROUND_CEILING))


def price_of_call(external: Mapping[str, Any]) -> int | None:
    """Return what a call of an external agent costs, in picodollars; None: nobody knows before."""
    price = external.get("costPerCallUSD")
    return None if price is None else int((Decimal(str(price)) * _PICO).to_integral_value(ROUND_CEILING))


FREE: Final = ModelPrice(Decimal(0), Decimal(0))


@dataclass(frozen=True, slots=True)
class Values:
    """What the expressions of one workflow can be given before it runs."""

    inputs: Mapping[str, Any]
    """Those that are known."""
    outputs: Mapping[str, Range] = field(default_factory=dict)
    """How many tokens the outputs of nodes have."""
    items: Sequence[Any] | None = None
    """What a node's forEach gives, where that is known."""


@dataclass(slots=True)
class Estimate:
    """What a node takes in one run, in all of its executions."""

    model_calls: Range = NONE
    tool_calls: Range = NONE
    input_tokens: Range = NONE
    output_tokens: Range = NONE
    output: Range = NONE
    """Tokens of its own output, which other nodes may use."""
    assumed: frozenset[str] = frozenset()
    """Keys of `ASSUMPTIONS`."""

    def times(self, factor: Range) -> Estimate:
        """Return what so many executions take; the output stays that of one."""
        return Estimate(
            self.model_calls * factor,
            self.tool_calls * factor,
            self.input_tokens * factor,
            self.output_tokens * factor,
            self.output,
            self.assumed,
        )


def price_of(spec: Mapping[str, Any], listed: Mapping[str, ModelPrice]) -> ModelPrice | None:
    """Return a Model's price, or None where it is not known. A scripted one costs nothing unless it says so."""
    known = listed.get(str(spec.get("model") or ""))
    stated = spec.get("price")
    if stated:
        return ModelPrice(
            Decimal(stated["inputPerMillionTokens"]) / _PER_MILLION,
            Decimal(stated["outputPerMillionTokens"]) / _PER_MILLION,
            known.max_output_tokens if known else None,
        )
    return FREE if spec.get("scripted") is not None else known


def known_value(source: Any, values: Values) -> tuple[bool, Any]:
    """Return whether the value of JSON with ``{{ }}`` is known before the run, and the value."""
    try:
        if all(_is_known(one, values) for one in _expressions(source)):
            return True, render(source, Scope({"inputs": dict(values.inputs)}))
    except ExpressionError:
        pass
    return False, None


def known_items(source: str, values: Values) -> Sequence[Any] | None:
    """Return what a ``forEach`` gives, where that is known before the run."""
    try:
        expression = compile_expression(source)
        if not _is_known(expression, values):
            return None
        found = Scope({"inputs": dict(values.inputs)}).evaluate(expression)
    except ExpressionError:
        return None
    if isinstance(found, Mapping):
        return list(found.values())
    return found if isinstance(found, list) else None


def tokens_of(source: Any, values: Values) -> tuple[Range, bool]:
    """Return the tokens of a text or JSON with ``{{ }}``, and whether something about it had to be assumed."""
    if not isinstance(source, str):
        known, value = known_value(source, values)
        return (_exactly(value if known else source), not known)
    total, assumed = NONE, False
    try:
        parts = template(source)
    except ExpressionError:
        return _exactly(source), False
    for part in parts:
        size, unsure = (_exactly(part), False) if isinstance(part, str) else _tokens_of_expression(part, values)
        total, assumed = total + size, assumed or unsure
    return total, assumed


def _tokens_of_expression(expression: Expression, values: Values) -> tuple[Range, bool]:
    known, value = known_value(f"{{{{ {expression.source} }}}}", values)
    if known:
        return _exactly("" if value is None else value), False
    if expression.source == "item" and values.items:
        sizes = [_tokens(item) for item in values.items]
        return Range(min(sizes), max(sizes)), False
    if expression.outputs and expression.variables <= {"outputs"}:
        sizes = [values.outputs.get(name, _UNKNOWN_VALUE).most for name in expression.outputs]
        return Range(0, sum(sizes)), True
    return _UNKNOWN_VALUE, True


def _is_known(expression: Expression, values: Values) -> bool:
    whole = "inputs" in expression.variables and not expression.inputs
    return not (expression.variables & _ELSEWHERE or whole) and expression.inputs <= values.inputs.keys()


def _expressions(source: Any) -> list[Expression]:
    match source:
        case str():
            return [part for part in template(source) if isinstance(part, Expression)]
        case Mapping():
            return [found for value in source.values() for found in _expressions(value)]
        case list() | tuple():
            return [found for value in source for found in _expressions(value)]
        case _:
            return []


def _exactly(value: Any) -> Range:
    size = _tokens(value)
    return Range(size, size)


def _tokens(value: Any) -> int:
    data = value.encode(errors="replace") if isinstance(value, str) else orjson.dumps(value, default=str)
    return -(-len(data) // BYTES_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class Asking:
    """How a model is asked: by an ``llm`` node, or by an agent in its turn."""

    texts: Sequence[Any]
    model: Mapping[str, Any]
    """The Model's spec; empty where it is not known."""
    parameters: Mapping[str, Any]
    price: ModelPrice | None
    output: Any = None
    tools: int = 0
    turns: int = TURNS
    tool_calls: int = TOOL_CALLS
    tokens: int | None = None
    """The most that it may use, input and output together."""


def estimate_asking(asking: Asking, values: Values) -> Estimate:
    """Return what one try takes that asks a model, tools and a repair included."""
    assumed = {"tokens", "most"}
    prompt = _exactly(asking.output) if asking.output else NONE
    for text in asking.texts:
        size, unsure = tokens_of(text, values)
        prompt += size
        assumed |= {"value"} if unsure else set()
    prompt += Range(asking.tools * TOOL_TOKENS, asking.tools * TOOL_TOKENS)
    answer, unsure = _answer(asking)
    assumed |= {"output"} if unsure else set()
    assumed |= {"tools", "value"} if asking.tools else set()
    assumed |= {"fallbacks"} if asking.model.get("fallbacks") else set()
    turns = (asking.turns if asking.tools else 1) + (1 if asking.output else 0)
    calls = Range(1, turns)
    uses = asking.tool_calls if asking.tools else 0
    told = uses * VALUE_TOKENS * (turns - 1)  # all of them in the first turn, and sent again in every other
    sent = Range(prompt.least, turns * prompt.most + answer.most * turns * (turns - 1) // 2 + told)
    got = Range(answer.least, turns * answer.most)
    usage = (asking.model.get("scripted") or {}).get("usage")
    if usage:
        sent, got = (calls * _exact(usage.get(name, 0)) for name in ("inputTokens", "outputTokens"))
    if asking.tokens is not None:
        sent = Range(min(sent.least, asking.tokens), min(sent.most, asking.tokens))
        got = Range(min(got.least, asking.tokens), min(got.most, asking.tokens))
    return Estimate(calls, Range(0, uses), sent, got, Range(0, answer.most), frozenset(assumed))


def _answer(asking: Asking) -> tuple[Range, bool]:
    """Return the tokens of one answer, and whether its length had to be assumed."""
    scripted = asking.model.get("scripted")
    if scripted is not None:
        sizes = [_tokens(one.get("reply") or "") for one in scripted.get("responses") or ()]
        return Range(min(sizes, default=0), max(sizes, default=0)), False
    given = {**(asking.model.get("parameters") or {}), **asking.parameters}
    limit = next((given[name] for name in ("max_tokens", "max_completion_tokens") if _is_count(given.get(name))), None)
    own = asking.price.max_output_tokens if asking.price is not None else None
    most = limit if limit is not None else min(OUTPUT_TOKENS, own or OUTPUT_TOKENS)
    return Range(min(LEAST_OUTPUT_TOKENS, most), most), limit is None


def _exact(count: int) -> Range:
    return Range(count, count)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
