"""``cost``: what was spent, by whatever one wants to know it by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from fairlead.cli.options import Target, command, target_options

if TYPE_CHECKING:
    from fairlead.cli.gateway import GatewayReader
    from fairlead.cli.session import Session

_UNITS: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DAY: Final = 86_400
BY: Final = ("workflow", "namespace", "agent", "model", "day", "node")


@command(
    examples="""
    fairlead cost                              # of the namespace, by workflow
    fairlead cost --by model,day --since 7d
    fairlead cost triage --by node             # of a workflow's runs
    fairlead cost @latest                      # of a run, by node
    """
)
@click.argument("name", required=False)
@click.option(
    "--by", default="", metavar="WHAT", help=f"Sum by {', '.join(BY)}; several with commas between, node alone."
)
@click.option("--since", default="", metavar="7d", help="Only calls of this time: 12h, 7d, 4w; whole days (UTC).")
@click.option("-o", "--output", "fmt", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
@target_options(everywhere=True, gateway=True)
def cost(target: Target, *, name: str | None, by: str, since: str, fmt: str) -> int:
    """Show what calls of models cost. NAME: a workflow, a run, or @latest; without it, everything by workflow.

    A price that is not known is n/a and never 0.
    """
    from fairlead.cli.session import run_session

    seconds = since_seconds(since)
    unknown = [part for part in by.split(",") if by and part not in BY]
    if unknown or ("node" in by.split(",") and by != "node"):
        raise click.UsageError(f'"{by}" is nothing to sum by; use some of {", ".join(BY[:-1])}, or node alone')
    if by == "node" and not name:
        raise click.UsageError("the cost of nodes is that of one workflow or run: name it")
    return run_session(target, lambda session: _cost(session, name or "", by=by, seconds=seconds, fmt=fmt))


def since_seconds(text: str) -> int | None:
    """Return the seconds that ``7d`` means; None for nothing."""
    if not text:
        return None
    if not text[:-1].isdigit() or text[-1] not in _UNITS:
        raise click.UsageError(f'"{text}" is no time; write 30m, 12h, 7d or 4w')
    return int(text[:-1]) * _UNITS[text[-1]]


def since_moment(session: Session, seconds: int | None) -> str:
    """Return the beginning of the last *seconds*, as on the wire; nothing for no limit."""
    from datetime import timedelta

    return "" if seconds is None else (session.clock.now() - timedelta(seconds=seconds)).isoformat()


async def _cost(session: Session, name: str, *, by: str, seconds: int | None, fmt: str) -> int:
    from fairlead.cli import exits, printing
    from fairlead.cli.gateway import open_gateway

    async with open_gateway(session) as gateway:
        record = await run_named(session, gateway, name) if name else None
        if record is not None:
            if by not in ("", "node"):
                raise click.UsageError(f"the cost of a run is shown by node, not by {by}")
            own = {key: record.get(key) for key in ("name", "workflow", "state", "cost", "usage", "scriptedCalls")}
            shown = {**own, **await gateway.run_costs(record["namespace"], record["uid"])}
        else:
            since = since_moment(session, seconds)
            shown = await gateway.costs(by=by or "workflow", namespace=session.scope, workflow=name, since=since)
            if name and not shown["items"]:
                await _check_name(session, name)
    if fmt != "table":
        printing.print_as(shown, fmt)
        return exits.OK
    if record is not None:
        printing.print_rows(run_cost_rows(shown))
        click.echo("")
    print_costs(shown)
    if seconds is not None and seconds % _DAY and record is None and by != "node":
        printing.hint("sums are kept by day (UTC): the first day is counted whole")
    return exits.OK


async def _check_name(session: Session, name: str) -> None:
    """Raise if nothing was spent because nothing has that name.

    Raises:
        NotFound: neither a workflow nor a run has it.
    """
    from fairlead.cli.exits import NotFound
    from fairlead.cli.kinds import find_run
    from fairlead.core import names
    from fairlead.kube import Ref

    if await session.kube.get(Ref(names.API_VERSION, "Workflow", name, session.namespace)) is not None:
        return
    try:
        await find_run(session, name)
    except NotFound as error:
        text = f'there is no workflow and no run "{name}" in namespace {session.namespace}'
        raise NotFound(f"{text}, and nothing was spent for one of that name") from error


async def run_named(session: Session, gateway: GatewayReader, name: str) -> dict[str, Any] | None:
    """Return the run that *name* means, or None if it is a workflow's name."""
    from fairlead.cli.exits import NotFound
    from fairlead.cli.reading import find_record
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


def print_costs(shown: Mapping[str, Any]) -> None:
    """Print sums as a table, with a line for all of them."""
    from fairlead.cli.printing import counted, hint, print_rows

    by, total = shown["by"], shown["total"]
    count = "executions" if "executions" in total else "calls"
    head = [*(name.upper() for name in by), count.upper(), "COST", "INPUT TOKENS", "OUTPUT TOKENS"]
    rows = [[*(row[name] or "-" for name in by), *_cells(row, count)] for row in shown["items"]]
    rows.append(["total", *[""] * (len(by) - 1), *_cells(total, count)])
    print_rows(rows, headers=head)
    if total["unpricedCalls"]:
        known = f"${total['known']} is known"
        where = "Model.spec.price, or Agent.spec.external.costPerCallUSD"
        hint(f"{total['unpricedCalls']} calls have no known price ({known}): state it in {where}")
    if total["scriptedCalls"]:
        were = "was" if total["scriptedCalls"] == 1 else "were"
        hint(f"{counted(total['scriptedCalls'], 'call')} {were} answered by scripted models: no model was asked")
    if shown.get("truncated"):
        hint("only the latest runs are counted; narrow it with --since")


def _cells(row: Mapping[str, Any], count: str) -> list[str]:
    from fairlead.cli.printing import money

    usage = row["usage"]
    return [str(row[count]), money(row["cost"]), f"{usage['inputTokens']:,}", f"{usage['outputTokens']:,}"]
