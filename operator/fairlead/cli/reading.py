"""``output``, ``logs``, ``trace``, ``cost``: what storage knows of runs, read through the gateway."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from fairlead.cli.options import Target, command, program, run_argument, target_options

if TYPE_CHECKING:
    from fairlead.cli.gateway import GatewayReader
    from fairlead.cli.session import Session

_PAUSE: Final = 0.5
_BAR: Final = 24
_NAME: Final = 48
_UNITS: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@command(
    examples="""
    fairlead output                            # of the latest run
    fairlead output triage-x1 -o json | jq .category
    """
)
@run_argument(default="@latest")
@click.option("-o", "--output", "fmt", type=click.Choice(["text", "json", "yaml"]), default="text", show_default=True)
@target_options(gateway=True)
def output(target: Target, *, run: str, fmt: str) -> int:
    """Print what a run put out: text as it is, anything else as JSON. Without RUN, the latest one's."""
    from fairlead.cli.session import run_session

    return run_session(target, lambda session: _output(session, run, fmt))


async def _output(session: Session, text: str, fmt: str) -> int:
    from fairlead.cli import exits, printing
    from fairlead.cli.gateway import open_gateway

    async with open_gateway(session) as gateway:
        record = await find_record(session, gateway, text)
        shown = await gateway.output(record["namespace"], record["uid"])
    if shown["state"] not in ("Succeeded", "Failed", "Cancelled"):
        printing.hint(
            f"{record['name']} is not finished ({shown['state']}); wait for it: {program()} logs -f {record['name']}"
        )
        return exits.FAILED
    if shown["state"] != "Succeeded":
        printing.hint(f"{record['name']}: {shown['reason']}: {shown['message']}")
        return exits.run_exit_code(shown["reason"], succeeded=False)
    if shown.get("scriptedCalls"):
        printing.hint(printing.SCRIPTED)
    if fmt == "text":
        printing.print_value(shown["output"])
    else:
        printing.print_as(shown["output"], fmt)
    return exits.OK


@command(
    examples="""
    fairlead logs -f                           # the latest run, until it has ended
    fairlead logs triage-x1 classify           # of one node
    fairlead logs triage-x1 --timestamps
    """
)
@run_argument(default="@latest")
@click.argument("node", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended; waits for one that has not started.")
@click.option("--timestamps", is_flag=True, help="Put the time before each line.")
@target_options(gateway=True)
def logs(target: Target, *, run: str, node: str | None, follow: bool, timestamps: bool) -> int:
    """Print a run's log, of all its pods and attempts; it is there when the pods are gone. NODE: only that node's."""
    from fairlead.cli import exits
    from fairlead.cli.gateway import open_gateway
    from fairlead.cli.session import run_session

    async def work(session: Session) -> int:
        async with open_gateway(session) as gateway:
            uid = (
                await _find_uid(session, gateway, run) if follow else (await find_record(session, gateway, run))["uid"]
            )
            await print_logs(session, gateway, uid, follow=follow, node=node or "", timestamps=timestamps)
        return exits.OK

    return run_session(target, work)


async def print_logs(
    session: Session, gateway: GatewayReader, uid: str, *, follow: bool, node: str = "", timestamps: bool = False
) -> None:
    """Print a run's log; *follow*: wait until the run is accepted, then go on until it has ended."""
    while follow and await gateway.find(session.namespace, uid) is None:
        await session.clock.sleep(_PAUSE)
    async for line in gateway.logs(session.namespace, uid, follow=follow):
        if not node or re.match(rf"{re.escape(node)}(?![^/\[#])", line["node"]):
            click.echo(log_text(line, timestamps=timestamps))


def log_text(line: Mapping[str, Any], *, timestamps: bool) -> str:
    """Return one line of a log."""
    parts = [str(line["at"])] if timestamps else []
    level = str(line.get("level") or "info")
    parts += [level.upper()] if level not in ("info", "debug") else []
    parts += [f"[{line['node']}]"] if line.get("node") else []
    text = str(line["text"]).rstrip("\n").replace("\n", "\n  ")  # what is indented is no line of its own
    return " ".join([*parts, text])


@click.command()
@click.argument("run", default="@latest")
@click.option("-o", "--output", "fmt", type=click.Choice(["tree", "json", "yaml"]), default="tree", show_default=True)
@click.option("--items", is_flag=True, help="Show every item of a forEach.")
@target_options(gateway=True)
def trace(target: Target, *, run: str, fmt: str, items: bool) -> int:
    """Show where a run's time went: every node and call, when it began, how long it took, what it cost."""
    from fairlead.cli import exits, printing
    from fairlead.cli.gateway import open_gateway
    from fairlead.cli.session import run_session

    async def work(session: Session) -> int:
        async with open_gateway(session) as gateway:
            record = await find_record(session, gateway, run)
            spans = await gateway.trace(record["namespace"], record["uid"])
        if fmt == "tree":
            for text in trace_lines(spans, items=items):
                click.echo(text)
        else:
            (printing.print_json if fmt == "json" else printing.print_yaml)(spans)
        return exits.OK

    return run_session(target, work)


def trace_lines(spans: Sequence[Mapping[str, Any]], *, items: bool) -> list[str]:
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
    from fairlead.cli.printing import duration, money, seconds_between, shorten

    seconds = seconds_between(span["startedAt"], span["finishedAt"])
    first = min(int(offset / whole * _BAR), _BAR - 1)
    length = max(1, round((seconds if seconds is not None else whole - offset) / whole * _BAR))
    bar = (" " * first + "█" * length)[:_BAR]
    attributes = span.get("attributes") or {}
    cost = attributes.get("fairlead.cost.usd")
    state = "" if span["status"] != "error" else f"  {attributes.get('error.type', 'error')}"
    timing = duration(seconds) if seconds is not None else "…"
    head = f"{name if len(name) <= _NAME else shorten(name, _NAME):<{_NAME}}  {timing:>7}  {bar:<{_BAR}}"
    return f"{head}{f'  {money(cost)}' if cost is not None else ''}{state}".rstrip()


@click.command()
@click.argument("name", required=False)
@click.option("--since", default="", metavar="7d", help="Only runs of this time: 30m, 12h, 7d, 4w.")
@click.option("-o", "--output", "fmt", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
@target_options(everywhere=True, gateway=True)
def cost(target: Target, *, name: str | None, since: str, fmt: str) -> int:
    """Show what runs cost. NAME: a workflow, a run, or @latest; without it, everything by workflow.

    A price that is not known is n/a and never 0.
    """
    from fairlead.cli.session import run_session

    seconds = since_seconds(since)
    return run_session(target, lambda session: _cost(session, name or "", seconds=seconds, fmt=fmt))


def since_seconds(text: str) -> int | None:
    """Return the seconds that ``7d`` means; None for nothing."""
    if not text:
        return None
    if not text[:-1].isdigit() or text[-1] not in _UNITS:
        raise click.UsageError(f'"{text}" is no time; write 30m, 12h, 7d or 4w')
    return int(text[:-1]) * _UNITS[text[-1]]


async def _cost(session: Session, name: str, *, seconds: int | None, fmt: str) -> int:
    from datetime import timedelta

    from fairlead.cli import exits, printing
    from fairlead.cli.gateway import open_gateway

    async with open_gateway(session) as gateway:
        record = await _run_named(session, gateway, name) if name else None
        if record is not None:
            shown: dict[str, Any] = {
                key: record.get(key) for key in ("name", "workflow", "state", "cost", "usage", "scriptedCalls")
            }
        else:
            since = "" if seconds is None else (session.clock.now() - timedelta(seconds=seconds)).isoformat()
            shown = await gateway.costs(namespace=session.scope, workflow=name, since=since)
    if fmt != "table":
        (printing.print_json if fmt == "json" else printing.print_yaml)(shown)
    elif record is not None:
        printing.print_rows(run_cost_rows(shown))
    else:
        _print_costs(shown, namespaces=not session.scope)
    return exits.OK


async def _run_named(session: Session, gateway: GatewayReader, name: str) -> dict[str, Any] | None:
    """Return the run that *name* means, or None if it is a workflow's name."""
    from fairlead.cli.exits import NotFound
    from fairlead.core import names
    from fairlead.kube import Ref

    if not name.startswith("@") and await session.kube.get(Ref(names.API_VERSION, "Workflow", name, session.namespace)):
        return None
    try:
        return await find_record(session, gateway, name)
    except NotFound:
        if name.startswith("@"):
            raise
        return None


def run_cost_rows(shown: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return one run's cost as rows."""
    from fairlead.cli.printing import SCRIPTED, money, tokens

    amount = shown["cost"]
    rows = [("run", shown["name"]), ("state", shown["state"]), ("cost", money(amount["total"], amount["currency"]))]
    if amount["unpricedCalls"]:
        rows.append(
            ("known", f"{money(amount['known'])} without {amount['unpricedCalls']} calls whose price is unknown")
        )
    if shown.get("scriptedCalls"):
        rows.append(("model", SCRIPTED))
    return [*rows, ("tokens", tokens(shown["usage"]))]


def _print_costs(shown: Mapping[str, Any], *, namespaces: bool) -> None:
    from fairlead.cli.printing import hint, print_rows

    head = ["WORKFLOW", "RUNS", "COST", "INPUT TOKENS", "OUTPUT TOKENS"]
    rows = [_cost_row(part, part["workflow"]) for part in shown["workflows"]]
    rows.append(_cost_row(shown, "total"))
    if namespaces:
        head.insert(0, "NAMESPACE")
        rows = [[part.get("namespace", ""), *row] for part, row in zip([*shown["workflows"], {}], rows, strict=True)]
    print_rows(rows, headers=head)
    if shown["truncated"]:
        hint("only the latest runs are counted; narrow it with --since")


def _cost_row(part: Mapping[str, Any], name: str) -> list[str]:
    from fairlead.cli.printing import money

    total = None if part["unpricedCalls"] else part["cost"]
    usage = part["usage"]
    return [name, str(part["runs"]), money(total), f"{usage['inputTokens']:,}", f"{usage['outputTokens']:,}"]


async def find_record(session: Session, gateway: GatewayReader, text: str) -> dict[str, Any]:
    """Return the record of the run that *text* means; that of a run whose object is gone by its whole name or uid.

    Raises:
        NotFound: there is none.
    """
    from fairlead.cli.exits import NotFound
    from fairlead.cli.kinds import find_run

    if not text.startswith("@"):
        record = await gateway.find(session.namespace, text.rpartition("/")[2])
        if record is not None:
            return record
    found = (await find_run(session, text))["metadata"]
    record = await gateway.find(session.namespace, found["uid"])
    if record is None:
        raise NotFound(f"{found['name']} has not been accepted yet: kubectl describe workflowrun {found['name']}")
    return record


async def _find_uid(session: Session, gateway: GatewayReader, text: str) -> str:
    from fairlead.cli.exits import NotFound
    from fairlead.cli.kinds import find_run

    try:
        return str((await find_run(session, text))["metadata"]["uid"])
    except NotFound:
        return str((await find_record(session, gateway, text))["uid"])
