"""Prints objects, tables, money and times. Data goes to standard output, everything else to standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import click

from fairlead.redaction import visible

_SPACES: Final = "   "
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
MARKS: Final = {
    "Succeeded": ("✓", "green"),
    "Failed": ("✗", "red"),
    "Running": ("●", "cyan"),
    "Waiting": ("?", "yellow"),
    "Skipped": ("-", "bright_black"),
    "Cancelled": ("■", "yellow"),
    "Pending": ("○", "bright_black"),
}

SCRIPTED: Final = "scripted answers: they are written in the Model, no model was asked"


def hint(text: str, *, state: str = "") -> None:
    """Print what is no data, in the colour of *state*; what others wrote must not steer the terminal."""
    shown = visible(text)
    click.echo(styled(state, shown) if state else shown, err=True)


def say(text: str) -> None:
    """Print a line of data."""
    click.echo(for_screen(text))


def for_screen(value: Any, *, terminal: bool | None = None) -> Any:
    """Return data as they may be printed: what models, tools and other people wrote must not steer a terminal.

    Into files and pipes everything goes as it is. *terminal* says whether somebody looks; None: find out.
    """
    if terminal is None:
        terminal = sys.stdout.isatty()
    if not terminal:
        return value
    match value:
        case str():
            return visible(value)
        case list():
            return [for_screen(item, terminal=True) for item in value]
        case dict():
            return {visible(key): for_screen(item, terminal=True) for key, item in value.items()}
        case _:
            return value


def print_json(value: Any) -> None:
    """Print JSON, indented."""
    import orjson

    click.echo(orjson.dumps(for_screen(value), option=orjson.OPT_INDENT_2).decode())


def print_as(value: Any, fmt: str) -> None:
    """Print *value* as ``json`` or ``yaml``."""
    (print_json if fmt == "json" else print_yaml)(value)


def print_yaml(value: Any) -> None:
    """Print YAML, as kubectl does: keys sorted, long texts in blocks."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
        style = "|" if "\n" in data else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Dumper.add_representer(str, text)
    click.echo(yaml.dump(for_screen(value), Dumper=Dumper, allow_unicode=True, width=100), nl=False)


def print_value(value: Any) -> None:
    """Print a run's output: text as it is, anything else as JSON."""
    if isinstance(value, str):
        click.echo(for_screen(value), nl=not value.endswith("\n"), color=True)  # as it is, escapes and all
    else:
        print_json(value)


def print_rows(rows: Iterable[Sequence[str]], *, headers: Sequence[str] = ()) -> None:
    """Print columns, aligned as kubectl aligns them."""
    lines = [for_screen(list(row)) for row in ([headers, *rows] if headers else rows)]
    if not lines:
        return
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        click.echo(_SPACES.join(padded).rstrip())


def styled(state: str, text: str) -> str:
    """Return *text* with a state's mark and colour; `click.echo` takes the colour out where it is not wanted."""
    mark, colour = MARKS.get(state, ("·", None))
    return click.style(f"{mark} {text}", fg=colour)


def money(total: Any, currency: str = "USD") -> str:
    """Return an amount; what is not known is n/a and never 0."""
    if total is None or total == "n/a":
        return "n/a"
    return f"${total}" if currency == "USD" else f"{total} {currency}"


def counted(number: int, what: str) -> str:
    """Return how many there are of a thing whose plural ends with an s."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def duration(seconds: float | None) -> str:
    """Return a span of time as people write it: its two largest units."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for size, unit, below, smaller in ((_DAY, "d", _HOUR, "h"), (_HOUR, "h", _MINUTE, "m")):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // below}{smaller}"
    return f"{whole // _MINUTE}m{whole % _MINUTE}s"


def age(span: timedelta) -> str:
    """Return a span of time that is not below nothing."""
    return duration(max(span.total_seconds(), 0.0))


def parse_time(text: Any) -> datetime | None:
    """Parse a time of the wire; None for none."""
    return datetime.fromisoformat(text) if text else None


def seconds_between(start: Any, end: Any) -> float | None:
    """Return the seconds between two times of the wire, or None."""
    first, last = parse_time(start), parse_time(end)
    return None if first is None or last is None else (last - first).total_seconds()


def shorten(text: str, limit: int) -> str:
    """Return the beginning of *text* in one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def tokens(usage: Mapping[str, Any] | None) -> str:
    """Return how many tokens went in and out."""
    usage = usage or {}
    return f"{usage.get('inputTokens') or 0:,} in, {usage.get('outputTokens') or 0:,} out"
