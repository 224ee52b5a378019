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
_PLACE: Final = re.compile(r"\[[^\]]*\]|#[^/]*")
"""Which item and which round it is, in the path of a node."""


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
            find = _find_meta if follow else find_record
            meta = await find(session, gateway, run)
            if not await print_logs(session, gateway, meta, follow=follow, node=node or "", timestamps=timestamps):
                await _explain_silence(session, gateway, meta, node=node or "")
        return exits.OK

    return run_session(target, work)


async def print_logs(
    session: Session,
    gateway: GatewayReader,
    run: Mapping[str, Any],
    *,
    follow: bool,
    node: str = "",
    timestamps: bool = False,
) -> bool:
    """Print the log of a run, whose metadata is given; return whether there was any.

    With *follow*, wait until the run is accepted, and go on until it has ended.
    """
    there = False
    if follow and not await _begins(session, gateway, run):
        return there
    async for line in gateway.logs(session.namespace, run["uid"], follow=follow):
        if not node or re.match(rf"{re.escape(node)}(?![^/\[#])", line["node"]):
            there = True
            click.echo(log_text(line, timestamps=timestamps))
    return there


async def _begins(session: Session, gateway: GatewayReader, run: Mapping[str, Any]) -> bool:
    """Wait until a run is accepted; return whether it was before it ended or was deleted."""
    from fairlead.cli.follow import read_object
    from fairlead.cli.kinds import condition

    while True:
        found = await read_object(session, {"metadata": run})
        if await gateway.find(session.namespace, run["uid"]) is not None:
            return True
        if found is None or condition(found, "Finished").get("status") == "True":
            return False
        await session.clock.sleep(_PAUSE)


async def _explain_silence(session: Session, gateway: GatewayReader, run: Mapping[str, Any], *, node: str) -> None:
    """Raise if a log is empty because there is no such thing.

    Raises:
        NotFound: the run was refused, or it has no such node.
    """
    from fairlead.cli.exits import NotFound

    record = await find_record(session, gateway, run["name"])
    known = {_PLACE.sub("", one["node"]) for one in record.get("nodes") or ()}
    if node and known and _PLACE.sub("", node) not in known:
        raise NotFound(f'{run["name"]} has no node "{node}"; it has {", ".join(sorted(known))}')


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
    found = await find_run(session, text)
    record = await gateway.find(session.namespace, found["metadata"]["uid"])
    if record is None:
        raise NotFound(_not_begun(found))
    return record


def _not_begun(run: Mapping[str, Any]) -> str:
    """Say why there is nothing to tell of a run."""
    from fairlead.cli.kinds import condition

    name, ended = run["metadata"]["name"], condition(run, "Succeeded")
    if ended.get("status") == "False":
        return f"{name} did not begin: {ended['reason']}: {ended.get('message', '')}"
    return f"{name} has not been accepted yet: kubectl describe workflowrun {name}"


async def _find_meta(session: Session, gateway: GatewayReader, text: str) -> dict[str, Any]:
    """Return name, namespace and uid of the run that *text* means, accepted or not."""
    from fairlead.cli.exits import NotFound
    from fairlead.cli.kinds import find_run

    try:
        return dict((await find_run(session, text))["metadata"])
    except NotFound:
        return await find_record(session, gateway, text)
