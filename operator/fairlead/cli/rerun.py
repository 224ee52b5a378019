"""``rerun``: a new run that takes over what an earlier one has done, where it is still the same work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from fairlead.cli.follow import Follow, follow_options
from fairlead.cli.options import Target, command, run_argument, target_options

if TYPE_CHECKING:
    from fairlead.cli.session import Session

_WORDS: Final = {"failed": "Failed", "start": "Start"}


@command(
    examples="""
    fairlead rerun @latest-failed --watch          # go on from what failed
    fairlead rerun triage-x1 --from draft          # draft and what depends on it are done again
    fairlead rerun triage-x1 --from start          # everything is done again
    fairlead rerun triage-x1 --latest              # with the workflow as it is now: what changed is done again
    fairlead rerun triage-x1 -i tone=friendly      # with another input: what it touches is done again
    """
)
@run_argument()
@click.option(
    "--from", "start", default="failed", show_default=True, metavar="failed|start|NODE", help="What is done again."
)
@click.option("--latest", is_flag=True, help="Take the workflow as it is now, not as it was.")
@click.option("-i", "--input", "inputs", multiple=True, metavar="NAME=VALUE", help="An input with another value.")
@click.option("--name", default="", help="The new run's name; default: the old one's and a random ending.")
@follow_options
@target_options(gateway=True)
def rerun(  # noqa: PLR0913 - the options
    target: Target, *, run: str, start: str, latest: bool, inputs: tuple[str, ...], name: str, how: Follow
) -> int:
    """Run again, and use every result of RUN whose inputs and definition did not change.

    What is reused costs nothing and is shown as reused. People are always asked again. RUN may be one whose object is
    deleted: its history is enough.
    """
    from fairlead.cli.session import run_session

    async def work(session: Session) -> int:
        from fairlead.cli.follow import accompany
        from fairlead.cli.printing import hint, say

        earlier = await _earlier(session, run)
        wanted = build_rerun(earlier, start=start, name=name)
        wanted["metadata"]["namespace"] = earlier["metadata"]["namespace"]
        if never_began(earlier):
            hint(f"{earlier['metadata']['name']} did not begin, so all of it is done")
        await _choose_workflow(session, wanted, earlier, latest=latest, inputs=inputs)
        made = await session.kube.create(wanted)
        say(f"workflowrun.fairlead.dev/{made['metadata']['name']} created")
        return await accompany(session, made, how)

    return run_session(target, work)


def build_rerun(earlier: dict[str, Any], *, start: str, name: str) -> dict[str, Any]:
    """Return the run that goes on from *earlier*, or does what that was to do and never began."""
    from fairlead.core import names

    meta = earlier["metadata"]
    again = {"name": meta["name"], "uid": meta["uid"], "from": _WORDS.get(start, start)}
    named = {"name": name} if name else {"generateName": f"{base_name(meta)}-"}
    spec: dict[str, Any] = {"rerunOf": again}
    if never_began(earlier):
        spec = {field: value for field, value in earlier["spec"].items() if field not in ("suspend", "stop")}
    return {"apiVersion": names.API_VERSION, "kind": "WorkflowRun", "metadata": named, "spec": spec}


def never_began(run: dict[str, Any]) -> bool:
    """Return whether a run ended before it was accepted: history has nothing of it to go on from."""
    from fairlead.cli.follow import began
    from fairlead.cli.kinds import condition

    return condition(run, "Finished").get("status") == "True" and not began(run)


def base_name(meta: dict[str, Any]) -> str:
    """Return what the names of reruns begin with: the ending that the server made up is left out."""
    made_up = str(meta.get("generateName") or "").rstrip("-")
    return made_up if made_up and str(meta["name"]).startswith(made_up) else str(meta["name"])


async def _earlier(session: Session, text: str) -> dict[str, Any]:
    """Return the earlier run's object; of one that is gone, what history has of it."""
    from fairlead.cli.exits import NotFound
    from fairlead.cli.gateway import open_gateway
    from fairlead.cli.kinds import find_run
    from fairlead.cli.reading import find_record

    try:
        return await find_run(session, text)
    except NotFound:
        async with open_gateway(session) as gateway:
            record = await find_record(session, gateway, text)
    meta = {"name": record["name"], "namespace": record["namespace"], "uid": record["uid"]}
    spec = {"workflowRef": {"name": record["workflow"]}} if record.get("workflow") else {}
    return {"metadata": meta, "spec": spec, "status": {"revision": record.get("revision", "")}}


async def _choose_workflow(
    session: Session, wanted: dict[str, Any], earlier: dict[str, Any], *, latest: bool, inputs: tuple[str, ...]
) -> None:
    """Say which workflow is meant, and read the inputs as that declares them."""
    from fairlead.cli.exits import NotFound
    from fairlead.cli.printing import hint
    from fairlead.cli.run import typed_inputs
    from fairlead.core import names
    from fairlead.kube import Ref

    name = workflow_name(earlier)
    where = earlier["metadata"]["namespace"]
    workflow = await session.kube.get(Ref(names.API_VERSION, "Workflow", name, where)) if name else None
    if latest:
        if workflow is None:
            raise NotFound("--latest needs a Workflow object, and there is none (any more) for this run")
        wanted["spec"] = {**wanted["spec"], "workflowRef": {"name": name}}
    elif workflow is not None and _changed(workflow, earlier):
        hint(f"Workflow {name} has changed since; --latest takes what it is now")
    if not inputs:
        return
    known = declared_inputs(earlier, workflow, latest=latest)
    if known is None:
        known = types_of(await _inputs_before(session, earlier), (workflow or {}).get("spec", {}).get("inputs"))
    wanted["spec"]["inputs"] = {**wanted["spec"].get("inputs", {}), **typed_inputs(known, inputs)}


def declared_inputs(earlier: dict[str, Any], workflow: dict[str, Any] | None, *, latest: bool) -> Any:
    """Return the inputs that the workflow of a rerun declares; None: it is one as it was, and only history has it."""
    inline = earlier["spec"].get("workflow")
    if inline:
        return inline.get("inputs") or []
    if workflow is not None and (latest or never_began(earlier) or not _changed(workflow, earlier)):
        return workflow["spec"].get("inputs") or []
    return None


def types_of(values: Mapping[str, Any], declared: Any) -> list[dict[str, Any]]:
    """Return inputs with the types that the values of an earlier run had; of null, as they are *declared* now."""
    types = {each["name"]: each.get("type", "string") for each in declared or ()}
    types |= {name: _type_of(value) for name, value in values.items() if value is not None}
    return [{"name": name, "type": kind} for name, kind in types.items()]


def _type_of(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case list():
            return "array"
        case dict():
            return "object"
        case _:
            return "string"


async def _inputs_before(session: Session, earlier: dict[str, Any]) -> dict[str, Any]:
    """Return what history has as the inputs of a run, defaults included."""
    from fairlead.cli.gateway import open_gateway

    meta = earlier["metadata"]
    async with open_gateway(session) as gateway:
        record = await gateway.find(meta["namespace"], meta["uid"], outputs=False)
    return dict((record or {}).get("inputs") or {})


def workflow_name(run: dict[str, Any]) -> str:
    """Return the name of the Workflow that a run is of, or nothing; of a rerun, its status alone may say it."""
    spec, status = run["spec"], run.get("status") or {}
    if spec.get("workflow"):
        return ""
    return str((spec.get("workflowRef") or {}).get("name") or status.get("workflow") or "")


def _changed(workflow: dict[str, Any], earlier: dict[str, Any]) -> bool:
    now = (workflow.get("status") or {}).get("revision")
    before = (earlier.get("status") or {}).get("revision")
    return bool(now and before and now != before)
