"""Models whose answers are written down: for tests and demonstrations, through the same path as a provider's."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from fairlead.api.v1alpha1.model import Scripted, ScriptedResponse
from fairlead.clock import Clock
from fairlead.errors import RetryableError, TerminalError
from fairlead.llm.base import ChatRequest, Completion, TokenUsage, ToolCall, estimate_tokens, to_json, to_model_error
from fairlead.llm.patterns import compile_pattern, first_match

NAME: Final = "scripted"


class Script:
    """A checked script; compiled once, used by many runs."""

    def __init__(self, scripted: Scripted) -> None:
        self.responses = scripted.responses
        self.usage = scripted.usage
        self.patterns: tuple[Any | None, ...] = tuple(
            None if response.match is None else compile_pattern(response.match) for response in scripted.responses
        )


class ScriptedModel:
    """Answers with the first entry whose expression is found in the last text of its user or of a tool.

    Args:
        used: how often each entry has answered; kept by whoever decides how long ``times`` counts.
    """

    def __init__(self, script: Script, clock: Clock, used: Counter[int]) -> None:
        self._script = script
        self._clock = clock
        self._used = used

    async def complete(self, request: ChatRequest) -> Completion:
        """Return the answer of the first entry that fits."""
        index, response = await self._find(request.last_text)
        self._used[index] += 1
        await self._take_time((response.latency_ms or 0) / 1000, request.timeout_seconds)
        if response.error is not None:
            after = response.error.retry_after_seconds
            raise to_model_error(response.error.status, response.error.message, retry_after=after)
        if response.tool_calls and not request.tools:
            raise TerminalError(
                "the scripted answer has toolCalls, but the model is offered no tools: give the node tools"
            )
        text, calls = response.reply or "", _tool_calls(request, response)
        usage = self._usage(request, text, calls)
        if request.granted_output_tokens is not None and usage.output_tokens > request.granted_output_tokens:
            return self._cut(text, usage, request.granted_output_tokens)
        reason = "tool_calls" if calls else "stop"
        return Completion(text, usage, NAME, tool_calls=calls, scripted=True, finish_reason=reason)

    async def _take_time(self, seconds: float, limit: float) -> None:
        if seconds:
            await self._clock.sleep(min(seconds, limit))
        if seconds > limit:
            text = f"the model did not answer within {limit:g} s"
            raise RetryableError(text, reason="Timeout", retry_after=0)

    def _cut(self, text: str, usage: TokenUsage, granted: int) -> Completion:
        """End the answer where the tokens do, as a provider would."""
        kept = text[: len(text) * granted // usage.output_tokens]
        counted = TokenUsage(usage.input_tokens, granted, estimated=usage.estimated)
        return Completion(kept, counted, NAME, scripted=True, finish_reason="length")

    async def _find(self, text: str) -> tuple[int, ScriptedResponse]:
        left = [index for index, response in enumerate(self._script.responses) if self._is_left(index, response)]
        found = await first_match([self._script.patterns[index] for index in left], text)
        if found is None:
            raise TerminalError(
                f"no scripted response matches the text that begins {text[:80]!r}: add an entry, or one without match",
                reason="NoScriptedResponse",
            )
        return left[found], self._script.responses[left[found]]

    def _is_left(self, index: int, response: ScriptedResponse) -> bool:
        return response.times is None or self._used[index] < response.times

    def _usage(self, request: ChatRequest, text: str, calls: tuple[ToolCall, ...]) -> TokenUsage:
        given = self._script.usage
        if given is not None:
            return TokenUsage(given.input_tokens, given.output_tokens)
        asked = [message.content for message in request.messages]
        asked += [call.text for message in request.messages for call in message.tool_calls]
        asked += [f"{tool.name}{tool.description}{to_json(tool.parameters)}" for tool in request.tools]
        schema = to_json(request.output) if request.output else ""
        written = estimate_tokens(text, *(call.text for call in calls))
        return TokenUsage(estimate_tokens(*asked, schema), written, estimated=True)


def _tool_calls(request: ChatRequest, response: ScriptedResponse) -> tuple[ToolCall, ...]:
    """Return the tool calls, with ids that no earlier message of the conversation has."""
    before = sum(len(message.tool_calls) for message in request.messages)
    return tuple(
        ToolCall(f"call_{before + index}", call.name, call.arguments)
        for index, call in enumerate(response.tool_calls or ())
    )
