"""What LiteLLM's answers mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from fairlead.errors import FairleadError, RetryableError, TerminalError
from fairlead.llm.base import AnswerLost, ChatRequest, Completion, TokenUsage, ToolCall, estimate_tokens, to_json
from fairlead.llm.requests import wire_name
from fairlead.llm.streaming import MAX_TEXT
from fairlead.nesting import is_too_deep

_MAX_TOKENS: Final = 10**9
_MAX_RAW: Final = 65_536
_REFUSED: Final = "content_filter"


def to_completion(response: Any, request: ChatRequest) -> Completion:
    """Return the answer.

    Raises:
        AnswerLost: the provider stopped it, or it is too long.
        RetryableError: there is nothing in it.
    """
    if not response.choices:
        raise RetryableError("the provider's answer is empty", reason="ModelUnavailable")
    choice = response.choices[0]
    text = choice.message.content or ""
    calls = tuple(_tool_call(call, request) for call in choice.message.tool_calls or ())
    usage = _usage(getattr(response, "usage", None), request, text, calls)
    refusal = _refusal(choice.finish_reason, text)
    if refusal is not None:
        raise AnswerLost(refusal, usage)
    return Completion(
        text=text,
        usage=usage,
        model=str(response.model or ""),
        tool_calls=calls,
        finish_reason="tool_calls" if calls else str(choice.finish_reason or ""),
    )


def _refusal(finish_reason: Any, text: str) -> FairleadError | None:
    if finish_reason == _REFUSED:
        return TerminalError("the provider's content filter stopped the answer", reason="ModelRefused")
    if len(text) > MAX_TEXT:
        return TerminalError(f"the answer has {len(text)} characters; at most {MAX_TEXT} fit", reason="TooLarge")
    return None


def estimated_usage(request: ChatRequest, *answer: str) -> TokenUsage:
    """Return about what a request and its answer used, where nobody counted."""
    asked = [*(message.content for message in request.messages), *_of_tools(request)]
    schema = to_json(request.output) if request.output else ""
    return TokenUsage(estimate_tokens(*asked, schema), estimate_tokens(*answer), estimated=True)


def _of_tools(request: ChatRequest) -> Iterable[str]:
    yield from (call.text for message in request.messages for call in message.tool_calls)
    for tool in request.tools:
        yield from (tool.name, tool.description, to_json(tool.parameters))


def _usage(usage: Any, request: ChatRequest, text: str, calls: tuple[ToolCall, ...]) -> TokenUsage:
    given, taken = _count(getattr(usage, "prompt_tokens", 0)), _count(getattr(usage, "completion_tokens", 0))
    written = [text, *(call.text for call in calls)]
    if not given or (not taken and any(written)):
        about = estimated_usage(request, *written)
        return TokenUsage(given or about.input_tokens, taken or about.output_tokens, estimated=True)
    cached = _count(getattr(getattr(usage, "prompt_tokens_details", None), "cached_tokens", 0))
    return TokenUsage(given, taken, min(cached, given))


def _count(number: Any) -> int:
    """Return a number of tokens that a server claims: never negative (it would pay back), never beyond all bounds."""
    return min(max(int(number or 0), 0), _MAX_TOKENS)


def _tool_call(call: Any, request: ChatRequest) -> ToolCall:
    names = {wire_name(tool.name): tool.name for tool in request.tools}
    name = str(call.function.name or "")
    raw = str(call.function.arguments or "{}")
    try:
        arguments = orjson.loads(raw)
    except orjson.JSONDecodeError:
        arguments = None
    known = arguments if isinstance(arguments, Mapping) and not is_too_deep(arguments) else None
    written = arguments if isinstance(arguments, str) else raw  # a provider's library has quoted what was no JSON
    return ToolCall(str(call.id or ""), names.get(name, name), known, "" if known is not None else written[:_MAX_RAW])
