"""Providers' protocols over real HTTP, through the real LiteLLM."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from typing import Any

import pytest

from fairlead.egress import EgressTransport, Policy
from fairlead.errors import FairleadError, NotSupported, Refused, RetryableError, TerminalError
from fairlead.llm.base import AnswerLost, ChatMessage, ChatRequest, ToolDefinition
from fairlead.llm.providers import ProviderModel, Providers
from fairlead.llm.requests import Target, wire_name
from fairlead.testing.standins import INPUT_TOKENS, OUTPUT_TOKENS, Answer, Failure, StandIn
from fairlead.testing.standins import ToolCall as ToolUse

KEY = "sk-canary-5d1f83ae"
SCHEMA = {"type": "object", "properties": {"category": {"type": "string"}}, "required": ["category"]}
PROVIDERS = [
    pytest.param("openai/gpt-4o-mini", "/v1", "authorization", id="openai"),
    pytest.param("ollama_chat/llama3.2", "", "authorization", id="ollama"),
    pytest.param("anthropic/claude-sonnet-4-5", "", "x-api-key", id="anthropic"),
    pytest.param("gemini/gemini-2.5-flash", "/v1beta", "x-goog-api-key", id="gemini"),
]


def ask(**changes: Any) -> ChatRequest:
    return ChatRequest((ChatMessage("system", "Be brief."), ChatMessage("user", "Sort this.")), **changes)


@pytest.mark.parametrize(("model", "path", "header"), PROVIDERS)
async def test_complete_answers(providers: Providers, standin: StandIn, model: str, path: str, header: str) -> None:
    target = Target(model, standin.url + path, KEY, {"temperature": 0})

    done = await ProviderModel(providers, target).complete(ask())

    assert done.text == standin.text
    assert (done.usage.input_tokens, done.usage.output_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS)
    (seen,) = standin.asked
    assert seen.headers[header].removeprefix("Bearer ") == KEY
    assert "Sort this." in str(seen.body)
    assert "Be brief." in str(seen.body)


@pytest.mark.parametrize(("model", "path", "header"), PROVIDERS)
async def test_complete_schema_is_asked_for(
    providers: Providers, standin: StandIn, model: str, path: str, header: str
) -> None:
    del header
    await ProviderModel(providers, Target(model, standin.url + path, KEY)).complete(ask(output=SCHEMA))
    (seen,) = standin.asked
    asked_for = {key: value for key, value in seen.body.items() if key not in {"messages", "contents"}}
    assert "category" in str(asked_for)


async def test_complete_schema_of_an_unknown_model_is_asked_for_in_words(
    providers: Providers, standin: StandIn
) -> None:
    await ProviderModel(providers, Target("openai/some-server", standin.url + "/v1", KEY)).complete(ask(output=SCHEMA))
    (seen,) = standin.asked
    assert "JSON Schema" in seen.body["messages"][0]["content"]


SQL = ToolDefinition("sql", "Runs a query.", {"type": "object", "properties": {"query": {"type": "string"}}})
DOTTED = ToolDefinition("weather.today", "Looks out of the window.", {"type": "object", "properties": {}})


@pytest.mark.parametrize(("model", "path", "header"), PROVIDERS)
async def test_complete_tools_are_offered_and_asked_for(
    providers: Providers, standin: StandIn, model: str, path: str, header: str
) -> None:
    del header
    calls = (ToolUse("sql", {"query": "select 1"}), ToolUse(wire_name("weather.today")))
    standin.answers.append(Answer("Let me see.", calls))
    asked = ProviderModel(providers, Target(model, standin.url + path, KEY))

    done = await asked.complete(ask(tools=(SQL, DOTTED)))

    assert (done.text, done.finish_reason) == ("Let me see.", "tool_calls")
    assert [(call.name, call.arguments) for call in done.tool_calls] == [
        ("sql", {"query": "select 1"}),
        ("weather.today", {}),
    ]
    assert len({call.id for call in done.tool_calls}) == 2
    assert "Runs a query." in str(standin.asked[0].body)

    answers = tuple(ChatMessage("tool", f"row {n}", (), call.id) for n, call in enumerate(done.tool_calls))
    history = (*ask().messages, ChatMessage("assistant", done.text, done.tool_calls), *answers)
    last = await asked.complete(ChatRequest(history, tools=(SQL, DOTTED)))
    assert (last.text, last.tool_calls, last.finish_reason) == (standin.text, (), "stop")
    assert "row 1" in str(standin.asked[1].body)
    assert "select 1" in str(standin.asked[1].body)


@pytest.mark.parametrize("raw", ['{"query": ', "select 1", "[1]"])
@pytest.mark.parametrize(("model", "path", "header"), PROVIDERS)
async def test_complete_malformed_arguments_are_kept_as_they_are(
    providers: Providers, standin: StandIn, *, model: str, path: str, header: str, raw: str
) -> None:
    del header
    standin.answers.append(Answer("", (ToolUse("sql", raw),)))
    asked = ProviderModel(providers, Target(model, standin.url + path, KEY))
    done = await asked.complete(ask(tools=(SQL,)))
    (call,) = done.tool_calls
    assert (call.arguments, call.raw) == (None, raw)

    told = ChatMessage("tool", "these arguments are no JSON object", (), call.id)
    history = (*ask().messages, ChatMessage("assistant", "", (call,)), told)
    assert (await asked.complete(ChatRequest(history, tools=(SQL,)))).text == standin.text


@pytest.mark.parametrize(("model", "path", "header"), PROVIDERS)
async def test_complete_schema_and_tools_at_once(
    providers: Providers, standin: StandIn, model: str, path: str, header: str
) -> None:
    del header
    await ProviderModel(providers, Target(model, standin.url + path, KEY)).complete(ask(output=SCHEMA, tools=(SQL,)))
    (seen,) = standin.asked
    assert "category" in str(seen.body)
    assert ("JSON Schema" in str(seen.body)) == (not model.startswith("openai"))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("model", "path", "header"), PROVIDERS)
async def test_complete_streams_unless_told_otherwise(
    providers: Providers, standin: StandIn, *, model: str, path: str, header: str, stream: bool
) -> None:
    del header
    standin.answers.append(Answer("one two three", (ToolUse("sql", {"query": "é"}),), 123, 45))
    target = Target(model, standin.url + path, KEY, {"stream": stream})
    done = await ProviderModel(providers, target).complete(ask(tools=(SQL,)))
    assert (done.text, done.tool_calls[0].arguments) == ("one two three", {"query": "é"})
    assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.estimated) == (123, 45, False)
    (seen,) = standin.asked
    assert (bool(seen.body.get("stream")) or ":stream" in seen.path) == stream


@pytest.mark.parametrize(("model", "path", "header"), PROVIDERS)
async def test_complete_usage_that_nobody_tells_is_estimated(
    providers: Providers, standin: StandIn, model: str, path: str, header: str
) -> None:
    del header
    standin.answers.append(Answer("x" * 40, usage=False))
    done = await ProviderModel(providers, Target(model, standin.url + path, KEY)).complete(ask())
    assert (done.usage.output_tokens, done.usage.estimated) == (10, True)
    assert done.usage.input_tokens > 0


@pytest.mark.parametrize("given", [{}, {"max_tokens": 900}, {"max_tokens": 30}])
@pytest.mark.parametrize(("model", "path", "header"), PROVIDERS)
async def test_complete_asks_for_no_more_than_was_granted(
    providers: Providers, standin: StandIn, *, model: str, path: str, header: str, given: dict[str, int]
) -> None:
    del header
    target = Target(model, standin.url + path, KEY, given)
    await ProviderModel(providers, target).complete(ask(granted_output_tokens=40))
    (seen,) = standin.asked
    assert str(min(40, given.get("max_tokens", 40))) in str(
        [seen.body.get(key) for key in ("max_tokens", "options", "generationConfig")]
    )


@pytest.mark.parametrize(
    ("model", "reason"), [("openai/gpt-4o-mini", "content_filter"), ("gemini/gemini-2.5-flash", "SAFETY")]
)
async def test_complete_refused_answer_is_paid(providers: Providers, standin: StandIn, model: str, reason: str) -> None:
    standin.answers.append(Answer("I", reason=reason))
    with pytest.raises(AnswerLost) as failed:
        await ProviderModel(providers, Target(model, standin.base_url(model), KEY)).complete(ask())
    assert failed.value.error.reason == "ModelRefused"
    assert failed.value.lost[0].output_tokens == OUTPUT_TOKENS


FAILURES = [
    pytest.param(Failure(429, "slow", {"retry-after": "3"}), RetryableError, "RateLimited", id="429"),
    pytest.param(Failure(401, f"bad key {KEY}"), TerminalError, "AuthenticationFailed", id="401"),
    pytest.param(Failure(500, "boom"), RetryableError, "ModelUnavailable", id="500"),
    pytest.param(Failure(404, "no such model"), TerminalError, "ModelNotFound", id="404"),
    pytest.param(
        Failure(400, "This model's maximum context length is 10 tokens"), TerminalError, "ContextTooLong", id="400"
    ),
]


@pytest.mark.parametrize(("failure", "kind", "reason"), FAILURES)
@pytest.mark.parametrize(("model", "path", "header"), PROVIDERS)
async def test_complete_failure_is_told_once(  # noqa: PLR0913 - a table
    providers: Providers,
    standin: StandIn,
    *,
    model: str,
    path: str,
    header: str,
    failure: Failure,
    kind: type[FairleadError],
    reason: str,
) -> None:
    del header
    standin.failures.append(failure)
    with pytest.raises(kind) as failed:
        await ProviderModel(providers, Target(model, standin.url + path, KEY)).complete(ask())
    assert failed.value.reason == reason
    assert KEY not in str(failed.value)
    assert failed.value.__suppress_context__
    assert len(standin.asked) == 1, "the library must not try again by itself"
    if isinstance(failed.value, RetryableError) and reason == "RateLimited":
        assert failed.value.retry_after == 3


@pytest.mark.parametrize(("model", "path", "header"), PROVIDERS)
async def test_complete_address_inside_is_refused(standin: StandIn, model: str, path: str, header: str) -> None:
    del header
    strict = Providers(EgressTransport(Policy()))
    with pytest.raises(Refused, match="this machine"):
        await ProviderModel(strict, Target(model, standin.url + path, KEY)).complete(ask())
    await strict.aclose()
    assert standin.seen == []


@pytest.mark.parametrize(("model", "path", "header"), PROVIDERS)
async def test_complete_redirect_inside_is_not_followed(
    providers: Providers, standin: StandIn, model: str, path: str, header: str
) -> None:
    del header
    standin.failures.append(Failure(307, "moved", {"Location": "http://169.254.169.254/latest/meta-data"}))
    with pytest.raises(FairleadError):
        await ProviderModel(providers, Target(model, standin.url + path, KEY)).complete(ask())
    assert len(standin.asked) == 1


async def test_complete_nobody_there_is_retryable(providers: Providers) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(RetryableError) as failed:
            await ProviderModel(providers, Target("ollama_chat/x", address)).complete(ask())
    assert failed.value.reason == "ModelUnavailable"


async def test_complete_slow_provider_times_out(providers: Providers, standin: StandIn) -> None:
    standin.failures.append(Failure(500, "late", seconds=5))
    with pytest.raises(RetryableError) as failed:
        await ProviderModel(providers, Target("openai/x", standin.url + "/v1", KEY)).complete(ask(timeout_seconds=0.3))
    assert failed.value.reason == "Timeout"


async def test_complete_key_of_the_environment_stays_here(
    providers: Providers, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OLLAMA_API_KEY", KEY)
    for target in (Target("openai/x", standin.url + "/v1"), Target("ollama_chat/x", standin.url)):
        await ProviderModel(providers, target).complete(ask())
    assert len(standin.asked) == 2
    assert KEY not in str(standin.seen)


@pytest.mark.parametrize("name", ["api_base", "base_url", "api_key", "mock_response", "extra_headers", "fallbacks"])
async def test_complete_parameter_that_is_none_is_refused(providers: Providers, name: str) -> None:
    with pytest.raises(TerminalError, match=name) as failed:
        await ProviderModel(providers, Target("openai/x", parameters={name: "http://169.254.169.254"})).complete(ask())
    assert failed.value.reason == "InvalidParameters"


@pytest.mark.parametrize("model", ["gpt-4o", "huggingface/http://169.254.169.254/x", "openai/"])
async def test_complete_model_that_is_none_is_refused(providers: Providers, model: str) -> None:
    with pytest.raises(TerminalError) as failed:
        await ProviderModel(providers, Target(model)).complete(ask())
    assert failed.value.reason == "InvalidModel"


async def test_complete_base_url_of_an_unchecked_provider_is_refused(providers: Providers, standin: StandIn) -> None:
    with pytest.raises(NotSupported, match="openai/x"):
        await ProviderModel(providers, Target("groq/x", standin.url)).complete(ask())


async def test_complete_at_the_same_time(providers: Providers, standin: StandIn) -> None:
    model = ProviderModel(providers, Target("openai/x", standin.url + "/v1", KEY))
    answers = await asyncio.gather(*(model.complete(ask()) for _ in range(20)))
    assert len(answers) == len(standin.asked) == 20


def test_import_and_scripted_models_do_not_need_litellm() -> None:
    code = "import sys, fairlead.gateway.__main__, fairlead.services.asking; print('litellm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
