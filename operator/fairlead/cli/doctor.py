"""``doctor``: what is wrong with this installation, and what to do about it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from fairlead.cli.options import Target, target_options

if TYPE_CHECKING:
    from fairlead.cli.session import Session
    from fairlead.localcluster.supervisor.home import Home

_LEAST_FREE: Final = 1 << 30
_PARTS: Final = {
    "kubernetes": "kube",
    "kopf": "operator",
    "sqlalchemy": "storage",
    "fastapi": "gateway",
    "litellm": "gateway",
    "duckdb": "gateway",
    "cel": "local",
    "uvloop": "local",
}
"""A library of each extra that laptop mode needs."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. *fix* is what to do where it is not ``ok``."""

    state: str
    """``ok``, ``note`` (something could be better) or ``bad``."""
    what: str
    fix: str = ""


@click.command()
@target_options()
def doctor(target: Target) -> int:
    """Check this installation, this machine and the cluster. Exit code 1: something is wrong."""
    from fairlead.cli import exits

    findings = [*_installation(), *_machine(target.home), *_cluster(target)]
    marks = {"ok": ("✓", "green"), "note": ("!", "yellow"), "bad": ("✗", "red")}
    for finding in findings:
        mark, colour = marks[finding.state]
        click.echo(f"{click.style(mark, fg=colour)} {finding.state:<4} {finding.what}")
        if finding.fix:
            click.echo(f"       → {finding.fix}")
    return exits.FAILED if any(finding.state == "bad" for finding in findings) else exits.OK


def _installation() -> Iterator[Finding]:
    from importlib.util import find_spec

    from fairlead import __version__

    yield Finding("ok", f"fairlead {__version__} on Python {sys.version.split()[0]}")
    missing = {extra for library, extra in _PARTS.items() if find_spec(library) is None}
    if missing:
        names = ", ".join(sorted(missing))
        yield Finding("bad", f"parts of laptop mode are not installed: {names}", 'pip install "fairlead[local]"')
    else:
        yield Finding("ok", "everything that laptop mode needs is installed")
    kubectl = shutil.which("kubectl")
    hint = "https://kubernetes.io/docs/tasks/tools (fairlead works without it; kubectl shows you more)"
    yield Finding("ok", f"kubectl: {kubectl}") if kubectl else Finding("note", "kubectl is not there", hint)


def _machine(home: Path) -> Iterator[Finding]:
    from fairlead.cli.demo import ollama_model
    from fairlead.errors import FairleadError
    from fairlead.localcluster.supervisor.home import Home, State
    from fairlead.localcluster.supervisor.ports import is_free

    place = Home(home.resolve())
    existing = next(path for path in (place.root, *place.root.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    state = "ok" if free > _LEAST_FREE else "note"
    yield Finding(state, f"{free / (1 << 30):.1f} GiB free for {place.root}", "" if state == "ok" else "make room")
    try:
        known = State.read(place)
    except FairleadError as error:
        yield Finding("bad", str(error))
        return
    if known.supervisor is not None and known.supervisor.alive():
        dead = [name for name, child in known.children.items() if not child.alive()]
        logs = f"look at {place.logs}"
        yield (
            Finding("bad", f"not running: {', '.join(dead)}", logs) if dead else Finding("ok", f"runs in {place.root}")
        )
        yield _engine(known.engine)
    else:
        taken = [str(port) for port in known.ports.values() if not is_free(port)]
        if taken:
            yield Finding("bad", f"ports of {place.root} are in use: {', '.join(taken)}", "end what uses them")
    model = ollama_model()
    note = "no Ollama answers here: demos use scripted answers"
    yield (
        Finding("ok", f"Ollama has {model}") if model else Finding("note", note, "https://ollama.com, if you want one")
    )
    if known.supervisor is None or not known.supervisor.alive():
        yield _runtime(place)


def _engine(engine: str) -> Finding:
    """Return what runs pods now."""
    if engine == "docker":
        return Finding("ok", "pods: docker: agents run in containers that reach nothing but the gateway")
    again = "for containers: `fairlead down`, then `fairlead up --runtime docker`, which says what is missing"
    return Finding("note", "pods: process: they are local processes and could read what you can read", again)


def _runtime(home: Home) -> Finding:
    """Return what would run pods if Fairlead were started now."""
    from fairlead.cli.local import Wish
    from fairlead.localcluster.podruntime.dockerengine.choosing import choose
    from fairlead.localcluster.supervisor.supervisor import describe

    choice = choose("auto", agent_image=Wish().agent_image, gateway=home.gateway_dir)
    said = f"pods: {describe(choice)}"
    return Finding("ok", said) if choice.engine == "docker" else Finding("note", said)


def _cluster(target: Target) -> Iterator[Finding]:
    from fairlead.cli.session import run_session
    from fairlead.errors import FairleadError

    try:
        yield from run_session(target, _look)
    except FairleadError as error:
        state = "note" if error.reason == "NoKubeconfig" else "bad"
        yield Finding(state, str(error))


async def _look(session: Session) -> list[Finding]:
    """Return what can be said about the cluster that is meant."""
    from fairlead.cli.gateway import open_gateway
    from fairlead.errors import FairleadError, Refused

    found = [Finding("ok", f"the Kubernetes API at {session.kube.server} answers")]
    for check in (_kinds, _operator):
        try:
            finding = await check(session)
        except Refused as error:  # a user of one namespace: what is left to see is the gateway's answer
            finding = Finding("note", f"not looked at: {error}")
        found += [finding] if finding is not None else []
        if finding is not None and finding.state == "bad" and check is _kinds:
            return found
    try:
        async with open_gateway(session) as gateway:
            await gateway.runs(session.namespace, limit=1)
            found.append(Finding("ok", "the gateway answers, and you may read runs"))
            found.append(_sandbox(await gateway.sandbox(session.namespace)))
    except FairleadError as error:
        found.append(Finding("bad", f"the gateway: {error}"))
    return found


async def _kinds(session: Session) -> Finding | None:
    """Return what is wrong with Fairlead's kinds, or None."""
    from fairlead.core import names
    from fairlead.kube import Ref

    for plural in ("workflows", "workflowruns", "agents", "models", "tools"):
        ref = Ref("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"{plural}.{names.GROUP}")
        if await session.kube.get(ref) is None:
            fix = "kubectl apply -k manifests/base"
            return Finding("bad", f"Fairlead is not installed there: no {plural}.{names.GROUP}", fix)
    return None


async def _operator(session: Session) -> Finding:
    """Return which operator is active."""
    from fairlead.core import names
    from fairlead.kube import Ref

    lease = Ref("coordination.k8s.io/v1", "Lease", names.OPERATOR_LEASE, names.SYSTEM_NAMESPACE)
    holder = ((await session.kube.get(lease)) or {}).get("spec", {}).get("holderIdentity")
    if holder:
        return Finding("ok", f"the operator is {holder}")
    return Finding("bad", "no operator is active", f"kubectl -n {names.SYSTEM_NAMESPACE} get pods")


def _sandbox(shown: Mapping[str, str]) -> Finding:
    """Return what is to be said of where programs run."""
    if shown["name"] != "none":
        return Finding("ok", f"programs run in {shown['description']}")
    why = shown["description"].removeprefix("none: ")
    fix = "install bubblewrap, or Docker and its sandbox image (make images); within half a minute it is found"
    if "FAIRLEAD_SANDBOX" in why:
        fix = "start the gateway again with another FAIRLEAD_SANDBOX"
    return Finding("note", f"code nodes and the tools python and shell are refused: {why}", fix)
