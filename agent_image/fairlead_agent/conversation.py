"""A conversation with a model: what is asked, how far it may go, and the short form without tools."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fairlead_agent.answers import parse_answer, repair
from fairlead_agent.desk import Desk
from fairlead_agent.failures import NodeFailure
from fairlead_agent.protocol import LlmRequest, Message

DEFAULT_TURNS: Final = 10
DEFAULT_TOOL_CALLS: Final = 50


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a conversation may go."""

    turns: int = DEFAULT_TURNS
    """How often the model may be asked."""
    tool_calls: int = DEFAULT_TOOL_CALLS
    tokens: int | None = None
    """Input and output together."""


@dataclass(frozen=True, slots=True)
class Talk:
    """What a model is asked."""

    model: str
    messages: tuple[Message, ...]
    output: Mapping[str, Any] | None = None
    """A JSON Schema."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[str, ...] = ()
    limits: Limits = Limits()

    def request(self, messages: tuple[Message, ...]) -> LlmRequest:
        """Return the next question."""
        return LlmRequest(
            model=self.model,
            messages=messages,
            output=None if self.output is None else dict(self.output),
            parameters=dict(self.parameters),
            tools=self.tools,
        )


def opening(prompt: str, *, system: str = "") -> tuple[Message, ...]:
    """Return the first messages."""
    told = (Message(role="system", content=system),) if system else ()
    return (*told, Message(role="user", content=prompt))


async def answer(talk: Talk, desk: Desk) -> Any:
    """Return what the model says: a text, or with `Talk.output` the value that it holds.

    Raises:
        NodeFailure: the model's or a tool's, a limit's, or ``OutputInvalid``.
    """
    if talk.tools:
        loop = await load("fairlead_agent.loop")
        return await loop.converse(talk, desk)
    said = await desk.result(0, talk.request(talk.messages))
    if talk.output is None:
        return said
    try:
        return parse_answer(said, talk.output)
    except NodeFailure as wrong:
        mended = await desk.result(1, talk.request((*talk.messages, *repair(said, wrong.error.message))))
        return parse_answer(mended, talk.output)


async def load(module: str) -> Any:
    """Return a module that needs LangGraph: its import takes a second, in a thread, so that other tasks go on."""
    if module in sys.modules:  # or about to be: this waits then
        return importlib.import_module(module)
    return await asyncio.to_thread(importlib.import_module, module)
