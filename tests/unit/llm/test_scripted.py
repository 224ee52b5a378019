from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from fairlead.api.v1alpha1.model import Scripted
from fairlead.errors import FairleadError, RetryableError, TerminalError
from fairlead.llm.base import ChatMessage, ChatRequest, ToolDefinition
from fairlead.llm.patterns import compile_pattern, first_match
from fairlead.llm.scripted import Script, ScriptedModel
from fairlead.testing.clock import FakeClock

SQL = ToolDefinition("sql", "Runs a query.", {"type": "object"})


def model(*responses: dict[str, Any], clock: FakeClock | None = None, **more: Any) -> ScriptedModel:
    script = Script(Scripted.model_validate({"responses": list(responses), **more}))
    return ScriptedModel(script, clock or FakeClock(), Counter())


def ask(text: str) -> ChatRequest:
    return ChatRequest((ChatMessage("system", "Be brief."), ChatMessage("user", text)))


async def test_complete_first_match_answers() -> None:
    asked = model({"match": "refund", "reply": "billing"}, {"match": "re", "reply": "other"}, {"reply": "any"})
    assert (await asked.complete(ask("a refund please"))).text == "billing"
    assert (await asked.complete(ask("reboot"))).text == "other"
    assert (await asked.complete(ask("hm"))).text == "any"


async def test_complete_looks_at_the_last_user_text_only() -> None:
    asked = model({"match": "secret", "reply": "wrong"}, {"reply": "right"})
    messages = (ChatMessage("user", "secret"), ChatMessage("assistant", "secret"), ChatMessage("user", "now"))
    assert (await asked.complete(ChatRequest(messages))).text == "right"


async def test_complete_no_match_says_what_was_asked() -> None:
    with pytest.raises(TerminalError, match="something else") as failed:
        await model({"match": "x{9}", "reply": "no"}).complete(ask("something else"))
    assert failed.value.reason == "NoScriptedResponse"


async def test_complete_times_is_used_up() -> None:
    asked = model({"reply": "first", "times": 2}, {"reply": "then"})
    assert [(await asked.complete(ask("?"))).text for _ in range(4)] == ["first", "first", "then", "then"]


async def test_complete_latency_takes_its_time() -> None:
    clock = FakeClock()
    await model({"reply": "late", "latencyMs": 1500}, clock=clock).complete(ask("?"))
    assert clock.slept == [1.5]


async def test_complete_usage_as_given() -> None:
    done = await model({"reply": "a"}, usage={"inputTokens": 100, "outputTokens": 20}).complete(ask("?"))
    assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.estimated) == (100, 20, False)


async def test_complete_usage_estimated_from_lengths() -> None:
    done = await model({"reply": "x" * 10}).complete(ask("y" * 31))
    assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.estimated) == (10, 3, True)


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (429, "RateLimited", RetryableError),
        (503, "ModelUnavailable", RetryableError),
        (504, "Timeout", RetryableError),
        (401, "AuthenticationFailed", TerminalError),
        (404, "ModelNotFound", TerminalError),
        (400, "ModelRefused", TerminalError),
    ],
)
async def test_complete_error_is_played(status: int, reason: str, kind: type[FairleadError]) -> None:
    with pytest.raises(kind, match="says no") as failed:
        await model({"error": {"status": status, "message": "says no"}}).complete(ask("?"))
    assert failed.value.reason == reason


async def test_complete_tool_calls_get_ids_of_their_own() -> None:
    asked = model(
        {"match": "many", "toolCalls": [{"name": "sql", "arguments": {"query": "select 1"}}]}, {"reply": "one"}
    )
    first = await asked.complete(replace(ask("how many?"), tools=(SQL,)))
    assert first.finish_reason == "tool_calls"
    (call,) = first.tool_calls
    assert (call.id, call.name, call.arguments) == ("call_0", "sql", {"query": "select 1"})

    messages = (
        *ask("how many?").messages,
        ChatMessage("assistant", "", (call,)),
        ChatMessage("tool", "1", (), "call_0"),
    )
    then = await asked.complete(ChatRequest(messages, tools=(SQL,)))
    assert then.text == "one", "the tool's answer is what was said last"


async def test_complete_tool_calls_without_tools_are_refused() -> None:
    with pytest.raises(TerminalError, match="offered no tools"):
        await model({"toolCalls": [{"name": "sql"}]}).complete(ask("?"))


async def test_complete_ends_where_the_grant_does() -> None:
    asked = model({"reply": "0123456789"}, usage={"inputTokens": 3, "outputTokens": 10})
    done = await asked.complete(replace(ask("?"), granted_output_tokens=4))
    assert (done.text, done.finish_reason, done.usage.output_tokens) == ("0123", "length", 4)


async def test_complete_too_late_is_a_timeout() -> None:
    clock = FakeClock()
    with pytest.raises(RetryableError) as failed:
        await model({"reply": "late", "latencyMs": 5000}, clock=clock).complete(replace(ask("?"), timeout_seconds=2))
    assert (failed.value.reason, clock.slept) == ("Timeout", [2])


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*$", "(a|aa)+$", "^(([a-z])+.)+[A-Z]([a-z])+$"])
async def test_first_match_evil_pattern_ends_in_time(pattern: str) -> None:
    with pytest.raises(TerminalError, match="takes too long") as failed:
        await first_match([compile_pattern(pattern)], "a" * 5000 + "!")
    assert failed.value.reason == "PatternTooSlow"


async def test_first_match_finds_plain_words_of_any_length() -> None:
    words = "b" + "a" * 2000
    patterns = [compile_pattern("no|never"), compile_pattern("b" + words), compile_pattern(words)]
    assert await first_match(patterns, f"it is {words}") == 2


@pytest.mark.parametrize("pattern", ["b" + "a" * 201 + "|x", r"\a" * 201 + "+"])
def test_compile_pattern_with_many_plain_characters_in_a_row_is_refused(pattern: str) -> None:
    with pytest.raises(TerminalError, match="in a row"):
        compile_pattern(pattern)


def test_compile_pattern_of_many_words_is_fine() -> None:
    assert compile_pattern("|".join(["a word"] * 290)) is not None


def test_compile_pattern_that_is_wrong_is_refused() -> None:
    with pytest.raises(TerminalError, match="is wrong") as failed:
        compile_pattern("(a")
    assert failed.value.reason == "InvalidPattern"
