"""``run``: one execution of a workflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fairlead.cli.follow import Follow, accompany, follow_options
from fairlead.cli.options import Target, command, complete_names, program, target_options

if TYPE_CHECKING:
    from fairlead.cli.session import Session

_ENDINGS: Final = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Given:
    """What a run is started with."""

    inputs: Sequence[str]
    file: Mapping[str, Any]
    name: str
    fmt: str = "text"


@command(
    examples="""
    fairlead run triage -i message="Where is my invoice?" --watch
    fairlead run triage --input-file inputs.yaml --wait --timeout 10m
    fairlead run triage.yaml --watch              # a file's workflow, without applying it
    id=$(fairlead run triage -o name)
    """
)
@click.argument("what", metavar="NAME|FILE", shell_complete=complete_names("workflows"))
@click.option(
    "-i", "--input", "inputs", multiple=True, metavar="NAME=VALUE", help="An input, read as its declared type."
)
@click.option(
    "--input-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Inputs, YAML or JSON."
)
@click.option("--name", default="", help="The run's name; default: the workflow's and a random ending.")
@click.option(
    "-o", "--output", "fmt", type=click.Choice(["text", "name", "json", "yaml"]), default="text", help="How it is told."
)
@follow_options
@target_options(gateway=True)
def run(  # noqa: PLR0913 - the options
    target: Target, *, what: str, inputs: tuple[str, ...], input_file: Path | None, name: str, fmt: str, how: Follow
) -> int:
    """Start a run of the workflow NAME, or of the Workflow or WorkflowRun in FILE (- is standard input).

    With --wait, --watch or --logs the exit code says how the run ended; Ctrl-C only stops watching.
    """
    from fairlead.cli.session import run_session

    is_file = what == "-" or what.endswith(_ENDINGS) or Path(what).is_file()
    file = run_of_file(what) if is_file else None
    given = Given(inputs, _from_file(input_file), name, fmt)
    return run_session(target, lambda session: _run(session, file, what, given=given, how=how))


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
    tell(made, given.fmt)
    return await accompany(session, made, how)


def tell(made: dict[str, Any], fmt: str) -> None:
    """Print which run was made."""
    from fairlead.cli.printing import print_as

    title = f"workflowrun.fairlead.dev/{made['metadata']['name']}"
    if fmt in ("json", "yaml"):
        print_as(made, fmt)
    else:
        click.echo(title if fmt == "name" else f"{title} created")


def run_of_file(path: str) -> tuple[dict[str, Any], Any]:
    """Return the run that a file asks for, and the inputs that its workflow declares (None: not known here).

    Raises:
        InvalidObject: the file has mistakes, or does not hold exactly one Workflow or WorkflowRun.
    """
    from fairlead.cli.files import objects_of, read_sources
    from fairlead.core.validation import validate_text
    from fairlead.errors import InvalidObject

    (source,) = read_sources([path])
    objects = objects_of(source)
    if wrong := [one for one in validate_text(source.text, source.name) if one.severity == "error"]:
        raise InvalidObject("\n".join(one.text() for one in wrong).removeprefix("error: "))
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
