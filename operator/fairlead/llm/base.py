"""What every model can do, and how it fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from fairlead.errors import FairleadError, RetryableError, TerminalError


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a model is asked."""

    messages: tuple[ChatMessage, ...]
    output: Mapping[str, Any] | None = None
    """A JSON Schema that the answer shall follow."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    timeout_seconds: float = 120

    @property
    def last_user_text(self) -> str:
        """The last thing that was said to the model."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens, as the provider counted them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Of the input, those that the provider had kept from earlier."""
    estimated: bool = False
    """Computed from the lengths of the texts, since nobody counted."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered."""

    text: str
    usage: TokenUsage
    model: str
    """The model's name as the provider gives it."""
    scripted: bool = False
    finish_reason: str = "stop"


class ChatModel(Protocol):
    """Answers."""

    async def complete(self, request: ChatRequest) -> Completion:
        """Return the answer.

        Raises:
            RetryableError: asking again may help (``RateLimited``, ``ModelUnavailable``, ``Timeout``).
            TerminalError: it cannot (``AuthenticationFailed``, ``ModelRefused``, ``ContextTooLong`` …).
        """


_BY_STATUS: Final = {401: "AuthenticationFailed", 403: "AuthenticationFailed", 404: "ModelNotFound"}
_TIMEOUTS: Final = frozenset({408, 504})
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500


def to_model_error(status: int, message: str, *, retry_after: float | None = None) -> FairleadError:
    """Return the error that a provider's refusal means."""
    text = message or f"the provider answered HTTP {status}"
    if status == _TOO_MANY:
        return RetryableError(text, reason="RateLimited", retry_after=5.0 if retry_after is None else retry_after)
    if status in _TIMEOUTS:
        return RetryableError(text, reason="Timeout", retry_after=1.0)
    if status >= _SERVER_ERROR:
        return RetryableError(text, reason="ModelUnavailable", retry_after=1.0 if retry_after is None else retry_after)
    if "context" in message.lower() and ("length" in message.lower() or "window" in message.lower()):
        return TerminalError(text, reason="ContextTooLong")
    return TerminalError(text, reason=_BY_STATUS.get(status, "ModelRefused"))
