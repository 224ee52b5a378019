"""What every model can do, and how it fails."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from fairlead.errors import FairleadError, RetryableError, TerminalError


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model asks for a tool."""

    id: str
    name: str
    arguments: Mapping[str, Any] | None = None
    """None: what the model wrote is no JSON object; it is in `raw` then."""
    raw: str = ""

    @property
    def text(self) -> str:
        """The arguments as the model wrote them, or as JSON."""
        return self.raw if self.arguments is None else to_json(self.arguments)


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool as a model is told of it."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """A JSON Schema of the arguments."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a conversation."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    """Of an assistant: what it asked for."""
    tool_call_id: str = ""
    """Of a tool's answer: which call it answers."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a model is asked."""

    messages: tuple[ChatMessage, ...]
    output: Mapping[str, Any] | None = None
    """A JSON Schema that the answer shall follow."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[ToolDefinition, ...] = ()
    granted_input_tokens: int = 0
    """What the input can be at most; told where a budget counts."""
    granted_output_tokens: int | None = None
    """What budgets leave for the answer; None: no budget counts, and nothing is said unless `parameters` say it."""
    timeout_seconds: float = 120
    """For one try."""

    @property
    def last_text(self) -> str:
        """The last thing that was said to the model, by its user or by a tool."""
        return next((m.content for m in reversed(self.messages) if m.role in {"user", "tool"}), "")


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens, as the provider counted them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Of the input, those that the provider had kept from earlier."""
    estimated: bool = False
    """Computed from the lengths of the texts, since nobody counted."""

    def __add__(self, other: TokenUsage) -> TokenUsage:
        """Return the sum."""
        return TokenUsage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            estimated=self.estimated or other.estimated,
        )


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered."""

    text: str
    usage: TokenUsage
    model: str
    """The model's name as the provider gives it."""
    tool_calls: tuple[ToolCall, ...] = ()
    scripted: bool = False
    finish_reason: str = "stop"
    tries: int = 1
    lost: tuple[TokenUsage, ...] = ()
    """What earlier tries used whose answers came to nothing."""


class AnswerLost(Exception):
    """An answer that had begun, or of which nobody knows, came to nothing: it has used tokens all the same.

    Attributes:
        error: why.
        lost: what each such try used.
    """

    def __init__(self, error: FairleadError, *lost: TokenUsage) -> None:
        super().__init__(str(error))
        self.error = error
        self.lost = lost


class ChatModel(Protocol):
    """Answers."""

    async def complete(self, request: ChatRequest) -> Completion:
        """Return the answer.

        Raises:
            RetryableError: asking again may help (``RateLimited``, ``ModelUnavailable``, ``Timeout``).
            TerminalError: it cannot (``AuthenticationFailed``, ``ModelRefused``, ``ContextTooLong`` …).
            AnswerLost: either of them, and tokens were used.
        """


_BY_STATUS: Final = {401: "AuthenticationFailed", 403: "AuthenticationFailed", 404: "ModelNotFound"}
_TIMEOUTS: Final = frozenset({408, 504})
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500
_CHARACTERS_PER_TOKEN: Final = 4


def to_model_error(status: int, message: str, *, retry_after: float | None = None) -> FairleadError:
    """Return the error that a provider's refusal means."""
    text = message or f"the provider answered HTTP {status}"
    after = retry_after or 0.0
    if status == _TOO_MANY:
        return RetryableError(text, reason="RateLimited", retry_after=after)
    if status in _TIMEOUTS:
        return RetryableError(text, reason="Timeout", retry_after=after)
    if status >= _SERVER_ERROR:
        return RetryableError(text, reason="ModelUnavailable", retry_after=after)
    if "context" in message.lower() and ("length" in message.lower() or "window" in message.lower()):
        return TerminalError(text, reason="ContextTooLong")
    return TerminalError(text, reason=_BY_STATUS.get(status, "ModelRefused"))


def to_json(value: Any) -> str:
    """Return JSON; a model may write numbers of any length, which the quick library refuses."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def estimate_tokens(*texts: str) -> int:
    """Return about how many tokens texts have, where nobody counts them."""
    return -(-sum(len(text) for text in texts) // _CHARACTERS_PER_TOKEN)
