from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from fairlead.llm.base import TokenUsage
from fairlead.llm.prices import cost, listed_price, price_list, price_per_million

PICODOLLARS = 10**12


def test_cost_is_exact() -> None:
    price = price_per_million(input_tokens="0.15", output_tokens="0.60")
    assert cost(price, TokenUsage(1000, 500)) == 450_000_000  # 0.00015 + 0.0003 dollars


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_cost_of_parts_is_the_cost_of_all(first: int, second: int, output: int) -> None:
    price = price_per_million(input_tokens="2.125", output_tokens="17")
    parts = cost(price, TokenUsage(first, 0)) + cost(price, TokenUsage(second, output))
    assert parts == cost(price, TokenUsage(first + second, output))


def test_listed_price_is_found_with_and_without_provider() -> None:
    usage = TokenUsage(1_000_000, 0)
    with_provider, without = listed_price("openai/gpt-4o-mini", usage), listed_price("gpt-4o-mini", usage)
    assert with_provider is not None
    assert with_provider == without
    assert cost(with_provider, usage) == PICODOLLARS * 15 // 100


def test_listed_price_of_another_provider_is_not_taken() -> None:
    assert listed_price("azure_ai/gpt-4o-mini-unknown", TokenUsage()) is None
    assert listed_price("someone/gpt-4o-mini", TokenUsage()) is None


def test_listed_price_unknown_is_none() -> None:
    assert listed_price("openai/no-such-model", TokenUsage()) is None


def test_listed_price_of_an_own_server_is_nothing() -> None:
    price = listed_price("ollama_chat/llama3.2", TokenUsage())
    assert price is not None
    assert cost(price, TokenUsage(10**6, 10**6)) == 0


def test_listed_price_cached_tokens_cost_less() -> None:
    usage = TokenUsage(1000, 0, cached_tokens=1000)
    price = listed_price("openai/gpt-4o-mini", usage)
    assert price is not None
    assert cost(price, usage) == 75_000_000


def test_price_list_does_not_import_litellm() -> None:
    before = "litellm" in sys.modules
    price_list.cache_clear()
    assert len(price_list()) > 1000
    assert ("litellm" in sys.modules) == before
