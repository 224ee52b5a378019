"""``wait``: until a run is somewhere, with the exit codes of `run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from fairlead.cli.durations import Duration
from fairlead.cli.options import Target, command, program, run_argument, target_options

if TYPE_CHECKING:
    from fairlead.cli.session import Session

_PAUSE: Final = 0.5
_KNOWN: Final = {"finished": ("Finished", "True"), "approval": ("WaitingForApproval", "True")}


@command(
    examples="""
    fairlead wait @latest --timeout 10m            # exit code 0 if it succeeded; see: fairlead exit-codes
    fairlead wait triage-x1 --for approval
    fairlead wait triage-x1 --for condition=Reconciling=False
    """
)
@run_argument(default="@latest")
@click.option(
    "--for",
    "aim",
    default="finished",
    show_default=True,
    metavar="finished|approval|condition=TYPE[=STATUS]",
    help="What to wait for.",
)
@click.option("--timeout", type=Duration(), help="Wait no longer than this, as in 90s or 10m (exit code 124).")
@target_options()
def wait(target: Target, *, run: str, aim: str, timeout: float | None) -> int:
    """Wait until RUN has ended, or until something else is true of it. Without RUN: the latest one.

    The exit code says how the run ended. Of a run that ends before the rest came true, too.
    """
    from fairlead.cli.session import run_session

    kind, status = parse_aim(aim)
    return run_session(target, lambda session: _wait(session, run, (kind, status), seconds=timeout))


def parse_aim(text: str) -> tuple[str, str]:
    """Return the condition's type and status that *text* means."""
    if text in _KNOWN:
        return _KNOWN[text]
    word, equals, rest = text.partition("=")
    kind, _, status = rest.partition("=")
    if word != "condition" or not equals or not kind:
        raise click.UsageError(f'"{text}" is nothing to wait for; write finished, approval or condition=TYPE=STATUS')
    return kind, status or "True"


async def _wait(session: Session, text: str, aim: tuple[str, str], *, seconds: float | None) -> int:
    import asyncio

    from fairlead.cli import exits, printing
    from fairlead.cli.follow import conclude
    from fairlead.cli.kinds import condition, find_run

    run = await find_run(session, text)
    name = run["metadata"]["name"]
    try:
        async with asyncio.timeout(seconds):
            found = await _until(session, run, aim)
    except TimeoutError:
        printing.hint(f"{name} is not there yet: {_state(run)}. It goes on; stop it: {program()} stop {name}")
        return exits.TIMEOUT
    if condition(found, "Finished").get("status") == "True":
        return conclude(found)
    printing.hint(f"{name}: {aim[0]} is {aim[1]}: {condition(found, aim[0]).get('message', '')}")
    return exits.OK


def _state(run: dict[str, Any]) -> str:
    from fairlead.cli.kinds import condition

    return condition(run, "Succeeded").get("reason") or "Pending"


async def _until(session: Session, run: dict[str, Any], aim: tuple[str, str]) -> dict[str, Any]:
    """Return the run when it has ended or the aim is reached; the caller's object is kept up to date meanwhile."""
    from fairlead.cli.exits import NotFound
    from fairlead.cli.follow import read_object
    from fairlead.cli.kinds import condition

    while True:
        found = await read_object(session, run)
        if found is None:
            raise NotFound(f"run {run['metadata']['name']} was deleted")
        run.update(found)
        if condition(found, "Finished").get("status") == "True" or condition(found, aim[0]).get("status") == aim[1]:
            return found
        await session.clock.sleep(_PAUSE)
