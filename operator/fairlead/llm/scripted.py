"""Models whose answers are written down: for tests and demonstrations, through the same path as a provider's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import orjson

from fairlead.api.v1alpha1.model import Scripted, ScriptedResponse
from fairlead.clock import Clock
from fairlead.errors import NotSupported, TerminalError
from fairlead.llm.base import ChatRequest, Completion, TokenUsage, to_model_error
from fairlead.llm.patterns import compile_pattern, first_match

NAME: Final = "scripted"
_CHARACTERS_PER_TOKEN: Final = 4


class Script:
    """A checked script; compiled once, used by many runs."""

    def __init__(self, scripted: Scripted) -> None:
        self.responses = scripted.responses
        self.usage = scripted.usage
        self.patterns: tuple[Any | None, ...] = tuple(
            None if response.match is None else compile_pattern(response.match) for response in scripted.responses
        )


class ScriptedModel:
    """Answers with the first entry whose expression is found in the last user text.

    Args:
        used: how often each entry has answered; kept by whoever decides how long ``times`` counts.
    """

    def __init__(self, script: Script, clock: Clock, used: Counter[int]) -> None:
        self._script = script
        self._clock = clock
        self._used = used

    async def complete(self, request: ChatRequest) -> Completion:
        """Return the answer of the first entry that fits."""
        index, response = await self._find(request.last_user_text)
        self._used[index] += 1
        if response.latency_ms:
            await self._clock.sleep(response.latency_ms / 1000)
        if response.error is not None:
            after = response.error.retry_after_seconds
            raise to_model_error(response.error.status, response.error.message, retry_after=after)
        if response.tool_calls:
            raise NotSupported("a scripted answer with toolCalls needs a node with tools")
        text = response.reply or ""
        return Completion(text, self._usage(request, text), NAME, scripted=True)

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

    def _usage(self, request: ChatRequest, text: str) -> TokenUsage:
        given = self._script.usage
        if given is not None:
            return TokenUsage(given.input_tokens, given.output_tokens)
        asked: Sequence[str] = [message.content for message in request.messages]
        schema = orjson.dumps(request.output).decode() if request.output else ""
        return TokenUsage(_tokens(*asked, schema), _tokens(text), estimated=True)


def _tokens(*texts: str) -> int:
    return -(-sum(len(text) for text in texts) // _CHARACTERS_PER_TOKEN)
