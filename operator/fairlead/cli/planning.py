"""``plan``: what a run would do, need and cost. Nothing is called, no token is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fairlead.cli.options import Target, command, target_options

if TYPE_CHECKING:
    from fairlead.cli.session import Session
    from fairlead.core.estimates import ModelPrice
    from fairlead.core.profile import WorkflowProfile
    from fairlead.core.runplan import RunPlan, There

_ENDINGS: Final = (".yaml", ".yml", ".json")
_SECONDS: Final = 10.0
_KINDS: Final = {"Model": "models", "Agent": "agents", "Tool": "tools", "Workflow": "workflows"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be planned."""

    name: str
    spec: Mapping[str, Any] | None
    """None: that of the Workflow *name* in the cluster."""
    inputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """What was looked up."""

    there: There
    prices: Mapping[str, ModelPrice]
    history: WorkflowProfile | None = None


@command(
    examples="""
    fairlead plan workflow.yaml -i message="it is broken"
    fairlead plan configs/quickstart           # a folder, planned together
    fairlead plan triage -o mermaid            # a Workflow of the cluster
    """
)
@click.argument("paths", metavar="FILE|NAME...", nargs=-1, required=True)
@click.option("-i", "--input", "inputs", multiple=True, metavar="NAME=VALUE", help="An input of the run.")
@click.option("-w", "--workflow", default="", help="The Workflow to plan, where the files hold several.")
@click.option("--offline", is_flag=True, help="Look nothing up in a cluster.")
@click.option(
    "-o", "--output", "fmt", type=click.Choice(["text", "mermaid", "json"]), default="text", show_default=True
)
@target_options(gateway=True)
def plan(
    target: Target, *, paths: tuple[str, ...], inputs: tuple[str, ...], workflow: str, offline: bool, fmt: str
) -> int:
    """Show what a run would do: its graph, what it needs and whether that is there, and what it may cost.

    Nothing is called and no token is spent. It works without a cluster, and says what it could not look up. Exit code
    3: the run would be refused.
    """
    import asyncio

    from fairlead.cli import exits, printing

    files = [path for path in paths if path == "-" or path.endswith(_ENDINGS) or Path(path).exists()]
    objects = _objects(files)
    wanted = choose(objects, workflow or next((path for path in paths if path not in files), ""))
    planned = asyncio.run(_planned(target, objects, wanted, inputs=inputs, offline=offline))
    if fmt == "json":
        printing.print_json(planned.to_json())
    else:
        printing.say(planned.mermaid().rstrip() if fmt == "mermaid" else planned.text())
    return exits.INVALID if planned.problems else exits.OK


def _objects(paths: Sequence[str]) -> list[dict[str, Any]]:
    """Return the objects of files.

    Raises:
        InvalidObject: there are mistakes in them.
    """
    from fairlead.cli.files import read_sources
    from fairlead.core.validation import load_documents, validate_documents
    from fairlead.errors import InvalidObject

    if not paths:
        return []
    loaded = [load_documents(source.text, source.name) for source in read_sources(paths, recursive=True)]
    documents = [document for one in loaded for document in one.documents]
    problems = [problem for one in loaded for problem in one.problems] + validate_documents(documents)
    wrong = [problem for problem in problems if problem.severity == "error"]
    if wrong:
        raise InvalidObject("\n".join(problem.text() for problem in wrong).removeprefix("error: "))
    return [document.value for document in documents if isinstance(document.value, dict)]


def choose(objects: Sequence[Mapping[str, Any]], name: str) -> Wanted:
    """Return what is to be planned: the WorkflowRun, the Workflow *name*, or the one that no other Workflow runs.

    Raises:
        InvalidObject: there is none, or there are several.
    """
    from fairlead.errors import InvalidObject

    flows = {str(one["metadata"].get("name")): one["spec"] for one in objects if one.get("kind") == "Workflow"}
    if name:
        return Wanted(name, flows.get(name), {})
    runs = [one["spec"] for one in objects if one.get("kind") == "WorkflowRun"]
    if len(runs) == 1:
        return _of_run(runs[0], flows)
    inner = {(node.get("workflow") or {}).get("name") for spec in flows.values() for node in spec.get("nodes") or ()}
    outer = [name for name in flows if name not in inner] or list(flows)
    if len(outer) == 1:
        return Wanted(outer[0], flows[outer[0]], {})
    held = f"the Workflows {', '.join(outer)}: choose one with --workflow" if outer else "no Workflow to plan"
    raise InvalidObject(f"the files hold {held}")


def _of_run(spec: Mapping[str, Any], flows: Mapping[str, Any]) -> Wanted:
    inputs = spec.get("inputs") or {}
    if spec.get("workflow") is not None:
        return Wanted("", spec["workflow"], inputs)
    name = str((spec.get("workflowRef") or {}).get("name") or "")
    return Wanted(name, flows.get(name), inputs)


async def _planned(
    target: Target, objects: Sequence[Mapping[str, Any]], wanted: Wanted, *, inputs: Sequence[str], offline: bool
) -> RunPlan:
    from fairlead.cli.run import typed_inputs
    from fairlead.core.planning import plan_run
    from fairlead.errors import InvalidObject

    found = _of_files(objects)
    if not offline:
        found = await _with_cluster(target, found, wanted)
    spec = wanted.spec if wanted.spec is not None else (found.there.workflows or {}).get(wanted.name)
    if spec is None:
        raise InvalidObject(f'there is no Workflow "{wanted.name}" in the files, and none was found in a cluster')
    given = {**wanted.inputs, **typed_inputs(spec.get("inputs") or [], inputs)}
    found = _with_list_prices(found)
    return plan_run(spec, given, there=found.there, name=wanted.name, prices=found.prices, history=found.history)


def _of_files(objects: Sequence[Mapping[str, Any]]) -> Found:
    from fairlead.core.runplan import There

    specs: dict[str, Any] = {plural: {} for plural in _KINDS.values()}
    for one in objects:
        if one.get("kind") in _KINDS:
            specs[_KINDS[one["kind"]]][str(one["metadata"].get("name"))] = one.get("spec") or {}
    return Found(There(**specs, partly=frozenset(_KINDS)), {})


async def _with_cluster(target: Target, found: Found, wanted: Wanted) -> Found:
    """Add what the cluster knows; what it does not tell is said on standard error."""
    import asyncio

    from fairlead.cli.printing import hint
    from fairlead.cli.session import open_session
    from fairlead.errors import FairleadError

    try:
        async with asyncio.timeout(_SECONDS), open_session(target) as session:
            there = await _with_secrets(session, await _looked_up(session, found.there), wanted)
    except (FairleadError, OSError, TimeoutError) as error:
        hint(f"nothing was looked up in a cluster: {str(error) or f'no answer within {_SECONDS:g} s'}")
        return found
    try:
        async with asyncio.timeout(_SECONDS), open_session(target) as session:
            prices, history, sandbox = await _remembered(session, there, wanted)
    except KeyError as error:
        hint(f"what the gateway knows was not looked up: the gateway is of another version and does not tell {error}")
        return replace(found, there=there)
    except (FairleadError, OSError, TimeoutError) as error:
        hint(f"what the gateway knows was not looked up: {str(error) or f'no answer within {_SECONDS:g} s'}")
        return replace(found, there=there)
    return Found(replace(there, sandbox=sandbox), prices, history)


async def _looked_up(session: Session, known: There) -> There:
    """Return what is there, files before the cluster's objects, as they would be after these were applied."""
    from fairlead.core import names
    from fairlead.errors import Refused

    specs: dict[str, Any] = {}
    unknown: set[str] = set()
    for kind, plural in _KINDS.items():
        own = getattr(known, plural) or {}
        try:
            objects = await session.kube.list(names.API_VERSION, kind, namespace=session.namespace)
        except Refused:
            objects, unknown = [], unknown | {kind}
        specs[plural] = {**{one["metadata"]["name"]: one.get("spec") or {} for one in objects}, **own}
    return replace(known, **specs, partly=frozenset(unknown))


async def _with_secrets(session: Session, there: There, wanted: Wanted) -> There:
    """Look whether the Secrets are there that are needed; their values are not looked at."""
    from fairlead.core.planning import plan_run, secrets_needed
    from fairlead.errors import Refused
    from fairlead.kube import Ref

    spec = wanted.spec if wanted.spec is not None else (there.workflows or {}).get(wanted.name) or {}
    secrets: dict[tuple[str, str], bool] = {}
    for name, key in secrets_needed(there, plan_run(spec, None, there=there, name=wanted.name)):
        try:
            secret = await session.kube.get(Ref("v1", "Secret", name, session.namespace))
        except Refused:
            continue
        secrets[name, key] = key in ((secret or {}).get("data") or {})
    return replace(there, secrets=secrets)


async def _remembered(
    session: Session, there: There, wanted: Wanted
) -> tuple[Mapping[str, ModelPrice], WorkflowProfile | None, Mapping[str, str]]:
    """Return what the gateway knows of prices, of earlier runs and of its sandbox."""
    from fairlead.cli.gateway import open_gateway
    from fairlead.services.planning import read_prices
    from fairlead.services.profiling import read_workflow_profile

    models = sorted({str(spec["model"]) for spec in (there.models or {}).values() if spec.get("model")})
    async with open_gateway(session) as gateway:
        prices = await gateway.prices(session.namespace, models[:64]) if models else {}
        shown = await gateway.workflow_profile(session.namespace, wanted.name) if wanted.name else None
        sandbox = await gateway.sandbox(session.namespace)
    history = read_workflow_profile(shown) if shown is not None and shown["runs"] else None
    return read_prices(prices), history, sandbox


def _with_list_prices(found: Found) -> Found:
    """Add the prices that this installation knows by itself."""
    from fairlead.services.planning import listed_prices

    models = [str(spec.get("model") or "") for spec in (found.there.models or {}).values()]
    return replace(found, prices={**listed_prices(models), **found.prices})
