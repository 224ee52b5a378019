from __future__ import annotations

from typing import Any, cast

import pytest

from fairlead.errors import RetryableError, TerminalError
from fairlead.kube import KubeClient
from fairlead.llm.providers import Providers
from fairlead.services.asking import Models
from fairlead.services.outcomes import Outcome
from fairlead.services.tasks import TaskContext
from fairlead.testing.clock import FakeClock
from fairlead_agent.protocol import LlmRequest, Message, ToolInfo, ToolUse

TOOL = ToolInfo(name="sql", description="Runs a query.", parameters={"type": "object"})
DOWN = {"responses": [{"error": {"status": 503, "message": "down"}}]}
PRICE = {"inputPerMillionTokens": "1", "outputPerMillionTokens": "2"}


def says(text: str, **more: Any) -> dict[str, Any]:
    return {"scripted": {"responses": [{"reply": text}], "usage": {"inputTokens": 10, "outputTokens": 5}}, **more}


class World:
    """Models of one run."""

    def __init__(self, **models: dict[str, Any]) -> None:
        self.clock = FakeClock()
        document = {"workflow": {"spec": {}}, "models": models}
        self.context = TaskContext("t", "uid-1", "ns", "run-1", "w", None, document, cluster="c")
        self.models = Models(
            cast("KubeClient", None),
            self.clock,
            cast("Providers", None),
            find_tool=lambda _context, name: TOOL if name == "sql" else None,
            jitter=lambda: 0.0,
        )

    async def ask(self, *messages: Message, granted: int | None = None, **more: Any) -> Outcome:
        asked = messages or (Message(role="user", content="?"),)
        request = LlmRequest(model="first", messages=asked, **more)
        return await self.models.ask(self.context, request, timeout_seconds=100, max_output_tokens=granted)


async def test_ask_falls_back_in_order_and_pays_for_who_answers() -> None:
    world = World(
        first={
            "scripted": DOWN,
            "fallbacks": ["second", "third"],
            "retries": 1,
            "price": {**PRICE, "inputPerMillionTokens": "9"},
        },
        second={"scripted": {"responses": [{"error": {"status": 401}}]}},
        third=says("at last", price=PRICE),
    )
    outcome = await world.ask()
    assert outcome.reply.result == "at last"
    assert (outcome.model, outcome.cost, outcome.reply.cost) == ("third", 20 * 10**6, "0.00002")
    told = outcome.attributes["fairlead.fallback_from"]
    assert told.startswith("Model first (scripted): after 2 tries: down; Model second (scripted): ")
    assert outcome.attributes["fairlead.model"] == "third"


async def test_ask_all_failed_tells_of_all() -> None:
    world = World(
        first={"scripted": DOWN, "fallbacks": ["second"], "retries": 0}, second={"scripted": DOWN, "retries": 0}
    )
    with pytest.raises(RetryableError, match=r"^Model first .*: down; then Model second .*: down$") as failed:
        await world.ask()
    assert failed.value.reason == "ModelUnavailable"


async def test_ask_does_not_fall_back_where_it_cannot_help() -> None:
    refused = {"responses": [{"error": {"status": 400, "message": "no such thing"}}]}
    world = World(first={"scripted": refused, "fallbacks": ["second"]}, second=says("never"))
    with pytest.raises(TerminalError, match="no such thing"):
        await world.ask()


async def test_ask_falls_back_at_once_where_the_wait_is_long() -> None:
    limited = {"responses": [{"error": {"status": 429, "retryAfterSeconds": 30}}]}
    world = World(first={"scripted": limited, "fallbacks": ["second"]}, second=says("quick"))
    assert (await world.ask()).reply.result == "quick"
    assert world.clock.slept == []

    alone = World(first={"scripted": {"responses": [{**limited["responses"][0], "times": 1}, {"reply": "patience"}]}})
    assert (await alone.ask()).reply.result == "patience"
    assert alone.clock.slept == [30.0]


async def test_ask_open_circuit_is_shared_by_all_runs_and_goes_to_the_fallback() -> None:
    world = World(first={"scripted": DOWN, "fallbacks": ["second"], "retries": 4}, second=says("ok"))
    await world.ask()
    slept = list(world.clock.slept)
    outcome = await world.ask()
    assert "tries in a row failed" in outcome.attributes["fairlead.fallback_from"]
    assert world.clock.slept == slept


async def test_ask_rate_limit_of_a_model_holds_over_calls() -> None:
    world = World(first=says("ok", rateLimit={"requestsPerMinute": 2}))
    for _ in range(3):
        await world.ask()
    assert world.clock.slept == [60.0]


async def test_ask_answer_that_the_budget_cut_off_is_none_and_is_paid() -> None:
    world = World(first=says("0123456789", price=PRICE))
    outcome = await world.ask(granted=3)
    assert outcome.reply.error is not None
    assert (outcome.reply.error.reason, outcome.reply.result) == ("BudgetExceeded", None)
    assert (outcome.reply.usage.output_tokens, outcome.cost) == (3, 16 * 10**6)
    assert (await world.ask(granted=5)).reply.result == "0123456789"


async def test_ask_tools_are_offered_and_their_use_is_told() -> None:
    call = {"name": "sql", "arguments": {"query": "select 1"}}
    script = {"responses": [{"match": "many", "toolCalls": [call]}, {"match": "rows", "reply": "one"}]}
    world = World(first={"scripted": script})
    question = Message(role="user", content="how many?")
    (use,) = (await world.ask(question, tools=("sql",))).reply.tool_calls
    assert use == ToolUse(id="call_0", name="sql", arguments={"query": "select 1"})

    asked = (
        question,
        Message(role="assistant", tool_calls=(use,)),
        Message(role="tool", content="rows: 1", tool_call_id=use.id),
    )
    assert (await world.ask(*asked, tools=("sql",))).reply.result == "one"
    with pytest.raises(TerminalError, match="no tool nonsense"):
        await world.ask(question, tools=("nonsense",))


async def test_reserve_counts_the_tools_that_are_offered() -> None:
    world = World(first=says("ok", budget={"maxTokens": 10_000}))
    request = LlmRequest(model="first", messages=(Message(role="user", content="?"),))
    reserved = world.models.reserve(world.context, request)
    assert reserved is not None
    assert [line.scope for line in reserved.lines] == ["model/c/ns/first"]
    world = World(first={"model": "openai/gpt-4o-mini", "budget": {"maxCostUSD": "1"}})
    bare = world.models.reserve(world.context, request)
    offered = world.models.reserve(world.context, request.model_copy(update={"tools": ("sql",)}))
    assert bare is not None
    assert offered is not None
    assert offered.input_tokens > bare.input_tokens + 1024


@pytest.mark.parametrize("where", ["output", "tools"])
async def test_ask_schema_that_grows_when_it_is_unfolded_is_refused(where: str) -> None:
    links = {f"d{n}": {"properties": {name: {"$ref": f"#/$defs/d{n + 1}"} for name in "ab"}} for n in range(40)}
    schema = {"type": "object", "$defs": links, "properties": {"a": {"$ref": "#/$defs/d0"}}}
    grows = ToolInfo(name="grows", description="", parameters=schema)
    world = World(first=says("never"))
    world.models = Models(
        cast("KubeClient", None), world.clock, cast("Providers", None), find_tool=lambda _context, _name: grows
    )
    with pytest.raises(TerminalError, match="no usable JSON Schema: it unfolds") as failed:
        await (world.ask(output=schema) if where == "output" else world.ask(tools=("grows",)))
    assert failed.value.reason == "InvalidSpec"
