"""Attributes of spans, under OpenTelemetry's names where it has one; bounded and redacted.

Source: OpenTelemetry's semantic conventions for generative AI; content is in attributes (``gen_ai.input.messages``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fairlead.redaction import REDACTED, names_secret, redact

MAX_TEXT: Final = 1024
MAX_CONTENT: Final = 4096
"""The most characters that an input or an output has in a span."""
_MAX_DEPTH: Final = 32
_LEAST_PART: Final = 16
_PROVIDERS: Final = {
    "anthropic": "anthropic",
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "gemini": "gcp.gemini",
    "groq": "groq",
    "mistral": "mistral_ai",
    "ollama": "ollama",
    "ollama_chat": "ollama",
    "openai": "openai",
    "perplexity": "perplexity",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""LiteLLM's names of providers that OpenTelemetry calls otherwise, or by a well-known name."""


def bounded(text: str, limit: int = MAX_TEXT) -> str:
    """Return *text*, redacted, and cut where it is over *limit* characters."""
    safe = redact(text[: 4 * limit])
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def attributes(**values: Any) -> dict[str, Any]:
    """Return what is known: nothing that is None or empty, texts bounded, ``__`` in a name for a dot."""
    return {
        name.replace("__", "."): bounded(value) if isinstance(value, str) else value
        for name, value in values.items()
        if value is not None and value != ""
    }


def failure(reason: str, message: str) -> Mapping[str, Any]:
    """Return the attributes that say what went wrong."""
    return attributes(error__type=reason, error__message=message)


def content(value: Any, limit: int = MAX_CONTENT) -> str:
    """Return an input or output as text: redacted, and cut where it is over *limit* characters."""
    return bounded(to_text(value if isinstance(value, str) else without_secrets(value)), limit)


def to_text(value: Any) -> str:
    """Return a text as it is and anything else as JSON, whatever is in it; what is no Unicode is replaced."""
    plain = (
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str, separators=(",", ":"))
    )
    return plain.encode(errors="replace").decode()


def without_secrets(value: Any, depth: int = 0) -> Any:
    """Return JSON without what looks like a credential, by its text or by its name."""
    if isinstance(value, str):
        return redact(value)
    if depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {
            str(key): REDACTED if isinstance(one, str) and names_secret(str(key)) else without_secrets(one, depth + 1)
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_secrets(one, depth + 1) for one in value]
    return value


def provider_name(model: str) -> str:
    """Return OpenTelemetry's name of the provider of a LiteLLM model; empty where the string names none."""
    provider, slash, _ = model.partition("/")
    return _PROVIDERS.get(provider, provider) if slash else ""


def model_name(model: str) -> str:
    """Return what the provider itself calls a LiteLLM model."""
    provider, _, name = model.partition("/")
    return name if name and provider in _PROVIDERS else model


def input_messages(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a conversation as attributes: the system's instructions apart, the latest messages where it is too long.

    *messages* are `fairlead_agent.protocol.Message` as JSON.
    """
    system = [{"type": "text", "content": one.get("content") or ""} for one in messages if one.get("role") == "system"]
    others = [{"role": one.get("role"), "parts": _input_parts(one)} for one in messages if one.get("role") != "system"]
    found = {"gen_ai.system_instructions": _fitted(system), "gen_ai.input.messages": _fitted(others)}
    return {name: text for name, text in found.items() if text}


def output_messages(reply: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's answer, a `fairlead_agent.protocol.CallReply` as JSON, as attributes."""
    text = reply.get("result")
    parts = [{"type": "text", "content": text if isinstance(text, str) else content(text)}] if text else []
    parts += [_tool_use(one) for one in reply.get("toolCalls") or ()]
    if not parts:
        return {}
    message = {"role": "assistant", "parts": parts, "finish_reason": reply.get("finishReason") or "stop"}
    return {"gen_ai.output.messages": _fitted([message])}


def _input_parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    text = message.get("content") or ""
    if message.get("role") == "tool":
        return [{"type": "tool_call_response", "id": message.get("toolCallId") or "", "response": text}]
    parts = [{"type": "text", "content": text}] if text else []
    return [*parts, *(_tool_use(one) for one in message.get("toolCalls") or ())]


def _tool_use(use: Mapping[str, Any]) -> dict[str, Any]:
    given = use.get("arguments")
    arguments = given if given is not None else use.get("raw") or ""
    return {"type": "tool_call", "id": use.get("id") or "", "name": use.get("name") or "", "arguments": arguments}


def _fitted(messages: list[dict[str, Any]]) -> str:
    """Return JSON of at most `MAX_CONTENT` characters: long texts are cut first, then the oldest messages go."""
    kept, limit = [without_secrets(one) for one in messages], MAX_CONTENT
    while kept:
        text = to_text([_cut(one, limit) for one in kept])
        if len(text) <= MAX_CONTENT:
            return text
        if limit > _LEAST_PART:
            limit //= 2
        else:
            kept = kept[max(1, len(kept) // 2) :]
    return ""


def _cut(value: Any, limit: int) -> Any:
    match value:
        case str():
            return bounded(value, limit)
        case dict():
            return {name: _cut(one, limit) for name, one in value.items()}
        case list():
            return [_cut(one, limit) for one in value]
        case _:
            return value
