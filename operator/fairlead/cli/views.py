"""Two ways to show how a run is getting on: as a tree in place on a terminal, as lines anywhere else."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import click

from fairlead.cli.printing import styled
from fairlead.cli.progress import NodeLine
from fairlead.clock import Clock

_BUSY: Final = ("Running", "Waiting", "Retrying", "Failed")
_ALIVE_SECONDS: Final = 4.0
"""After so long without a change a line says what is going on, while something runs."""
_WAITING_SECONDS: Final = 60.0
"""The same, while everything waits, and before a line is said again."""
_NAMED: Final = 3
DUMB: Final = "fairlead.cli.dumb"
"""Set in click's context of a terminal that cannot do more than print."""


class View(Protocol):
    """Shows how a run is getting on."""

    def show(self, title: str, lines: Sequence[NodeLine]) -> None:
        """Show the nodes as they are now."""

    def close(self) -> None:
        """Show no more."""


@dataclass(slots=True)
class Lines:
    """One line for each change, for logs and pipes; and a sign of life when nothing changes for seconds."""

    clock: Clock
    _seen: dict[str, tuple[str, str]] = field(default_factory=dict)
    _title: str = ""
    _last: float | None = None
    _said: str = ""

    def show(self, title: str, lines: Sequence[NodeLine]) -> None:
        """Print what has changed."""
        if not lines and title != self._title:
            self._say(title)
        self._title = title
        for line in lines:
            told = (line.state, line.detail if line.state == "Waiting" else "")
            if line.state != "Pending" and self._seen.get(line.key) != told:
                self._seen[line.key] = told
                self._say(f"{line.state:<9}  {line.text(line.key)}")
        self._stay_alive(title, lines)

    def close(self) -> None:
        """Show no more."""

    def _stay_alive(self, title: str, lines: Sequence[NodeLine]) -> None:
        if self._last is None:
            self._last = self.clock.monotonic()
        busy = [line for line in lines if line.state in ("Running", "Waiting")]
        runs = not lines or any(line.state == "Running" for line in busy)
        # A node that runs others says less than they do: it is not named while one of them is at work.
        inner = [one for one in busy if not any(other.key.startswith(f"{one.key}/") for other in busy)]
        named = ", ".join(line.text(line.key) for line in inner[:_NAMED])
        more = f" and {len(inner) - _NAMED} more" if len(inner) > _NAMED else ""
        text = f"…          {named}{more}    {title}" if named else title
        patience = _ALIVE_SECONDS if runs and text != self._said else _WAITING_SECONDS
        if self.clock.monotonic() - self._last >= patience:
            self._say(text)

    def _say(self, text: str) -> None:
        click.echo(f"{self.clock.now():%H:%M:%SZ}  {text}", err=True)
        self._last, self._said = self.clock.monotonic(), text


@dataclass(slots=True)
class Tree:
    """The whole plan in place, never higher than the terminal."""

    _height: int = 0

    def show(self, title: str, lines: Sequence[NodeLine]) -> None:
        """Draw the plan over what was drawn before."""
        columns, rows = shutil.get_terminal_size()
        drawn = [title, *(self._line(line) for line in fitted(lines, rows - 3))]
        drawn += [""] * (self._height - len(drawn))
        back = f"\x1b[{self._height}A" if self._height else ""
        click.echo(back + "".join(f"\x1b[2K{cut(text, columns)}\n" for text in drawn), nl=False, err=True)
        self._height = len(drawn)

    def close(self) -> None:
        """Leave the last picture where it is."""
        self._height = 0

    @staticmethod
    def _line(line: NodeLine) -> str:
        return "  " * (line.depth + 1) + styled(line.state, line.text())


def fitted(lines: Sequence[NodeLine], rows: int) -> list[NodeLine]:
    """Return as many lines as there is room for: what is going on first, the rest in one line at the end."""
    if len(lines) <= rows or rows < 1:
        return list(lines)
    busy = [line for line in lines if line.state in _BUSY]
    kept = (busy + [line for line in lines if line not in busy])[: rows - 1]
    rest = len(lines) - len(kept)
    return [*[line for line in lines if line in kept], NodeLine(f"… and {rest} more nodes", 0, "")]


def cut(text: str, columns: int) -> str:
    """Return as much of a line as fits, without cutting into what colours it."""
    plain = click.unstyle(text)
    return text if len(plain) < columns else plain[: columns - 1]


def choose_view(clock: Clock) -> View:
    """Return a tree on a terminal that can move its cursor, lines elsewhere."""
    context = click.get_current_context(silent=True)
    dumb = context is not None and context.meta.get(DUMB)
    return Tree() if sys.stderr.isatty() and not dumb else Lines(clock)
