"""Writes what was measured as a page of the reference."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path

from tests.bench.harness import ROUNDS, Arm, Figures, Outcome

PAGE = Path("docs/reference/benchmarks.md")
_HEAD = f"""\
# Benchmarks

Written by `make bench`; do not edit. What else was running on the machine is in every absolute figure below.

Machines differ and are busy, so read the **ratios**: in each of {ROUNDS} rounds every way is measured once, in an order
that turns around from round to round, and gives one ratio to the first way. Given are the median and, in brackets, the
quartiles. "CPU" is the processor time of all processes that take part, the measuring one included, per operation.

"""
_TITLE = "## "


def page(sections: Iterable[str]) -> str:
    """Return the whole page."""
    return _HEAD + "\n".join(sections)


def read_sections(text: str) -> dict[str, str]:
    """Return the sections of a page, by title."""
    found = (_TITLE + part for part in f"\n{text}".split(f"\n{_TITLE}")[1:])
    return {part.partition("\n")[0].removeprefix(_TITLE): part.rstrip("\n") + "\n" for part in found}


def section(title: str, text: str, measured: Sequence[Outcome | Figures], *, day: date) -> str:
    """Return a section of the page: its title, what stands under it, and what was measured, ending now."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    when = f"Measured on {day}: {machine}, load average {os.getloadavg()[1]:.1f} at the end."
    return "\n".join([f"{_TITLE}{title}\n\n{text} {when}\n", *_tables(measured)])


def _tables(measured: Sequence[Outcome | Figures]) -> Iterator[str]:
    yield from _figures([each for each in measured if isinstance(each, Figures)])
    outcomes = [each for each in measured if isinstance(each, Outcome)]
    latencies = any(outcome.latencies.get(arm.name) for outcome in outcomes for arm in outcome.comparison.arms)
    yield "| operation | way | CPU ms | CPU ratio | per second | time ratio |" + (
        " p50 ms | p99 ms |" if latencies else ""
    )
    yield "|---|---|---|---|---|---|" + ("---|---|" if latencies else "")
    for outcome in outcomes:
        for arm in outcome.comparison.arms:
            yield _row(outcome, arm, latencies=latencies)
    yield ""


def _figures(figures: Sequence[Figures]) -> Iterator[str]:
    if not figures:
        return
    yield "| what | way | measured | ratio |"
    yield "|---|---|---|---|"
    for each in figures:
        first = next(iter(each.values))
        for way, value in each.values.items():
            ratio = "1" if way == first else f"**{value / each.values[first]:.2f}**"
            yield f"| {each.title} | {way} | {value:.1f} {each.unit} | {ratio} |"
    yield ""


def _row(outcome: Outcome, arm: Arm, *, latencies: bool) -> str:
    cells = [
        outcome.comparison.title,
        arm.name,
        f"{outcome.median(arm, 'cpu_ms'):.2f}",
        _ratio(outcome, arm, what="cpu_ms"),
        f"{1000 / outcome.median(arm, 'wall_ms'):,.4g}",
        _ratio(outcome, arm, what="wall_ms"),
    ]
    if latencies:
        known = bool(outcome.latencies.get(arm.name))
        cells += [f"{outcome.quantile(arm, percent):.1f}" if known else "" for percent in (50, 99)]
    return f"| {' | '.join(cells)} |"


def _ratio(outcome: Outcome, arm: Arm, *, what: str) -> str:
    if arm is outcome.comparison.arms[0]:
        return "1"
    middle, low, high = outcome.ratio(arm, what)
    return f"**{middle:.2f}** ({low:.2f} to {high:.2f})"
