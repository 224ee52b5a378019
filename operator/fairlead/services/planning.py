"""Plans runs with what is known of prices and of earlier runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from fairlead.clock import Clock
from fairlead.core.estimates import ModelPrice
from fairlead.core.planning import plan_run
from fairlead.core.profile import WorkflowProfile
from fairlead.core.runplan import RunPlan, There
from fairlead.llm.base import TokenUsage
from fairlead.llm.prices import listed_price, output_limit
from fairlead.services.profiling import Profiling
from fairlead.storage.base import Storage

_RUNS: Final = 50
_PROMPT: Final = TokenUsage(0, 0)


class Planning:
    """Plans runs of one cluster; reads storage, asks nobody."""

    def __init__(self, storage: Storage, clock: Clock, *, cluster: str) -> None:
        self._profiling = Profiling(storage, clock, cluster=cluster)

    async def plan(
        self, namespace: str, name: str, *, spec: Mapping[str, Any], inputs: Mapping[str, Any] | None, there: There
    ) -> RunPlan:
        """Return what a run of the workflow *name* with this spec would do."""
        history: WorkflowProfile | None = None
        if name:
            history = await self._profiling.workflow(namespace, name, limit=_RUNS)
        models = (there.models or {}).values()
        prices = listed_prices(str(model.get("model") or "") for model in models)
        return plan_run(spec, inputs, there=there, name=name, prices=prices, history=history)


def listed_prices(models: Iterable[str]) -> dict[str, ModelPrice]:
    """Return the prices of those LiteLLM models that the price list knows."""
    found: dict[str, ModelPrice] = {}
    for model in models:
        price = listed_price(model, _PROMPT) if model else None
        if price is not None:
            found[model] = ModelPrice(price.input, price.output, output_limit(model))
    return found


def show_prices(prices: Mapping[str, ModelPrice]) -> dict[str, Any]:
    """Return prices as JSON."""
    return {
        model: {"input": f"{price.input:f}", "output": f"{price.output:f}", "maxOutputTokens": price.max_output_tokens}
        for model, price in prices.items()
    }


def read_prices(shown: Mapping[str, Any]) -> dict[str, ModelPrice]:
    """Return what `show_prices` showed."""
    return {
        model: ModelPrice(Decimal(one["input"]), Decimal(one["output"]), one.get("maxOutputTokens"))
        for model, one in shown.items()
    }
