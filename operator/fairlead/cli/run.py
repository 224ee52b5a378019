"""``run`` and ``stop``: one execution of a workflow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fairlead.cli.options import Target, program, target_options

if TYPE_CHECKING:
    from fairlead.cli.session import Session

_ENDINGS: Final = (".yaml", ".yml", ".json")
_DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?\Z")


class Duration(click.ParamType[float]):
    """A span of time as in ``90``, ``90s``, ``10m``, ``1h30m``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        if isinstance(value, int | float):
            return float(value)
        found = _DURATION.match(value)
        if not value or found is None:
            self.fail(f'"{value}" is no duration; write 90s, 10m or 1h30m', param, ctx)
        hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return float(hours * 3600 + minutes * 60 + seconds)


@dataclass(frozen=True, slots=True)
class Given:
    """What a run is started with."""

    inputs: Sequence[str]
    file: Mapping[str, Any]
    name: str


@dataclass(frozen=True, slots=True)
class Follow:
    """What is done after a run was started; *seconds*: no longer than this."""

    wait: bool = False
    watch: bool = False
    logs: bool = False
    seconds: float | None = None

    @property
    def silent(self) -> bool:
        """Whether nothing is."""
        return not (self.wait or self.watch or self.logs)


@click.command()
@click.argument("what", metavar="NAME|FILE")
@click.option(
    "-i", "--input", "inputs", multiple=True, metavar="NAME=VALUE", help="An input, read as its declared type."
)
@click.option(
    "--input-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Inputs, YAML or JSON."
)
@click.option("--name", default="", help="The run's name; default: the workflow's and a random ending.")
@click.option("--wait", is_flag=True, help="Return when the run has ended; the exit code says how.")
@click.option("--watch", is_flag=True, help="Show the nodes until the run has ended.")
@click.option("--logs", is_flag=True, help="Print the run's log until it has ended.")
@click.option("--timeout", type=Duration(), help="Wait no longer than this (exit code 124); the run goes on.")
@target_options(gateway=True)
def run(target: Target, *, what: str, inputs: tuple[str, ...], input_file: Path | None, name: str, **how: Any) -> int:
    """Start a run of the workflow NAME, or of the Workflow or WorkflowRun in FILE (- is standard input)."""
    from fairlead.cli.session import run_session

    is_file = what == "-" or what.endswith(_ENDINGS) or Path(what).is_file()
    file = run_of_file(what) if is_file else None
    given = Given(inputs, _from_file(input_file), name)
    follow = Follow(how["wait"], how["watch"], how["logs"], how["timeout"])
    return run_session(target, lambda session: _run(session, file, what, given=given, how=follow))


@click.command()
@click.argument("name")
@target_options()
def stop(target: Target, *, name: str) -> int:
    """Stop a run. What is running is cancelled; what is finished stays."""
    from fairlead.cli.session import run_session

    return run_session(target, lambda session: _stop(session, name))


async def _stop(session: Session, name: str) -> int:
    from fairlead.cli import exits
    from fairlead.cli.kinds import find_run
    from fairlead.kube import Ref

    found = await find_run(session, name)
    await session.kube.merge_patch(Ref.of(found), {"spec": {"stop": True}})
    click.echo(f"workflowrun.fairlead.dev/{found['metadata']['name']} stopping")
    return exits.OK


async def _run(
    session: Session, file: tuple[dict[str, Any], Any] | None, what: str, *, given: Given, how: Follow
) -> int:
    if file is None:
        from fairlead.cli.kinds import find_workflow

        workflow = await find_workflow(session, what)
        file = run_of(workflow, inline=False), workflow["spec"].get("inputs") or []
    wanted, declared = file
    values = {**wanted["spec"].get("inputs", {}), **given.file, **typed_inputs(declared, given.inputs)}
    by_name = declared is None  # the workflow that a file's run names is known to the server only
    wanted["spec"]["inputs"] = values if by_name else checked_inputs(declared, values)
    wanted["metadata"].setdefault("namespace", session.namespace)
    if given.name:
        wanted["metadata"]["name"] = given.name
        wanted["metadata"].pop("generateName", None)
    made = await session.kube.create(wanted)
    click.echo(f"workflowrun.fairlead.dev/{made['metadata']['name']} created")
    return await accompany(session, made, how)


def run_of_file(path: str) -> tuple[dict[str, Any], Any]:
    """Return the run that a file asks for, and the inputs that its workflow declares (None: not known here).

    Raises:
        InvalidObject: the file does not hold exactly one Workflow or WorkflowRun.
    """
    from fairlead.cli.files import read_objects
    from fairlead.errors import InvalidObject

    objects = read_objects([path])
    found = [obj for obj in objects if obj["kind"] in ("Workflow", "WorkflowRun")]
    if len(found) != 1 or len(objects) != 1:
        kinds = ", ".join(obj["kind"] for obj in objects) or "nothing"
        text = f"{path} holds {kinds}; one Workflow or one WorkflowRun can be run. Apply the rest first: "
        raise InvalidObject(f"{text}{program()} apply -f {path}")
    obj = found[0]
    if obj["kind"] == "WorkflowRun":
        inline = obj["spec"].get("workflow")
        return obj, None if inline is None else inline.get("inputs") or []
    return run_of(obj, inline=True), obj["spec"].get("inputs") or []


def run_of(workflow: Mapping[str, Any], *, inline: bool) -> dict[str, Any]:
    """Return a new run of a workflow, which is named, or (*inline*) written into the run."""
    from fairlead.core import names

    name = workflow["metadata"].get("name") or "run"
    spec: dict[str, Any] = {"workflow": dict(workflow["spec"])} if inline else {"workflowRef": {"name": name}}
    meta = {"generateName": f"{name}-"}
    if workflow["metadata"].get("namespace"):
        meta["namespace"] = workflow["metadata"]["namespace"]
    return {"apiVersion": names.API_VERSION, "kind": "WorkflowRun", "metadata": meta, "spec": spec}


def typed_inputs(declared: Any, given: Sequence[str]) -> dict[str, Any]:
    """Return the inputs of the command line, each read as the type that the workflow declares for it.

    Raises:
        InvalidObject: one cannot be read as that.
    """
    import json

    from fairlead.errors import InvalidObject

    types = {entry["name"]: entry.get("type", "string") for entry in declared or () if "name" in entry}
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f'"{text}" is no input; write --input name=value')
        if types.get(name, "string") == "string":
            values[name] = value
            continue
        try:
            values[name] = json.loads(value)
        except ValueError as error:
            raise InvalidObject(
                f'input "{name}" must be of type {types[name]}, written as JSON, not "{value}"'
            ) from error
    return values


def checked_inputs(declared: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return *values* if they are what the workflow asks for; the server fills in the defaults.

    Raises:
        InvalidObject: they are not, with everything that is wrong.
    """
    from fairlead.errors import InvalidObject
    from fairlead_agent.inputs import check_inputs

    problems = check_inputs(declared, values)[1]
    if problems:
        raise InvalidObject("\n".join(problem.message for problem in problems), reason="InvalidInputs")
    return dict(values)


def _from_file(path: Path | None) -> dict[str, Any]:
    from fairlead.core.documents import load_documents
    from fairlead.errors import InvalidObject

    if path is None:
        return {}
    loaded = load_documents(path.read_text(), str(path))
    values = loaded.documents[0].value if loaded.documents else None
    if loaded.problems or not isinstance(values, dict):
        raise InvalidObject(f"{path} must hold a map of input names to values")
    return values


async def accompany(session: Session, made: dict[str, Any], how: Follow) -> int:
    """Do after a run was created what was asked for; return the exit code."""
    import asyncio

    from fairlead.cli import exits, follow, printing

    name, command = made["metadata"]["name"], program()
    if how.silent:
        printing.hint(f"Follow it: {command} logs -f {name}    Its result: {command} output {name}")
        return exits.OK
    try:
        async with asyncio.timeout(how.seconds):
            ended = await _follow(session, made, how)
    except TimeoutError:
        printing.hint(f"{name} was not finished in time; it goes on. Stop it: {command} stop {name}")
        return exits.TIMEOUT
    except BaseException:
        printing.hint(f"{name} goes on. Stop it: {command} stop {name}")
        raise
    printing.hint(follow.summary(ended))
    return follow.exit_code(ended)


async def _follow(session: Session, made: dict[str, Any], how: Follow) -> dict[str, Any]:
    import asyncio

    from fairlead.cli import follow
    from fairlead.cli.gateway import open_gateway
    from fairlead.cli.reading import print_logs

    if not (how.watch or how.logs):
        return await follow.wait_for_run(session, made)
    async with open_gateway(session) as gateway:
        if how.watch:
            return await follow.follow_run(session, gateway, made, follow.choose_view(session.clock))
        printing = asyncio.create_task(print_logs(session, gateway, made["metadata"]["uid"], follow=True))
        try:
            ended = await follow.wait_for_run(session, made)
            await printing
        finally:
            printing.cancel()
    return ended
