"""What many calls at once cost: to the last digit, whatever goes wrong, and never more than a budget."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

from fairlead.storage.base import RunState
from fairlead.testing.standins import Answer, Failure, Seen, StandIn

CALLS = 50
PRICES = {"gpt-4o-mini": ("0.150001", "0.600007"), "claude-sonnet-4-5": ("3.000003", "15.000011")}
NAMES = {"gpt-4o-mini": "cheap", "claude-sonnet-4-5": "dear"}


def model(standin: StandIn, wanted: str, **more: Any) -> dict[str, Any]:
    given, taken = PRICES[wanted.partition("/")[2]]
    price = {"inputPerMillionTokens": given, "outputPerMillionTokens": taken}
    return {"model": wanted, "baseURL": standin.base_url(wanted), "price": price, **more}


def workflow(**more: Any) -> dict[str, Any]:
    items = f"[{', '.join(map(str, range(CALLS)))}]"
    node = {"name": "ask", "forEach": items, "maxParallel": CALLS, "llm": {"prompt": "number <{{ item }}>"}}
    return {"model": "cheap", "nodes": [node], **more}


def number(seen: Seen) -> int:
    return int(str(seen.body["messages"]).partition("<")[2].partition(">")[0])


def cost(name: str, answer: Answer) -> int:
    """Return picodollars, computed in another way than Fairlead does."""
    given, taken = (Decimal(price) * 10**6 for price in PRICES[name])
    exact = given * answer.input_tokens + taken * answer.output_tokens
    assert exact == int(exact)
    return int(exact)


async def test_cost_of_parallel_calls_with_retries_and_fallbacks(plant: Any, standin: StandIn) -> None:
    tried: Counter[int] = Counter()

    def respond(seen: Seen) -> Answer | Failure:
        item = number(seen)
        if seen.model == "gpt-4o-mini":
            tried[item] += 1
            if item % 5 == 0:
                return Failure(404, "no such model")  # the fallback answers
            if item % 3 == 0 and tried[item] == 1:
                return Failure(429, "slow", {"retry-after": "0"})  # a retry answers
        return Answer(f"said {item}", (), 100 + 7 * item, 13 + item)

    standin.respond = respond
    models = {
        "cheap": model(standin, "openai/gpt-4o-mini", fallbacks=["dear"]),
        "dear": model(standin, "anthropic/claude-sonnet-4-5"),
    }
    run = await plant.run(workflow(budget={"maxCostUSD": "1000", "period": "Run"}), models)

    assert (run.state, run.message) == (RunState.SUCCEEDED, "")
    told = Counter(name for name, _ in standin.told)
    assert told == {"claude-sonnet-4-5": CALLS // 5, "gpt-4o-mini": CALLS - CALLS // 5}
    assert len(standin.asked) > CALLS + CALLS // 5, "there were retries"
    expected = Counter[str]()
    for name, answer in standin.told:
        expected[NAMES[name]] += cost(name, answer)
    assert run.cost == sum(expected.values())
    assert run.input_tokens == sum(answer.input_tokens for _, answer in standin.told)
    assert run.output_tokens == sum(answer.output_tokens for _, answer in standin.told)
    rows = await plant.storage.costs(plant.cluster, by=("model",), namespace=plant.namespace)
    assert {row.key["model"]: row.cost for row in rows} == expected
    (node,) = [node for node in await plant.storage.nodes_of_run(run.uid) if node.item == ""]
    assert node.cost == run.cost


async def test_budget_is_never_overshot_by_parallel_calls(plant: Any, standin: StandIn) -> None:
    standin.respond = lambda _seen: Answer("no more than that", (), 60, 20)
    one = cost("gpt-4o-mini", Answer(input_tokens=60, output_tokens=20))
    models = {"cheap": model(standin, "openai/gpt-4o-mini", parameters={"max_tokens": 20})}
    limit = 10 * one
    run = await plant.run(workflow(), models, budget={"maxCostUSD": f"{Decimal(limit) / 10**12:f}"})

    assert (run.state, run.reason) == (RunState.FAILED, "BudgetExceeded")
    assert "raise maxCostUSD" in run.message
    assert run.cost == one * len(standin.told)
    assert 0 < run.cost <= limit
    assert len(standin.asked) == len(standin.told)
