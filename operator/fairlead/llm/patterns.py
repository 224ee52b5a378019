"""Regular expressions that somebody else wrote: they match within a bounded time or not at all."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Any, Final

import regex  # type: ignore[import-untyped]

from fairlead.errors import TerminalError

MAX_TEXT: Final = 100_000
"""Characters that are looked at."""
SECONDS: Final = 0.5
"""All patterns together may take this long."""
_SPECIAL: Final = frozenset("\\.^$*+?{}[]()|")
_WORDS: Final = re.compile(r"(?:\\.|[^\\.^$*+?{}\[\]()|])+", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\.", re.DOTALL)
_MAX_WORDS: Final = 200
"""Characters in a row. What is made of them for a search takes the cube of their number, whatever time it is given."""


def compile_pattern(text: str) -> Any:
    """Return a compiled expression.

    Raises:
        TerminalError: with reason ``InvalidPattern``.
    """
    if not _is_words(text) and any(len(_ESCAPED.sub("x", words)) > _MAX_WORDS for words in _WORDS.findall(text)):
        raise TerminalError(
            f"the regular expression {text[:100]!r} … has over {_MAX_WORDS} plain characters in a row: fewer will do",
            reason="InvalidPattern",
        )
    try:
        return regex.compile(text)
    except regex.error as error:
        raise TerminalError(
            f"the regular expression {text[:100]!r} is wrong: {error}", reason="InvalidPattern"
        ) from error


async def first_match(patterns: Sequence[Any | None], text: str) -> int | None:
    """Return the index of the first pattern that is found in *text* (None fits every text); the process goes on.

    Raises:
        TerminalError: with reason ``PatternTooSlow``: one of them took too long.
    """
    if all(pattern is None or _is_words(pattern.pattern) for pattern in patterns):
        return _first(patterns, text[:MAX_TEXT])  # found in no time, a thread costs more
    return await asyncio.to_thread(_first, patterns, text[:MAX_TEXT])


def _is_words(pattern: str) -> bool:
    """Whether an expression finds nothing but itself."""
    return _SPECIAL.isdisjoint(pattern)


def _first(patterns: Sequence[Any | None], text: str) -> int | None:
    deadline = time.monotonic() + SECONDS
    for index, pattern in enumerate(patterns):
        if pattern is None or (_is_words(pattern.pattern) and pattern.pattern in text):
            return index
        if _is_words(pattern.pattern):
            continue
        try:
            found = pattern.search(text, timeout=max(deadline - time.monotonic(), 0.001), concurrent=True)
        except TimeoutError:
            raise TerminalError(
                f"the regular expression {pattern.pattern[:100]!r} takes too long on this text: "
                "avoid repeats inside repeats such as (a+)+",
                reason="PatternTooSlow",
            ) from None
        if found is not None:
            return index
    return None
