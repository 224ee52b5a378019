"""One workflow on every provider: only the line `model:` differs."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.storage.base import RunState
from fairlead.testing.standins import Answer, Seen, StandIn, ToolCall

KEY = "sk-canary-93bd20f1"
MODELS = {
    "openai": "openai/gpt-4o-mini",
    "ollama": "ollama_chat/llama3.2",
    "anthropic": "anthropic/claude-sonnet-4-5",
    "gemini": "gemini/gemini-2.5-flash",
}
CATEGORY = {"type": "object", "required": ["category"], "properties": {"category": {"enum": ["bug", "question"]}}}
QUERY = {"data": [3, 4, 5], "expression": "length(@)"}


def workflow(model: str) -> dict[str, Any]:
    return {
        "model": model,
        "nodes": [
            {"name": "classify", "llm": {"system": "You sort.", "prompt": "Sort: it crashes", "output": CATEGORY}},
            {
                "name": "count",
                "needs": ["classify"],
                "when": 'outputs.classify.category == "bug"',
                "llm": {"prompt": "How many crashes?", "tools": ["json_query"]},
            },
            {
                "name": "write",
                "needs": ["count"],
                "forEach": '["en", "de"]',
                "llm": {"prompt": "Answer in {{ item }}: {{ outputs.count }}"},
            },
        ],
        "output": "{{ outputs.write }}",
    }


def answer(seen: Seen) -> Answer:
    """Play the model, whatever protocol it is asked by."""
    body = str(seen.body)
    if "Answer in" in body:
        return Answer("Es sind 3." if "Answer in de" in body else "There are 3.", (), 30, 4)
    if "How many" in body:
        asked = (
            "functionResponse" in body
            or "function_response" in body
            or "tool_result" in body
            or "'role': 'tool'" in body
        )
        return Answer("3", (), 50, 1) if asked else Answer("", (ToolCall("json_query", QUERY),), 40, 9)
    return Answer('{"category": "bug"}', (), 20, 6)


def model(standin: StandIn, name: str) -> dict[str, Any]:
    return {
        "model": MODELS[name],
        "baseURL": standin.base_url(MODELS[name]),
        "apiKey": {"valueFrom": {"secretKeyRef": {"name": "provider", "key": "key"}}},
        "price": {"inputPerMillionTokens": "0.15", "outputPerMillionTokens": "0.6"},
    }


@pytest.mark.parametrize("name", MODELS)
async def test_workflow_on_a_provider(plant: Any, standin: StandIn, name: str) -> None:
    standin.respond = answer
    run = await plant.run(workflow(name), {each: model(standin, each) for each in MODELS})

    assert (run.state, run.message) == (RunState.SUCCEEDED, "")
    assert run.output == ["There are 3.", "Es sind 3."]
    assert (run.input_tokens, run.output_tokens) == (20 + 40 + 50 + 30 + 30, 6 + 9 + 1 + 4 + 4)
    assert run.cost == 170 * 150_000 + 24 * 600_000
    assert len(standin.asked) == 5
    assert all(KEY in str(seen.headers) for seen in standin.asked)
    assert KEY not in plant.log.read_text()
