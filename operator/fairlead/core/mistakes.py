"""One mistake in an object, with where it is and how to mend it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from fairlead.api.conditions import Reason

Path = tuple[str | int, ...]

_STEP: Final = re.compile(r"\[(\d+)\]|\[([^\]]*)\]|([^.\[\]]+)")
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][-A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake.

    *path* is where in the object (``spec.nodes[2].when``), *subject* whose it is in words (``workflow "triage"``).
    *line* and *column* count from 1; 0 is unknown.
    """

    path: str
    message: str
    fix: str = ""
    reason: str = Reason.INVALID_SPEC
    severity: Literal["error", "warning"] = "error"
    subject: str = ""
    file: str = ""
    line: int = 0
    column: int = 0

    def text(self) -> str:
        """Return it as a person reads it: what, where, and how to mend it, a line each."""
        start = f"{self.severity}: {self.subject}" if self.subject else self.severity
        lines = [f"{start}: {self.message}"]
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        where = "  ".join(part for part in (place, self.path) if part)
        lines += [f"  {where}"] if where else []
        lines += [f"  fix: {self.fix}"] if self.fix else []
        return "\n".join(lines)

    def sentence(self) -> str:
        """Return it in one line, for a condition's message."""
        start = f"{self.path}: {self.message}" if self.path else self.message
        return f"{start}: {self.fix}" if self.fix else start


def to_text(path: Iterable[str | int]) -> str:
    """Return a path as Kubernetes writes it."""
    text = ""
    for step in path:
        if isinstance(step, int) or not _PLAIN_KEY.fullmatch(step):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


def to_path(text: str) -> Path:
    """Return the steps of a path that is written as Kubernetes writes it."""
    return tuple(int(index) if index else key or name for index, key, name in _STEP.findall(text))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean "x"?`` when something known is close, or an empty text."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f'did you mean "{by_lower[close[0]]}"?' if close else ""
