"""``agents``: who there is, why one is not ready, and what one may ask of them."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from fairlead.cli.durations import Duration
from fairlead.cli.options import Group, Target, command, complete_names, output_option, program, target_options

if TYPE_CHECKING:
    from fairlead.cli.agentviews import Shown
    from fairlead.cli.session import Session

LEASES: Final = ("coordination.k8s.io/v1", "Lease")
_PAUSE: Final = 0.5
_EVENTS: Final = 10
_QUIET_LOOKS: Final = 2
"""How often in a row a pod has to be seen without work: a claim that was under way may end in between."""
_NOT_READ: Final = ("ExternalUnreachable", "InvalidCard", "SecretNotFound")
_T = TypeVar("_T")
_name = click.argument("name", shell_complete=complete_names("agents"))


@click.group(
    cls=Group,
    examples="""
    fairlead agents list                       # with why one is not ready
    fairlead agents describe clerk
    fairlead agents drain clerk-0 --wait       # before its node goes away
    fairlead agents register broker --url https://agents.example.com/broker
    """,
)
def agents() -> None:
    """List and describe agents, drain their pods, register those that run elsewhere."""


@command(
    "list",
    examples="""
    fairlead agents list -o wide               # with versions, capabilities and what drains
    fairlead agents list -A
    """,
)
@click.option("--no-headers", is_flag=True, help="Leave the table's headers out.")
@output_option
@target_options(everywhere=True)
def list_agents(target: Target, *, no_headers: bool, fmt: str) -> int:
    """List agents: whether each can take work and why not, its pods, its queue, what it can do."""
    from fairlead.cli.session import run_session

    return run_session(target, lambda session: _list(session, fmt=fmt, headers=not no_headers))


async def _list(session: Session, *, fmt: str, headers: bool) -> int:
    from fairlead.cli import exits, printing
    from fairlead.cli.agentviews import HEADERS, WIDE_HEADERS, leases_of, list_row
    from fairlead.core import names

    found = await session.kube.list(names.API_VERSION, "Agent", namespace=session.scope)
    found.sort(key=lambda agent: (agent["metadata"]["namespace"], agent["metadata"]["name"]))
    if fmt == "name":
        for agent in found:
            click.echo(f"agent.{names.GROUP}/{agent['metadata']['name']}")
    elif fmt in ("json", "yaml"):
        printing.print_as({"apiVersion": "v1", "kind": "List", "items": found}, fmt)
    elif found:
        leases, wide, now = await _leases(session), fmt == "wide", session.clock.now()
        everywhere = session.target.all_namespaces
        rows = [
            [*([agent["metadata"]["namespace"]] if everywhere else []), *_row]
            for agent in found
            for _row in [list_row(agent, leases_of(agent, leases), wide=wide, now=now)]
        ]
        titles = [*(["NAMESPACE"] if everywhere else []), *(WIDE_HEADERS if wide else HEADERS)]
        printing.print_rows(rows, headers=titles if headers else ())
    if not found:
        printing.hint("No agents found" + (f" in {session.scope} namespace." if session.scope else "."))
    return exits.OK


async def _leases(session: Session) -> list[dict[str, Any]]:
    """Return the Leases of agents' pods; none, and a word of it, for whoever may not see them."""
    from fairlead.cli import printing

    leases, why = await _if_allowed(_list_leases(session, session.scope), [])
    if why:
        printing.hint(f"what only Leases tell is left out: {why}")
    return leases


async def _list_leases(session: Session, namespace: str) -> list[dict[str, Any]]:
    from fairlead.core import names

    return await session.kube.list(*LEASES, namespace=namespace, label_selector=names.AGENT_LABEL)


async def _if_allowed(asked: Awaitable[_T], otherwise: _T) -> tuple[_T, str]:
    """Return the answer and nothing, or *otherwise* and why there is none."""
    from fairlead.errors import FairleadError

    try:
        return await asked, ""
    except FairleadError as error:
        return otherwise, str(error)


@command(
    "describe",
    examples="""
    fairlead agents describe clerk
    fairlead agents describe clerk -o json | jq '.pods[].tasks'
    """,
)
@_name
@click.option("-o", "--output", "fmt", type=click.Choice(["text", "json", "yaml"]), default="text", show_default=True)
@target_options(gateway=True)
def describe(target: Target, *, name: str, fmt: str) -> int:
    """Show one agent: its conditions and what to do about them, its pods, what each works on, its events."""
    from fairlead.cli.session import run_session

    return run_session(target, lambda session: _describe(session, name, fmt))


async def _describe(session: Session, name: str, fmt: str) -> int:
    from fairlead.cli import exits, printing
    from fairlead.cli.agentviews import as_document

    shown = await _look(session, name)
    if fmt == "text":
        _print_description(shown, session.clock.now())
    else:
        printing.print_as(as_document(shown, session.clock.now()), fmt)
    for what in shown.unknown:
        printing.hint(what)
    return exits.OK


async def _look(session: Session, name: str) -> Shown:
    """Return what there is to know of an Agent, and what could not be found out."""
    from fairlead.cli.agentviews import Shown, leases_of
    from fairlead.core import names

    agent = await find_agent(session, name)
    where, label = agent["metadata"]["namespace"], names.label_value(agent["metadata"]["name"])
    leases, no_leases = await _if_allowed(_list_leases(session, where), [])
    pods, no_pods = await _if_allowed(
        session.kube.list("v1", "Pod", namespace=where, label_selector=f"{names.AGENT_LABEL}={label}"), []
    )
    own = leases_of(agent, leases)
    known = {agent["metadata"]["name"], *(one["metadata"]["name"] for one in (*own, *pods))}
    events, no_events = await _if_allowed(_events(session, where, known), [])
    pool, no_pool = await _if_allowed(_pool(session, agent), None)
    unknown = {"pods": no_pods, "Leases": no_leases, "events": no_events, "what the pods work on": no_pool}
    told = tuple(f"not known: {what}: {why}" for what, why in unknown.items() if why)
    return Shown(agent, own, pods=pods, events=events, pool=pool, unknown=told)


async def find_agent(session: Session, text: str) -> dict[str, Any]:
    """Return the Agent that *text* means: a name, its beginning, or ``agent/name``."""
    from fairlead.cli.kinds import choose
    from fairlead.core import names

    found = await session.kube.list(names.API_VERSION, "Agent", namespace=session.namespace)
    return choose(found, text, what="agent", where=session.namespace)


async def _events(session: Session, namespace: str, known: set[str]) -> list[dict[str, Any]]:
    """Return the events of the Agent and its pods, by their names."""
    found = []
    for kind in ("Agent", "Pod"):
        selector = f"involvedObject.kind={kind}"
        listed = await session.kube.list("v1", "Event", namespace=namespace, field_selector=selector)
        found += [event for event in listed if (event.get("involvedObject") or {}).get("name") in known]
    return found


async def _pool(session: Session, agent: dict[str, Any]) -> dict[str, Any] | None:
    from fairlead.cli.gateway import open_gateway

    async with open_gateway(session) as gateway:
        return await gateway.agent(agent["metadata"]["namespace"], agent["metadata"]["name"])


def _print_description(shown: Shown, now: Any) -> None:
    from fairlead.cli.agentviews import POD_HEADERS, condition_rows, describe_lines, event_rows, pod_rows, task_rows
    from fairlead.cli.printing import print_rows, say

    print_rows([(f"{name}:", value) for name, value in describe_lines(shown, now)])
    sections: tuple[tuple[str, tuple[str, ...], list[list[str]]], ...] = (
        ("Conditions", ("TYPE", "STATUS", "REASON", "FOR", "MESSAGE"), condition_rows(shown.agent, now)),
        ("Pods", POD_HEADERS, pod_rows(shown, now)),
        ("At work", ("POD", "RUN", "NODE", "KIND", "ATTEMPT"), task_rows(shown)),
        ("Events", ("AGO", "TYPE", "REASON", "OBJECT", "MESSAGE"), event_rows(shown.events, now, limit=_EVENTS)),
    )
    for title, headers, rows in sections:
        say(f"\n{title}:" if rows else f"\n{title}: none")
        print_rows([[f"  {row[0]}", *row[1:]] for row in ([headers, *rows] if rows else [])])


@command(
    "drain",
    examples="""
    fairlead agents drain clerk-0 --wait --timeout 10m     # one pod; returns when it has no tasks
    fairlead agents drain clerk                            # all pods that the agent has now
    fairlead agents drain clerk-0 --undo
    """,
)
@click.argument("name", metavar="POD|AGENT", shell_complete=complete_names("agents"))
@click.option("--undo", is_flag=True, help="Let pods that still drain take work again.")
@click.option("--wait", is_flag=True, help="Wait until the pods have no tasks any more, or are gone.")
@click.option("--timeout", type=Duration(), help="Wait no longer than this, as in 90s or 10m (exit code 124).")
@target_options(gateway=True)
def drain(target: Target, *, name: str, undo: bool, wait: bool, timeout: float | None) -> int:
    """Have a pod, or all pods of an agent, take no more work and finish what they have.

    The pool starts others in their place and deletes those that are empty. pod/NAME and agent/NAME tell the two apart.
    """
    from fairlead.cli.session import run_session

    if undo and wait:
        raise click.UsageError("--undo and --wait do not go together: there is nothing to wait for")
    return run_session(target, lambda session: _drain(session, name, undo=undo, seconds=timeout if wait else 0))


async def _drain(session: Session, name: str, *, undo: bool, seconds: float | None) -> int:
    """Ask the pods to drain; *seconds*: how long to wait for it, None: as long as it takes."""
    import asyncio

    from fairlead.cli import exits, printing

    marked = [await _mark(session, lease, undo=undo) for lease in await _find_leases(session, name)]
    for lease in marked:
        printing.say(f"pod/{lease['metadata']['name']} {'takes work again' if undo else 'draining'}")
    if undo or seconds == 0:
        return exits.OK
    waiting = {lease["metadata"]["name"]: lease for lease in marked}
    try:
        async with asyncio.timeout(seconds):
            await _until_idle(session, waiting)
    except TimeoutError:
        printing.hint(f"still at work: {', '.join(sorted(waiting))}; they take nothing new")
        return exits.TIMEOUT
    return exits.OK


async def _mark(session: Session, lease: dict[str, Any], *, undo: bool) -> dict[str, Any]:
    from fairlead.cli.exits import NotFound
    from fairlead.core import names
    from fairlead.kube import Ref

    change = {"metadata": {"annotations": {names.DRAIN_ANNOTATION: None if undo else "true"}}}
    changed = await session.kube.merge_patch(Ref.of(lease), change)
    if changed is None:
        raise NotFound(f"pod {lease['metadata']['name']} is gone")
    return changed


async def _find_leases(session: Session, text: str) -> list[dict[str, Any]]:
    """Return the Leases of what *text* means.

    Raises:
        NotFound: there is no such pod, and no such agent or none of its pods is registered.
        Refused: it could be a pod and an agent, or the agent runs elsewhere.
    """
    from fairlead.cli.agentviews import leases_of
    from fairlead.cli.exits import NotFound
    from fairlead.core import names
    from fairlead.errors import Refused
    from fairlead.kube import Ref

    kind, _, name = text.rpartition("/")
    leases = [one for one in await _list_leases(session, session.namespace) if not _is_external(one)]
    pods = [one for one in leases if one["metadata"]["name"] == name and kind in ("", "pod", "pods")]
    ref = Ref(names.API_VERSION, "Agent", name, session.namespace)
    agent = await session.kube.get(ref) if kind not in ("pod", "pods") else None
    if pods and agent is not None:
        raise Refused(f'"{name}" is a pod and an agent: write pod/{name} or agent/{name}')
    if agent is None and not pods:
        raise NotFound(f'neither a registered pod nor an agent "{name}" in namespace {session.namespace}')
    if agent is not None and agent["spec"].get("external"):
        raise Refused(f"{name} runs elsewhere and has no pods here; to ask it no more: kubectl delete fagent {name}")
    found = pods or leases_of(agent or {}, leases)
    if not found:
        raise NotFound(f"no pod of agent {name} is registered: {program()} agents describe {name}")
    return found


def _is_external(lease: dict[str, Any]) -> bool:
    from fairlead.core import names

    return names.EXTERNAL_LABEL in (lease["metadata"].get("labels") or {})


def drain_state(asked: dict[str, Any], lease: dict[str, Any] | None, pod: dict[str, Any] | None) -> str:
    """Return how far the draining of a pod is: ``gone``, ``idle`` or ``busy``.

    *asked* is its Lease when it was asked: while that has not been renewed, the pod has not heard of it.
    """
    if lease is None or pod is None or pod["podUid"] != asked["spec"]["holderIdentity"]:
        return "gone"
    heard = lease["spec"].get("renewTime") != asked["spec"].get("renewTime")
    return "idle" if heard and not pod["tasks"] else "busy"


async def _until_idle(session: Session, waiting: dict[str, dict[str, Any]]) -> None:
    """Take out of *waiting* every pod that has heard of it and has no tasks any more; return when none is left."""
    from fairlead.cli import printing
    from fairlead.cli.gateway import open_gateway
    from fairlead.kube import Ref

    quiet = dict.fromkeys(waiting, 0)
    async with open_gateway(session) as gateway:
        while True:
            for name, lease in list(waiting.items()):
                pod = await gateway.pod(lease["metadata"]["namespace"], name)
                state = drain_state(lease, await session.kube.get(Ref.of(lease)), pod)
                quiet[name] = quiet[name] + 1 if state == "idle" else 0
                if state == "gone" or quiet[name] >= _QUIET_LOOKS:
                    del waiting[name]
                    printing.say(f"pod/{name} {'gone' if state == 'gone' else 'drained'}")
            if not waiting:
                return
            await session.clock.sleep(_PAUSE)


@command(
    "register",
    examples="""
    fairlead agents register broker --url https://agents.example.com/broker
    fairlead agents register broker --url https://agents.example.com/broker --token-secret broker/token
    """,
)
@click.argument("name")
@click.option("--url", required=True, help="Where its agent card is, or the card's own address (A2A).")
@click.option(
    "--token-secret", default="", metavar="SECRET/KEY", help="The Secret and its key with the token that it asks for."
)
@click.option("--description", default="", help="What it is for, in a sentence.")
@click.option("--no-wait", is_flag=True, help="Do not wait until its card was read.")
@click.option("--timeout", type=Duration(), default=60.0, show_default="60s", help="Wait no longer (exit code 124).")
@target_options()
def register(target: Target, *, name: str, url: str, token_secret: str, description: str, **how: Any) -> int:
    """Register an agent that someone else runs (A2A), so that `agent` nodes can name it.

    It becomes an Agent object, which the gateway probes from then on; again with another URL, it is changed.
    """
    from fairlead.cli.session import run_session

    obj = build_external(name, url=url, token_secret=token_secret, description=description)
    seconds = 0 if how["no_wait"] else how["timeout"]
    return run_session(target, lambda session: _register(session, obj, seconds=seconds))


def build_external(name: str, *, url: str, token_secret: str = "", description: str = "") -> dict[str, Any]:
    """Return the Agent object of an agent that runs elsewhere."""
    from fairlead.core import names

    external: dict[str, Any] = {"url": url}
    if token_secret:
        secret, slash, key = token_secret.partition("/")
        if not (secret and slash and key):
            raise click.UsageError(f'--token-secret "{token_secret}": write SECRET/KEY, as in broker/token')
        external["token"] = {"valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
    spec = {"external": external} | ({"description": description} if description else {})
    return {"apiVersion": names.API_VERSION, "kind": "Agent", "metadata": {"name": name}, "spec": spec}


async def _register(session: Session, obj: dict[str, Any], *, seconds: float) -> int:
    import asyncio

    from fairlead.cli import exits, printing
    from fairlead.cli.apply import apply_objects
    from fairlead.errors import Refused
    from fairlead.kube import Ref

    ref = Ref(obj["apiVersion"], "Agent", obj["metadata"]["name"], session.namespace)
    known = await session.kube.get(ref)
    if known is not None and not known["spec"].get("external"):
        raise Refused(f"there is an agent {ref.name} already, which runs here: choose another name")
    code = await apply_objects(session, [obj], say=printing.say)
    if code != exits.OK or seconds == 0:
        return code
    try:
        async with asyncio.timeout(seconds):
            return await _until_read(session, ref)
    except TimeoutError:
        printing.hint(f"{ref.name} was not asked in time; does the gateway run? {program()} agents describe {ref.name}")
        return exits.TIMEOUT


async def _until_read(session: Session, ref: Any) -> int:
    """Wait until an agent's card was read, or until it is known why it cannot be."""
    from fairlead.cli import exits, printing
    from fairlead.cli.exits import NotFound
    from fairlead.cli.kinds import condition

    while True:
        found = await session.kube.get(ref)
        if found is None:
            raise NotFound(f"agent {ref.name} was deleted")
        ready, stalled = condition(found, "Ready"), condition(found, "Stalled")
        if (found.get("status") or {}).get("observedGeneration") == found["metadata"]["generation"]:
            if ready.get("status") == "True":
                printing.hint(f"{ref.name}: {ready.get('message') or 'ready'}", state="Succeeded")
                return exits.OK
            if stalled.get("status") == "True" or ready.get("reason") in _NOT_READ:
                printing.hint(f"{ref.name} is not ready: {ready.get('reason')}: {ready.get('message')}", state="Failed")
                return exits.INVALID if stalled.get("status") == "True" else exits.FAILED
        await session.clock.sleep(_PAUSE)


for _command in (list_agents, describe, drain, register):
    agents.add_command(_command)
