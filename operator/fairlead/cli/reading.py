"""``output``, ``logs``: what runs put out and said, read through the gateway."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from fairlead.cli.options import Target, command, program, run_argument, target_options

if TYPE_CHECKING:
    from fairlead.cli.gateway import GatewayReader
    from fairlead.cli.session import Session

_PAUSE: Final = 0.5


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
