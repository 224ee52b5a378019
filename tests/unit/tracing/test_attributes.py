from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.tracing.attributes import (
    MAX_CONTENT,
    content,
    input_messages,
    model_name,
    output_messages,
    provider_name,
    without_secrets,
)

CANARIES = [
    "sk-canary1234567890",
    "Bearer canary1234567890",
    "https://u:canary1234567890@x/",
    "?api_key=canary1234567890",
]


@pytest.mark.parametrize("canary", CANARIES)
def test_no_credential_comes_into_an_attribute(canary: str) -> None:
    message = {"role": "user", "content": f"use {canary} please"}
    call = {"role": "assistant", "toolCalls": [{"id": "1", "name": "t", "arguments": {"deep": [{"x": canary}]}}]}
    tool = {"role": "tool", "toolCallId": "1", "content": canary}
    system = {"role": "system", "content": canary}
    shown = [
        content(canary),
        content({"a": [{"b": canary}]}),
        *input_messages([system, message, call, tool]).values(),
        *output_messages({"result": canary, "toolCalls": [{"id": "1", "name": "t", "raw": canary}]}).values(),
        *output_messages({"result": {"password": "canary1234567890"}}).values(),
    ]
    assert not any("canary1234567890" in text for text in shown)
    assert all("redacted" in text for text in shown)


def test_content_hides_what_is_named_a_secret() -> None:
    assert orjson.loads(content({"token": "abc", "a": {"apiKey": "abc"}, "n": 1})) == {
        "token": "[redacted]",
        "a": {"apiKey": "[redacted]"},
        "n": 1,
    }


def test_without_secrets_stands_what_has_no_end() -> None:
    deep: Any = "x"
    for _ in range(1000):
        deep = [deep]
    assert "…" in content(deep)
    assert without_secrets({1: 2}) == {"1": 2}


def test_input_messages_have_the_form_that_opentelemetry_gives_them() -> None:
    found = input_messages(
        [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "toolCalls": [{"id": "1", "name": "sql", "arguments": {"q": 1}}]},
            {"role": "tool", "toolCallId": "1", "content": "42"},
        ]
    )
    assert orjson.loads(found["gen_ai.system_instructions"]) == [{"type": "text", "content": "be brief"}]
    assert orjson.loads(found["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "hi"}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "1", "name": "sql", "arguments": {"q": 1}}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": "42"}]},
    ]


def test_output_messages_say_why_the_model_ended() -> None:
    found = output_messages({"result": "yes", "finishReason": "length"})
    assert orjson.loads(found["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "yes"}], "finish_reason": "length"}
    ]
    assert output_messages({"error": {"reason": "Timeout"}}) == {}


def test_input_messages_keep_the_latest_where_there_are_too_many() -> None:
    messages = [{"role": "user", "content": f"message {number} " + "x" * 50} for number in range(500)]
    kept = orjson.loads(input_messages(messages)["gen_ai.input.messages"])
    assert kept[-1]["parts"][0]["content"].startswith("message 499")
    assert kept[0] != {"role": "user", "parts": [{"type": "text", "content": messages[0]["content"]}]}


@given(st.lists(st.text(max_size=6000), max_size=80))
def test_input_messages_are_bounded_json_whatever_is_said(texts: list[str]) -> None:
    found = input_messages([{"role": "user", "content": text} for text in texts])
    for text in found.values():
        assert len(text) <= MAX_CONTENT
        orjson.loads(text)


@pytest.mark.parametrize(
    ("model", "provider", "name"),
    [
        ("openai/gpt-4.1", "openai", "gpt-4.1"),
        ("gemini/gemini-2.5-flash", "gcp.gemini", "gemini-2.5-flash"),
        ("ollama_chat/llama3.2", "ollama", "llama3.2"),
        ("acme/x", "acme", "acme/x"),
        ("gpt-4.1", "", "gpt-4.1"),
    ],
)
def test_provider_and_name_of_a_litellm_model(model: str, provider: str, name: str) -> None:
    assert (provider_name(model), model_name(model)) == (provider, name)
