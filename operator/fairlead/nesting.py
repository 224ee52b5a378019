"""JSON that others wrote may be nested without end; what is parsed, validated and written again has bounds."""

from __future__ import annotations

from typing import Any, Final

MAX_NESTING: Final = 100
"""Levels of lists and maps. Pydantic reads about 200 of JSON, and writes about 250."""


def is_too_deep(value: Any) -> bool:
    """Return whether JSON has more than `MAX_NESTING` levels of lists and maps."""
    level = [value]
    for _ in range(MAX_NESTING + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list, tuple))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list, tuple))
        ]
        if not level:
            return False
    return True
