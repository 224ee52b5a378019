"""What LiteLLM's exceptions mean."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any, Final

import orjson

from fairlead.errors import FairleadError, RetryableError, TerminalError
from fairlead.llm.base import to_model_error
from fairlead.redaction import REDACTED, redact

_BY_NAME: Final[Mapping[str, tuple[type[FairleadError], str]]] = {
    "APIConnectionError": (RetryableError, "ModelUnavailable"),
    "APITimeoutError": (RetryableError, "Timeout"),
    "ContentPolicyViolationError": (TerminalError, "ModelRefused"),
    "ContextWindowExceededError": (TerminalError, "ContextTooLong"),
    "Timeout": (RetryableError, "Timeout"),
    "UnsupportedParamsError": (TerminalError, "InvalidParameters"),
}
_MAX_MESSAGE: Final = 1000
_MAX_RETRY_AFTER: Final = 86_400.0


def to_error(error: Exception, *, secret: str) -> FairleadError:
    """Return our error for whatever LiteLLM raised, without *secret* in it."""
    own = _own_error(error)
    if own is not None:
        told = copy(own)
        told.args = (_safe(str(own), secret),)  # a provider may have said it in the middle of its answer
        return told
    name = type(error).__name__
    message = str(getattr(error, "message", "") or error).removeprefix(f"litellm.{name}: ")
    text = _safe(_readable(message), secret)
    known = _BY_NAME.get(name)
    if known is not None:
        kind, reason = known
        return kind(text, reason=reason)
    status = getattr(error, "status_code", None)
    if not isinstance(status, int):
        return TerminalError(f"{name}: {text}", reason="ModelFailed")
    return to_model_error(status, text, retry_after=_retry_after(error))


def _safe(text: str, secret: str) -> str:
    said = text.replace(secret, REDACTED) if secret else text
    return redact(said[: 4 * _MAX_MESSAGE])[:_MAX_MESSAGE]


def _readable(message: str) -> str:
    """Return what a provider says, out of the JSON it says it in."""
    start, end = message.find("{"), message.rfind("}")
    try:
        said = orjson.loads(message[start : end + 1])["error"]["message"] if 0 <= start < end else None
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return message
    return f"{message[:start].removesuffix(' - ')}: {said}" if isinstance(said, str) else message


def _own_error(error: BaseException | None) -> FairleadError | None:
    """LiteLLM wraps whatever it meets, the refusal of an address included."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, FairleadError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def _retry_after(error: Any) -> float | None:
    response = getattr(error, "response", None)
    for headers in (getattr(error, "litellm_response_headers", None), getattr(response, "headers", None)):
        try:
            return min(max(float((headers or {}).get("retry-after", "")), 0.0), _MAX_RETRY_AFTER)
        except ValueError:
            continue
    return None
