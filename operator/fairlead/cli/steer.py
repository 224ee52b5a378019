"""``stop``, ``suspend``, ``resume``: what may still change once a run exists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fairlead.cli.options import Target, command, complete_names, target_options

if TYPE_CHECKING:
    from fairlead.cli.session import Session

_runs = click.argument("runs", nargs=-1, required=True, shell_complete=complete_names("workflowruns"))


@command(
    examples="""
    fairlead stop @latest
    fairlead stop triage-x1 triage-x2      # several; the beginning of a name will do
    """
)
@_runs
@target_options()
def stop(target: Target, *, runs: tuple[str, ...]) -> int:
    """Stop runs. What is running is cancelled, what is finished stays; a workflow's `finally` still runs.

    It cannot be taken back; `rerun` makes a new run of the results that are there.
    """
    return _steer(target, runs, {"stop": True}, "stopping")


@command(
    examples="""
    fairlead suspend @latest
    fairlead resume @latest
    """
)
@_runs
@target_options()
def suspend(target: Target, *, runs: tuple[str, ...]) -> int:
    """Pause runs: nothing new starts, what is running finishes, and no pod is held until `resume`."""
    return _steer(target, runs, {"suspend": True}, "suspended")


@command(examples="fairlead resume @latest")
@_runs
@target_options()
def resume(target: Target, *, runs: tuple[str, ...]) -> int:
    """Go on with suspended runs, from where they are."""
    return _steer(target, runs, {"suspend": False}, "resumed")


def _steer(target: Target, runs: tuple[str, ...], change: dict[str, Any], said: str) -> int:
    from fairlead.cli.session import run_session

    async def work(session: Session) -> int:
        from fairlead.cli.kinds import find_run

        codes = [await _change(session, await find_run(session, run), change, said=said) for run in runs]
        return max(codes)

    return run_session(target, work)


async def _change(session: Session, run: dict[str, Any], change: dict[str, Any], *, said: str) -> int:
    from fairlead.cli import exits, printing
    from fairlead.cli.kinds import condition
    from fairlead.kube import Ref

    name = run["metadata"]["name"]
    if condition(run, "Finished").get("status") == "True":
        reason = condition(run, "Succeeded").get("reason") or "finished"
        printing.hint(f"{name} has ended already ({reason})")
        return exits.OK
    (field, value), *_ = change.items()
    same = bool(run["spec"].get(field)) == value
    await session.kube.merge_patch(Ref.of(run), {"spec": change})
    printing.say(f"workflowrun.fairlead.dev/{name} {'is not suspended' if same and not value else said}")
    return exits.OK
