"""``trace``: what a run did, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from fairlead.cli.options import Target, command, run_argument, target_options

if TYPE_CHECKING:
    from fairlead.cli.session import Session

_BAR: Final = 24
_NAME: Final = 48
_SHOWN: Final = 200
_NOT_DONE: Final = ("Skipped", "Cancelled")
_CONTENTS: Final = (
    ("in", ("fairlead.input", "gen_ai.system_instructions", "gen_ai.input.messages", "gen_ai.tool.call.arguments")),
    ("out", ("fairlead.output", "gen_ai.output.messages", "gen_ai.tool.call.result")),
)


@command(
    examples="""
    fairlead trace                             # of the latest run
    fairlead trace triage-x1 --contents        # with what went in and came out
    fairlead trace triage-x1 -o json | jq '.[] | select(.status == "error")'
    """
)
@run_argument(default="@latest")
@click.option("-o", "--output", "fmt", type=click.Choice(["tree", "json", "yaml"]), default="tree", show_default=True)
@click.option("--items", is_flag=True, help="Show every item of a forEach.")
@click.option("--contents", is_flag=True, help="Show the beginnings of inputs and outputs; all of them with -o json.")
@target_options(gateway=True)
def trace(target: Target, *, run: str, fmt: str, items: bool, contents: bool) -> int:
    """Show where a run's time and money went: every node and call, when it began, how long it took, what it cost."""
    from fairlead.cli import exits, printing
    from fairlead.cli.gateway import open_gateway
    from fairlead.cli.reading import find_record
    from fairlead.cli.session import run_session

    async def work(session: Session) -> int:
        async with open_gateway(session) as gateway:
            record = await find_record(session, gateway, run)
            spans = await gateway.trace(record["namespace"], record["uid"])
        if fmt == "tree":
            for text in trace_lines(spans, items=items, contents=contents):
                click.echo(text)
        else:
            printing.print_as(spans, fmt)
        return exits.OK

    return run_session(target, work)


def trace_lines(spans: Sequence[Mapping[str, Any]], *, items: bool, contents: bool = False) -> list[str]:
    """Return the spans as a tree with a bar for each; a forEach is one line unless *items* is set.

    What a scripted model answered is marked as scripted, on the line of a forEach for all of its items.
    """
    from fairlead.cli.printing import parse_time

    children: dict[str, list[Mapping[str, Any]]] = {}
    for span in sorted(spans, key=lambda span: str(span["startedAt"])):
        children.setdefault(span["parentId"], []).append(span)
    begins = [moment for span in spans if (moment := parse_time(span["startedAt"]))]
    ends = [moment for span in spans if (moment := parse_time(span["finishedAt"] or span["startedAt"]))]
    if not begins:
        return ["no spans yet"]
    start, whole = min(begins), max((max(ends) - min(begins)).total_seconds(), 1e-9)
    lines: list[str] = []

    def add(span: Mapping[str, Any], depth: int) -> None:
        below = children.get(span["spanId"], [])
        many = [child for child in below if child["kind"] == "item"]
        hidden = len(many) if many and not items else 0
        name = "  " * depth + span["name"] + (f" x{hidden}" if hidden else "")
        began = (parse_time(span["startedAt"]) or start) - start
        mark = "  scripted" if _is_scripted(span, many if hidden else (), children) else ""
        lines.append(_span_line(span, name, offset=began.total_seconds(), whole=whole) + mark)
        lines.extend(_content_lines(span, depth + 1) if contents else ())
        for child in below:
            if not (hidden and child["kind"] == "item"):
                add(child, depth + 1)

    known = {span["spanId"] for span in spans}
    for parent, group in children.items():
        if parent not in known:
            for root in group:
                add(root, 0)
    return lines


def _is_scripted(span: Mapping[str, Any], hidden: Sequence[Mapping[str, Any]], children: Mapping[str, Any]) -> bool:
    """Tell whether a scripted model answered the span's call, or one below the items that are not shown."""
    calls = [span, *(call for item in hidden for call in children.get(item["spanId"], ()))]
    return any((call.get("attributes") or {}).get("fairlead.scripted") for call in calls)


def _span_line(span: Mapping[str, Any], name: str, *, offset: float, whole: float) -> str:
    from fairlead.cli.printing import duration, seconds_between, shorten

    seconds = seconds_between(span["startedAt"], span["finishedAt"])
    first = min(int(offset / whole * _BAR), _BAR - 1)
    length = max(1, round((seconds if seconds is not None else whole - offset) / whole * _BAR))
    bar = (" " * first + "█" * length)[:_BAR]
    timing = duration(seconds) if seconds is not None else "…"
    head = f"{name if len(name) <= _NAME else shorten(name, _NAME):<{_NAME}}  {timing:>7}  {bar:<{_BAR}}"
    return "  ".join([head, *_remarks(span)]).rstrip()


def _remarks(span: Mapping[str, Any]) -> list[str]:
    """Return what there is to say of a span besides its time: tokens, tries, reuse, what went wrong."""
    from fairlead.cli.printing import duration, money

    known = span.get("attributes") or {}
    remarks: list[str] = []
    if known.get("fairlead.iteration", 1) > 1:
        remarks.append(f"round {known['fairlead.iteration']}")
    if "gen_ai.usage.input_tokens" in known:
        remarks.append(f"{known['gen_ai.usage.input_tokens']}+{known.get('gen_ai.usage.output_tokens', 0)} tokens")
    cost = known.get("fairlead.cost.usd")
    if cost is not None and (span["kind"] == "call" or cost != "0"):
        remarks.append(money(cost))
    waited = known.get("fairlead.queue_seconds") or 0
    if waited >= 1:
        remarks.append(f"waited {duration(waited)}")
    if known.get("fairlead.tries", 1) > 1:
        remarks.append(f"{known['fairlead.tries']} tries")
    if known.get("fairlead.reused"):
        remarks.append("cached" if known.get("fairlead.reason") == "Cached" else "reused")
    if known.get("fairlead.repeats"):
        remarks.append("sent again")
    if span["status"] == "error":
        remarks.append(str(known.get("error.type", "error")))
    elif (state := known.get("fairlead.state")) in _NOT_DONE:
        why = known.get("fairlead.reason") or known.get("error.type") or state
        remarks.append(state.lower() if why == state else f"{state.lower()} ({why})")
    return remarks


def _content_lines(span: Mapping[str, Any], depth: int) -> list[str]:
    from fairlead.cli.printing import shorten

    known = span.get("attributes") or {}
    found = [(way, str(known[name])) for way, names in _CONTENTS for name in names if known.get(name)]
    return [f"{'  ' * depth}{way:<3}  {shorten(text, _SHOWN)}" for way, text in found]
