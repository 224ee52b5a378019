"""The tokens of CEL: enough to find where an expression in text ends and which names it uses.

The CEL library compiles and evaluates, but shows no syntax tree. Does not belong here: anything that evaluates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*)
  | (?P<string>
        (?:[rR][bB]?|[bB][rR])(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*')
      | [bB]?(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    )
  | (?P<number>0[xX][0-9a-fA-F]+[uU]?|(?:\d+\.\d+|\.\d+|\d+)(?:[eE][+-]?\d+)?[uU]?)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<op>&&|\|\||[<>=!]=|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_CLOSING: Final = {")": "(", "]": "[", "}": "{"}
OPEN: Final = "{{"
CLOSE: Final = "}}"


@dataclass(frozen=True, slots=True)
class Token:
    """A part of an expression. *kind*: ``string``, ``number``, ``name`` or ``op``."""

    kind: str
    text: str
    start: int


def tokens(text: str, start: int = 0) -> Iterator[Token]:
    """Yield the tokens of *text* from *start* on, without spaces and comments."""
    for found in _TOKEN.finditer(text, start):
        kind = found.lastgroup or "op"
        if kind != "space":
            yield Token(kind, found.group(), found.start())


def closing_braces(text: str, start: int) -> int:
    """Return where the ``}}`` is that ends the expression that begins at *start*, or -1.

    Braces of maps and in strings do not count.
    """
    depth = 0
    for token in tokens(text, start):
        if token.kind != "op":
            continue
        if token.text == "}" and depth == 0:
            return token.start if text.startswith(CLOSE, token.start) else -1
        depth += (token.text in _CLOSING.values()) - (token.text in _CLOSING)
    return -1


def matching_brackets(parts: list[Token]) -> dict[int, int]:
    """Return, for the index of each opening bracket, the index of the one that closes it."""
    pairs: dict[int, int] = {}
    waiting: list[int] = []
    for position, token in enumerate(parts):
        if token.kind != "op":
            continue
        if token.text in _CLOSING.values():
            waiting.append(position)
        elif token.text in _CLOSING and waiting:
            pairs[waiting.pop()] = position
    return pairs
