"""What tokens cost: exact, in picodollars (10⁻¹² USD)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import orjson

from fairlead.llm.base import TokenUsage

_PICO: Final = Decimal(10) ** 12
_PER_MILLION: Final = Decimal(10) ** 6
_LIST: Final = "model_prices_and_context_window_backup.json"
_SELF_HOSTED: Final = frozenset({"ollama", "ollama_chat"})
_ABOVE: Final = re.compile(r"^input_cost_per_token_above_(\d+)k_tokens$")


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """US dollars for one token."""

    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    """Of an input token that the provider had kept; None: as any other."""


FREE: Final = TokenPrice(Decimal(0), Decimal(0))


def price_per_million(*, input_tokens: str, output_tokens: str) -> TokenPrice:
    """Return the price that a Model states."""
    return TokenPrice(Decimal(input_tokens) / _PER_MILLION, Decimal(output_tokens) / _PER_MILLION)


def cost(price: TokenPrice, usage: TokenUsage) -> int:
    """Return what *usage* costs, in picodollars."""
    cached = usage.cached_tokens if price.cached is not None else 0
    total = (
        price.input * (usage.input_tokens - cached)
        + (price.cached or Decimal(0)) * cached
        + price.output * usage.output_tokens
    )
    return int((total * _PICO).to_integral_value(ROUND_HALF_EVEN))


def listed_price(model: str, usage: TokenUsage) -> TokenPrice | None:
    """Return the price in LiteLLM's own list, or None where it does not know the model."""
    provider, _, name = model.partition("/")
    entry = _entry(model)
    if entry is None or "input_cost_per_token" not in entry:
        return FREE if provider in _SELF_HOSTED and name else None
    suffix = _tier(entry, usage.input_tokens)
    cached = entry.get("cache_read_input_token_cost" + suffix)
    return TokenPrice(
        _decimal(entry["input_cost_per_token" + suffix]),
        _decimal(entry.get("output_cost_per_token" + suffix) or entry.get("output_cost_per_token") or 0),
        None if cached is None else _decimal(cached),
    )


def output_limit(model: str) -> int | None:
    """Return the most tokens that LiteLLM's list says an answer of a model has, or None where it does not say."""
    limit = (_entry(model) or {}).get("max_output_tokens")
    return limit if isinstance(limit, int) and limit > 0 else None


@cache
def price_list() -> Mapping[str, Mapping[str, Any]]:
    """Return LiteLLM's list, read as data: LiteLLM itself is not imported."""
    spec = find_spec("litellm")
    if spec is None or spec.origin is None:
        return {}
    prices: dict[str, dict[str, Any]] = orjson.loads((Path(spec.origin).parent / _LIST).read_bytes())
    return prices


def _entry(model: str) -> Mapping[str, Any] | None:
    provider, _, name = model.partition("/")
    entries = price_list()
    entry = entries.get(model)
    if entry is None and name and (entries.get(name) or {}).get("litellm_provider") == provider:
        entry = entries[name]
    return entry


def _tier(entry: Mapping[str, Any], input_tokens: int) -> str:
    """Long prompts have a higher price with some providers."""
    limits = [int(found[1]) for found in map(_ABOVE.match, entry) if found and input_tokens > int(found[1]) * 1000]
    return f"_above_{max(limits)}k_tokens" if limits else ""


def _decimal(value: float | str) -> Decimal:
    return Decimal(str(value))
