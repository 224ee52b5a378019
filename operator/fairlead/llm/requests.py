"""What LiteLLM is given: parameters that are allowed, messages, tools, the shape of the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from fairlead.egress import check_url
from fairlead.errors import NotSupported, TerminalError
from fairlead.llm.base import ChatMessage, ChatRequest, ToolDefinition, to_json

PARAMETERS: Final = frozenset(
    {
        "frequency_penalty",
        "keep_alive",
        "logit_bias",
        "max_completion_tokens",
        "max_tokens",
        "num_ctx",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning_effort",
        "seed",
        "stop",
        "temperature",
        "thinking",
        "tool_choice",
        "top_k",
        "top_p",
        "verbosity",
    }
)
"""What may be a parameter. LiteLLM takes addresses, credentials and file names by the same way: not from here."""
STREAM: Final = "stream"
"""A parameter of our own: `false` has the provider answer in one piece."""
BASE_URL_PROVIDERS: Final = frozenset({"anthropic", "gemini", "ollama", "ollama_chat", "openai"})
"""Providers whose every request is known to go through the checked client, so that their address may be given."""
_NATIVE_SCHEMA: Final = frozenset({"ollama", "ollama_chat"})
_SCHEMA_WITH_TOOLS: Final = frozenset({"openai"})
"""Providers whose models can be held to a schema and be offered tools at the same time."""
_FOR_TOOLS_ONLY: Final = ("tool_choice", "parallel_tool_calls")
LIMITS: Final = ("max_tokens", "max_completion_tokens")
"""The parameters that bound the length of an answer."""
_NO_KEY: Final = "none"
_LONGEST_NAME: Final = 64


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask."""

    model: str
    """As LiteLLM names it: ``provider/name``."""
    base_url: str = ""
    api_key: str = field(default="", repr=False)
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def provider(self) -> str:
        """Who serves the model."""
        return self.model.partition("/")[0]


def check_target(target: Target) -> None:
    """Refuse what is no model, and addresses that LiteLLM would not ask through the checked client.

    Raises:
        TerminalError: with reason ``InvalidModel``, or `NotSupported`.
        Refused: the form of the address.
    """
    name = target.model.partition("/")[2]
    if "://" in target.model or not name:
        raise TerminalError(
            f"{target.model!r} is no model: write provider/name, such as ollama_chat/llama3.2", reason="InvalidModel"
        )
    if target.base_url:
        check_url(target.base_url)
        if target.provider not in BASE_URL_PROVIDERS:
            raise NotSupported(
                f"baseURL works with {', '.join(sorted(BASE_URL_PROVIDERS))}; for another server that speaks OpenAI's "
                f"protocol write openai/{name}"
            )


def build_arguments(target: Target, request: ChatRequest, *, knows_schemas: Callable[[str], bool]) -> dict[str, Any]:
    """Return the arguments of LiteLLM's completion; *knows_schemas*: whether a model can be held to a JSON Schema."""
    parameters = checked_parameters({**target.parameters, **request.parameters})
    parameters.pop(STREAM, None)
    arguments: dict[str, Any] = {
        **_limited(parameters, request.granted_output_tokens),
        "model": target.model,
        "messages": [_message(message) for message in request.messages],
        "timeout": request.timeout_seconds,
        "num_retries": 0,
        "max_retries": 0,
    }
    if target.base_url:
        arguments["api_base"] = target.base_url
    if target.api_key or target.base_url:  # never a key of this process to an address that a Model gives
        arguments["api_key"] = target.api_key or _NO_KEY
    if request.tools:
        arguments["tools"] = [_tool(tool) for tool in request.tools]
    else:
        for name in _FOR_TOOLS_ONLY:
            arguments.pop(name, None)
    if request.output is not None:
        _ask_for_schema(target, request, arguments, knows_schemas=knows_schemas)
    return arguments


def checked_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters if all of them are allowed.

    Raises:
        TerminalError: with reason ``InvalidParameters``.
    """
    allowed = PARAMETERS | {STREAM}
    unknown = sorted(set(parameters) - allowed)
    if unknown:
        raise TerminalError(
            f"the parameter {unknown[0]!r} is not known; there are: {', '.join(sorted(allowed))}",
            reason="InvalidParameters",
        )
    return dict(parameters)


def wire_name(tool: str) -> str:
    """Return a tool's name as every provider accepts it: no dots, at most 64 characters."""
    if "." not in tool and len(tool) <= _LONGEST_NAME:
        return tool
    mark = sha256(tool.encode()).hexdigest()[:8]
    return f"{tool.replace('.', '_')[: _LONGEST_NAME - 9]}_{mark}"


def _limited(parameters: dict[str, Any], granted: int | None) -> dict[str, Any]:
    """Bound the answer by what the budgets left, under the name that is used already."""
    if granted is None:
        return parameters
    used = [name for name in LIMITS if name in parameters] or ["max_tokens"]
    return {**parameters, **{name: _least(parameters.get(name), granted) for name in used}}


def _least(given: Any, granted: int) -> int:
    return min(given, granted) if isinstance(given, int) and given > 0 else granted


def _message(message: ChatMessage) -> dict[str, Any]:
    shown: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        shown["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": wire_name(call.name), "arguments": _arguments(call.arguments, call.raw)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        shown["tool_call_id"] = message.tool_call_id
    return shown


def _arguments(arguments: Mapping[str, Any] | None, raw: str) -> str:
    """Return JSON in any case: some providers refuse a conversation in which a model once wrote none."""
    return to_json({"malformed": raw} if arguments is None else arguments)


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    schema = dict(tool.parameters) or {"type": "object", "properties": {}}
    function = {"name": wire_name(tool.name), "description": tool.description, "parameters": schema}
    return {"type": "function", "function": function}


def _ask_for_schema(
    target: Target, request: ChatRequest, arguments: dict[str, Any], *, knows_schemas: Callable[[str], bool]
) -> None:
    """Hold the model to the schema where it can be; otherwise ask it in words."""
    native = target.provider in _NATIVE_SCHEMA or knows_schemas(target.model)
    if native and (not request.tools or target.provider in _SCHEMA_WITH_TOOLS):
        wanted = {"name": "output", "schema": dict(request.output or {})}
        arguments["response_format"] = {"type": "json_schema", "json_schema": wanted}
        return
    when = "When you need no more tools, answer" if request.tools else "Answer"
    text = f"{when} only with JSON that follows this JSON Schema: {to_json(request.output)}"
    arguments["messages"].insert(0, {"role": "system", "content": text})
