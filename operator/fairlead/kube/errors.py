"""Turns what the server or the network answers into Fairlead's errors, once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson

from fairlead.errors import Conflict, FairleadError, Refused, Unavailable

HTTP_OK_LIMIT: Final = 300
HTTP_NOT_FOUND: Final = 404
HTTP_CONFLICT: Final = 409
HTTP_GONE: Final = 410
HTTP_INVALID: Final = 422
HTTP_TOO_MANY: Final = 429
HTTP_SERVER_ERROR: Final = 500
_MAX_RETRY_AFTER: Final = 60.0


class Expired(Conflict):
    """The server no longer knows this resource version: list again."""

    reason = "Expired"


def parse_status(body: bytes) -> tuple[str, str]:
    """Return reason and message of a ``Status`` object, or what can be said of another body."""
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", body[:500].decode(errors="replace").strip()
    if not isinstance(status, dict):
        return "", str(status)[:500]
    return str(status.get("reason") or ""), str(status.get("message") or "")


def to_error(status: int, headers: Mapping[str, str], body: bytes, *, what: str) -> FairleadError:
    """Return the error that an answer means. *what* says what was tried, as in ``create Pod default/a``."""
    reason, message = parse_status(body)
    text = f"{what}: {message or f'HTTP {status}'}"
    if status == HTTP_CONFLICT:
        return Conflict(text, reason=reason or None)
    if status == HTTP_INVALID and _is_another(body):
        return Conflict(text)
    if status == HTTP_GONE:
        return Expired(text)
    if status == HTTP_TOO_MANY or status >= HTTP_SERVER_ERROR:
        return Unavailable(text, retry_after=_retry_after(headers))
    return Refused(text, reason=reason or None)


def _is_another(body: bytes) -> bool:
    """Return whether a patch named the uid of an object whose name another one has by now."""
    try:
        causes = orjson.loads(body)["details"]["causes"]
        return any(cause["field"] == "metadata.uid" for cause in causes)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return False


def _retry_after(headers: Mapping[str, str]) -> float:
    try:
        return min(max(float(headers.get("Retry-After", "")), 0.1), _MAX_RETRY_AFTER)
    except ValueError:
        return 5.0
