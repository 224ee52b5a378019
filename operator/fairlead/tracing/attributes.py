"""Attributes of spans, under OpenTelemetry's names where it has one; bounded and redacted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fairlead.logs import redact

MAX_TEXT: Final = 1024


def bounded(text: str, limit: int = MAX_TEXT) -> str:
    """Return *text*, redacted, and cut where it is over *limit* characters."""
    safe = redact(text[: 4 * limit])
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def attributes(**values: Any) -> dict[str, Any]:
    """Return what is known: nothing that is None or empty, texts bounded, ``__`` in a name for a dot."""
    return {
        name.replace("__", "."): bounded(value) if isinstance(value, str) else value
        for name, value in values.items()
        if value is not None and value != ""
    }


def failure(reason: str, message: str) -> Mapping[str, Any]:
    """Return the attributes that say what went wrong."""
    return attributes(error__type=reason, error__message=message)
