"""``profile``: what a run, or a workflow's runs, spent their time on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from fairlead.cli.options import Target, command, target_options

if TYPE_CHECKING:
    from fairlead.cli.session import Session

_BAR: Final = 30
_STEPS: Final = 40
_BLINK: Final = 0.001
"""Seconds; less is not worth a word."""
_WORDS: Final = {
    "model": "models",
    "tool": "tools",
    "people": "waiting for people",
    "time": "waiting for a time",
    "queue": "waiting for a pod",
    "overhead": "Fairlead itself",
}


@command(
    examples="""
    fairlead profile                           # the latest run
    fairlead profile triage-x1                 # a run
    fairlead profile triage --since 7d         # a workflow over its runs
    """
)
@click.argument("name", default="@latest")
@click.option("--since", default="", metavar="7d", help="Of a workflow: only runs of this time: 30m, 12h, 7d, 4w.")
@click.option("-o", "--output", "fmt", type=click.Choice(["text", "json", "yaml"]), default="text", show_default=True)
@target_options(gateway=True)
def profile(target: Target, *, name: str, since: str, fmt: str) -> int:
    """Show what time was spent on: the critical path of a run, or a workflow over many runs.

    The critical path is what the run had to wait for, from its start to its end: only what is on it makes a run faster.
    NAME: a run or @latest, or a workflow.
    """
    from fairlead.cli.costing import since_seconds
    from fairlead.cli.session import run_session

    seconds = since_seconds(since)
    return run_session(target, lambda session: _profile(session, name, seconds=seconds, fmt=fmt))


async def _profile(session: Session, name: str, *, seconds: int | None, fmt: str) -> int:
    from fairlead.cli import exits, printing
    from fairlead.cli.costing import run_named, since_moment
    from fairlead.cli.gateway import open_gateway

    async with open_gateway(session) as gateway:
        record = await run_named(session, gateway, name)
        if record is not None:
            shown = await gateway.profile(record["namespace"], record["uid"])
        else:
            since = since_moment(session, seconds)
            shown = await gateway.workflow_profile(session.namespace, name, since=since)
            if not shown["runs"]:
                raise exits.NotFound(f'there is no run and no finished run of a workflow "{name}" in this namespace')
    if fmt != "text":
        printing.print_as(shown, fmt)
        return exits.OK
    for text in run_lines(shown) if record is not None else workflow_lines(shown):
        click.echo(text)
    return exits.OK


def run_lines(shown: Mapping[str, Any]) -> Iterator[str]:
    """Yield a run's profile as text."""
    from fairlead.cli.printing import duration, money

    yield f"{shown['run']}: {duration(shown['seconds'])}, {shown['state']}"
    yield ""
    yield from _share_lines({kind: part["share"] for kind, part in shown["shares"].items()}, shown["seconds"])
    yield ""
    yield "critical path"
    yield from _path_lines(shown["criticalPath"])
    rows = [
        [
            one["node"],
            str(one["executions"]),
            duration(one["seconds"]),
            duration(one["onPathSeconds"]) if one["onPathSeconds"] else "-",
            str(one["tries"]),
            str(one["calls"]),
            f"{one['tokens']:,}",
            "reused" if one["reused"] else money(one["cost"]),
        ]
        for one in sorted(shown["nodes"], key=lambda one: -float(one["onPathSeconds"]))
    ]
    yield ""
    yield from _table(rows, ["NODE", "RAN", "TIME", "WAITED FOR", "TRIES", "CALLS", "TOKENS", "COST"])
    if shown["slowestNode"]:
        yield ""
        yield f"the run waited longest for {shown['slowestNode']}"


@dataclass(slots=True)
class _Step:
    """Neighbours on a critical path that are of one node."""

    node: str
    iteration: int
    items: set[str]
    spent: dict[str, float]

    @property
    def seconds(self) -> float:
        return sum(self.spent.values())

    def text(self) -> str:
        from fairlead.cli.printing import duration

        name = f"{self.node} #{self.iteration}" if self.iteration > 1 else self.node
        name += f"[{next(iter(self.items))}]" if len(self.items) == 1 else ""
        name += f" ({len(self.items)} items one after the other)" if len(self.items) > 1 else ""
        parts = [part for part in sorted(self.spent.items(), key=lambda part: -part[1]) if part[1] >= _BLINK]
        words = ", ".join(f"{_WORDS[kind]} {duration(seconds)}" for kind, seconds in parts)
        return f"  {duration(self.seconds):>7}  {name or '(between nodes)'}: {words}"


def _path_lines(path: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the steps of a critical path; the shortest ones together."""
    from fairlead.cli.printing import duration

    steps = _steps(path)
    least = max(_BLINK, sum(step.seconds for step in steps) / 1000)
    shown = [step for step in steps if step.seconds >= least][:_STEPS]
    for step in shown:
        yield step.text()
    rest = len(steps) - len(shown)
    if rest:
        left = sum(step.seconds for step in steps) - sum(step.seconds for step in shown)
        yield f"  {duration(left):>7}  in {rest} more steps; all of them with -o json"


def _steps(path: Sequence[Mapping[str, Any]]) -> list[_Step]:
    from fairlead.core.profile import definition_path

    steps: list[_Step] = []
    for one in path:
        node, iteration = definition_path(one["node"]), one["iteration"]
        last = steps[-1] if steps else None
        if last is None or (last.node, last.iteration) != (node, iteration):
            last = _Step(node, iteration, set(), {})
            steps.append(last)
        last.items |= {one["item"]} if one["item"] else set()
        last.spent[one["spent"]] = last.spent.get(one["spent"], 0.0) + one["seconds"]
    return steps


def workflow_lines(shown: Mapping[str, Any]) -> Iterator[str]:
    """Yield a workflow's profile as text."""
    from fairlead.cli.printing import duration, money

    spread = shown["seconds"]
    yield f"{shown['workflow']}: {shown['runs']} runs, p50 {duration(spread['p50'])}, p95 {duration(spread['p95'])}"
    failed = ", ".join(f"{count} {reason}" for reason, count in sorted(shown["failures"].items()))
    yield f"failed: {failed or 'none'}"
    yield f"cost of a run: p50 {money(shown['cost']['p50'])}, p95 {money(shown['cost']['p95'])}"
    yield ""
    yield from _share_lines(shown["shares"], None)
    rows = [
        [
            one["node"],
            str(one["runs"]),
            duration(one["seconds"]["p50"]),
            duration(one["seconds"]["p95"]),
            f"{one['share']:.0%}",
            str(one["failures"] or "-"),
            f"{one['tokens']['p50']:,.0f}",
            money(one["cost"]["p50"]),
            money(one["cost"]["p95"]),
        ]
        for one in sorted(shown["nodes"], key=lambda one: -float(one["share"]))
    ]
    yield ""
    yield from _table(rows, ["NODE", "RUNS", "P50", "P95", "SHARE", "FAILED", "TOKENS", "COST P50", "COST P95"])
    if shown["slowestNode"]:
        yield ""
        yield f"runs wait longest for {shown['slowestNode']}"


def _share_lines(shares: Mapping[str, float], seconds: float | None) -> Iterator[str]:
    from fairlead.cli.printing import duration

    for kind, word in _WORDS.items():
        share = shares.get(kind, 0.0)
        if share:
            timing = "" if seconds is None else f"{duration(share * seconds):>8}"
            yield f"  {word:<20}{timing}  {share:>4.0%}  {'█' * max(1, round(share * _BAR))}"


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> Iterator[str]:
    lines = [headers, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    for line in lines:
        yield "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
