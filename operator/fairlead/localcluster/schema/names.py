"""How property names are written in CEL."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

RESERVED: Final = frozenset(
    {
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if",
        "import", "let", "loop", "package", "namespace", "return", "var", "void", "while",
    }
)  # fmt: skip
_ESCAPES: Final = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_SPECIAL = re.compile(r"__|[.\-/]")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./\-]*")


@lru_cache(maxsize=4096)
def escaped(name: str) -> str:
    """Return *name* as a CEL identifier, or an empty string when no identifier can stand for it."""
    if name in RESERVED:
        return f"__{name}__"
    if not _PLAIN.fullmatch(name):
        return ""
    return _SPECIAL.sub(lambda hit: _ESCAPES[hit[0]], name)
