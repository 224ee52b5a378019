"""What a try or a turn may ask of the world.

Each request has a number within its try (`sequence`). The same numbers for the same requests, in every replay, are what
keeps a call from being sent twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from fairlead_agent.answers import parse_answer
from fairlead_agent.failures import NodeFailure, failure
from fairlead_agent.port import Port
from fairlead_agent.protocol import (
    AgentRequest,
    AskApproval,
    Call,
    CallReply,
    CodeRequest,
    Decision,
    LlmRequest,
    StartTurn,
    ToolInfo,
    ToolRequest,
    TurnAnswer,
    Wait,
    WaitFor,
    call_key,
)

DEFAULT_TIMEOUT: Final = 600.0
MAX_TIMEOUT: Final = 86_400.0
"""Seconds that the gateway waits for a call at most."""
APPROVAL_SECONDS: Final = 86_400.0
"""How long a tool call waits for a person."""
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
MAX_QUESTION: Final = 65_536
MAX_PROMPT: Final = 1 << 20
"""Characters."""
Request = LlmRequest | ToolRequest | CodeRequest | AgentRequest
_ACTIONS: Final[Mapping[type[Request], Literal["llm", "tool", "code", "agent"]]] = {
    LlmRequest: "llm",
    ToolRequest: "tool",
    CodeRequest: "code",
    AgentRequest: "agent",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Whose requests these are: a try of a node or of one of its items."""

    node: str
    item: str | None = None
    iteration: int = 1
    try_number: int = 1

    def key(self, sequence: int) -> str:
        """Return the key of a request."""
        return call_key(self.node, self.item, self.iteration, self.try_number, sequence)


@dataclass(frozen=True, slots=True)
class Desk:
    """One try's way out."""

    port: Port
    attempt: int
    place: Place
    tools: Mapping[str, ToolInfo]
    wait: Callable[[Wait], Awaitable[Mapping[str, Any]]]
    """Gives the value of a signal; meanwhile the task may be parked, which ends the caller."""
    timeout_seconds: float | None = None
    admitted: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext
    """Entered around each call."""
    external: tuple[str, ...] = ()
    """Names of agents that someone else runs."""

    async def call(self, sequence: int, request: Request, *, longest: float = DEFAULT_TIMEOUT) -> CallReply:
        """Make a call through the gateway. It may take *longest* seconds where the try has no time-out."""
        call = Call(
            attempt=self.attempt,
            key=self.place.key(sequence),
            digest=digest(request),
            action=_ACTIONS[type(request)],
            node=self.place.node,
            item=self.place.item,
            timeout_seconds=min(self.timeout_seconds or longest, MAX_TIMEOUT),
            llm=request if isinstance(request, LlmRequest) else None,
            tool=request if isinstance(request, ToolRequest) else None,
            code=request if isinstance(request, CodeRequest) else None,
            agent=request if isinstance(request, AgentRequest) else None,
        )
        async with self.admitted():
            return await self.port.call(call)

    async def result(self, sequence: int, request: Request, *, longest: float = DEFAULT_TIMEOUT) -> Any:
        """Make a call, as `call` does, and return its result.

        Raises:
            NodeFailure: what the gateway answered.
        """
        reply = await self.call(sequence, request, longest=longest)
        if reply.error is not None:
            raise NodeFailure(reply.error)
        return reply.result

    def needs_approval(self, tool: str) -> bool:
        """Whether a person has to agree before a tool is used."""
        return tool in self.tools and self.tools[tool].require_approval

    async def ask(self, sequence: int, message: str, *, tool: ToolRequest | None = None, **options: Any) -> None:
        """Have a person decide about the request of this number; `decision` gives the answer."""
        approvers = self.tools[tool.name].approvers if tool and tool.name in self.tools else ()
        given: dict[str, Any] = {"approvers": approvers, "timeout_seconds": APPROVAL_SECONDS, **options}
        await self.port.ask(
            AskApproval(
                attempt=self.attempt,
                key=self.place.key(sequence),
                node=self.place.node,
                item=self.place.item,
                message=message if len(message) <= MAX_QUESTION else f"{message[: MAX_QUESTION - 1]}…",
                tool=tool,
                **given,
            )
        )

    async def decision(self, sequence: int, *, until: datetime | None = None) -> Decision:
        """Wait for the answer to what was asked under this number."""
        wait = Wait(kind=WaitFor.APPROVAL, key=self.place.key(sequence), until=until)
        return Decision.model_validate(await self.wait(wait))

    async def turn(self, agent: str, prompt: str, *, output: Any = None, until: datetime | None = None) -> Any:
        """Hand a task to an agent and wait for what comes of it.

        Raises:
            NodeFailure: the turn's, or ``PromptTooLarge``.
        """
        _check_prompt(prompt)
        key = self.place.key(0)
        await self.port.start_turn(
            StartTurn(
                attempt=self.attempt,
                key=key,
                node=self.place.node,
                item=self.place.item,
                iteration=self.place.iteration,
                agent=agent,
                prompt=prompt,
                output=output,
                timeout_seconds=self.timeout_seconds,
            )
        )
        value = await self.wait(Wait(kind=WaitFor.TURN, key=key, until=until))
        answer = TurnAnswer.model_validate(value)
        if answer.error is not None:
            raise NodeFailure(answer.error)
        return answer.output

    async def abroad(self, agent: str, prompt: str, *, output: Any = None) -> Any:
        """Ask an agent that someone else runs.

        Raises:
            NodeFailure: the call's, ``PromptTooLarge`` or ``OutputInvalid``.
        """
        _check_prompt(prompt)
        given = await self.result(0, AgentRequest(name=agent, prompt=prompt, output=output))
        return given if output is None else parse_answer(given, output)


def _check_prompt(prompt: str) -> None:
    if len(prompt) > MAX_PROMPT:
        raise failure("PromptTooLarge", f"the prompt takes {len(prompt)} characters, at most {MAX_PROMPT} are sent")


def digest(request: Request) -> str:
    """Return the SHA-256 of a request as canonical JSON, in hexadecimal."""
    if isinstance(request, ToolRequest):
        plain = {"name": request.name, "arguments": request.arguments}
    else:
        plain = request.model_dump(mode="json", by_alias=True)
    return hashlib.sha256(_CANONICAL.encode(plain).encode()).hexdigest()
