from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from fairlead.api.v1alpha1.model import Scripted
from fairlead.errors import FairleadError, RetryableError, TerminalError
from fairlead.llm.base import ChatMessage, ChatRequest
from fairlead.llm.patterns import compile_pattern, first_match
from fairlead.llm.retrying import Retrying
from fairlead.llm.scripted import Script, ScriptedModel
from fairlead.testing.clock import FakeClock


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


async def test_retrying_answers_after_rate_limits_and_keeps_to_retry_after() -> None:
    clock = FakeClock()
    limited = {"error": {"status": 429, "message": "slow", "retryAfterSeconds": 7}, "times": 2}
    done = await Retrying(model(limited, {"reply": "ok"}), clock, retries=2).complete(ask("?"))
    assert done.text == "ok"
    assert clock.slept == [7.0, 7.0]


async def test_retrying_gives_up_after_the_last_try() -> None:
    clock = FakeClock()
    with pytest.raises(RetryableError, match="down"):
        await Retrying(model({"error": {"status": 500, "message": "down"}}), clock, retries=3).complete(ask("?"))
    assert clock.slept == [1.0, 2.0, 4.0]


async def test_retrying_does_not_repeat_what_cannot_succeed() -> None:
    clock = FakeClock()
    with pytest.raises(TerminalError):
        await Retrying(model({"error": {"status": 401}}), clock, retries=3).complete(ask("?"))
    assert clock.slept == []


async def test_retrying_does_not_wait_longer_than_a_minute() -> None:
    clock = FakeClock()
    limited = {"error": {"status": 429, "message": "tomorrow", "retryAfterSeconds": 3600}}
    with pytest.raises(RetryableError) as failed:
        await Retrying(model(limited), clock, retries=3).complete(ask("?"))
    assert (failed.value.retry_after, clock.slept) == (3600, [])


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*$", "(a|aa)+$", "^(([a-z])+.)+[A-Z]([a-z])+$"])
async def test_first_match_evil_pattern_ends_in_time(pattern: str) -> None:
    with pytest.raises(TerminalError, match="takes too long") as failed:
        await first_match([compile_pattern(pattern)], "a" * 5000 + "!")
    assert failed.value.reason == "PatternTooSlow"


def test_compile_pattern_that_is_wrong_is_refused() -> None:
    with pytest.raises(TerminalError, match="is wrong") as failed:
        compile_pattern("(a")
    assert failed.value.reason == "InvalidPattern"
