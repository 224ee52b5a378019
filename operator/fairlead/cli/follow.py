"""Follows a run until it has ended: watched, by its log, or silently."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from fairlead.cli import exits
from fairlead.cli.durations import Duration
from fairlead.cli.options import program

if TYPE_CHECKING:
    from fairlead.cli.gateway import GatewayReader
    from fairlead.cli.progress import NodeLine, Plan
    from fairlead.cli.session import Session
    from fairlead.cli.views import View

_PAUSE: Final = 0.3
_WAIT_PAUSE: Final = 0.5
_PATIENCE: Final = 60.0
"""Seconds that an API server may be away before following a run is given up."""


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


_OPTIONS: Final = (
    click.option(
        "--timeout",
        type=Duration(),
        help="Wait no longer than this: 90s, 10m (exit code 124); the run goes on.",
    ),
    click.option("--logs", is_flag=True, help="Print the run's log until it has ended."),
    click.option("--watch", is_flag=True, help="Show the nodes until the run has ended."),
    click.option("--wait", is_flag=True, help="Return when the run has ended; the exit code says how."),
)


def follow_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options and pass them to the command as *how*."""

    @functools.wraps(function)
    def with_how(*, wait: bool, watch: bool, logs: bool, timeout: float | None, **given: Any) -> Any:
        # A limit on waiting asks for waiting.
        waits = wait or (timeout is not None and not (watch or logs))
        return function(how=Follow(waits, watch, logs, timeout), **given)

    decorated: Callable[..., Any] = with_how
    for option in _OPTIONS:
        decorated = option(decorated)
    return decorated


async def accompany(session: Session, made: dict[str, Any], how: Follow) -> int:
    """Do after a run was created what was asked for; return the exit code."""
    import asyncio

    from fairlead.cli import printing

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
    return conclude(ended)


def conclude(ended: Mapping[str, Any]) -> int:
    """Say how a run ended and what to do next; return the exit code."""
    from fairlead.cli import printing

    good = _succeeded(ended).get("status") == "True"
    printing.hint(summary(ended), state="Succeeded" if good else "Failed")
    if not good:
        name, command = ended["metadata"]["name"], program()
        again = f"{command} rerun {name} --watch"
        look = f"Look: {command} logs {name}    Again from there: {again}" if began(ended) else f"Again: {again}"
        printing.hint(f"  {look}")
    return exit_code(ended)


async def _follow(session: Session, made: dict[str, Any], how: Follow) -> dict[str, Any]:
    import asyncio

    from fairlead.cli.gateway import open_gateway
    from fairlead.cli.reading import print_logs
    from fairlead.cli.views import choose_view

    if not (how.watch or how.logs):
        return await wait_for_run(session, made)
    async with open_gateway(session) as gateway:
        if how.watch:
            return await follow_run(session, gateway, made, choose_view(session.clock))
        printing = asyncio.create_task(print_logs(session, gateway, made["metadata"], follow=True))
        try:
            ended = await wait_for_run(session, made)
            await printing
        finally:
            printing.cancel()
    return ended


async def wait_for_run(session: Session, run: Mapping[str, Any]) -> dict[str, Any]:
    """Wait until a run has ended, by its object alone; return the object."""
    from fairlead.cli.kinds import condition

    while True:
        found = await read_object(session, run)
        if found is None or condition(found, "Finished").get("status") == "True":
            return found or dict(run)
        await session.clock.sleep(_WAIT_PAUSE)


async def follow_run(session: Session, gateway: GatewayReader, run: Mapping[str, Any], view: View) -> dict[str, Any]:
    """Show a run until it has ended; return its object."""
    from fairlead.cli.kinds import condition
    from fairlead.cli.progress import node_lines

    plan = await plan_of(session, run)
    obj = dict(run)
    try:
        while True:
            before = session.clock.monotonic()
            finished = condition(obj, "Finished").get("status") == "True"
            record, approvals = await _observe(gateway, run)
            now = None if finished else session.clock.now()
            lines = node_lines(plan, record.get("nodes") or (), approvals=approvals, now=now) if record else []
            view.show(title_of(obj, record), [*lines, *([_how_to_decide(obj)] if approvals else [])])
            if finished:
                return obj
            took = session.clock.monotonic() - before
            await session.clock.sleep(max(_PAUSE, 3 * took))
            found = await read_object(session, run)
            if found is None:
                return obj
            obj = found
    finally:
        view.close()


def _how_to_decide(run: Mapping[str, Any]) -> NodeLine:
    from fairlead.cli.progress import NodeLine

    name, command = run["metadata"]["name"], program()
    return NodeLine(f"say yes: {command} approve {name}    all of it: {command} approvals {name}", 0, "Note")


async def _observe(gateway: GatewayReader, run: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the gateway's record and what it waits for; nothing while there is none, or the gateway starts again."""
    from fairlead.errors import RetryableError

    meta = run["metadata"]
    try:
        record = await gateway.find(meta["namespace"], meta["uid"], outputs=False) or {}
        asked = await gateway.approvals(meta["namespace"], meta["uid"]) if record.get("pendingApprovals") else []
    except RetryableError:
        return {}, []
    return record, [approval for approval in asked if approval["state"] == "Pending"]


async def read_object(session: Session, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a run's object as it is now; None if it was deleted. An API server that is started again is waited for.

    Raises:
        RetryableError: it has not answered for a minute.
    """
    from fairlead.core import names
    from fairlead.errors import RetryableError
    from fairlead.kube import Ref

    meta = run["metadata"]
    ref = Ref(names.API_VERSION, "WorkflowRun", meta["name"], meta["namespace"])
    patience = session.clock.monotonic() + _PATIENCE
    while True:
        try:
            found = await session.kube.get(ref)
            break
        except RetryableError:
            if session.clock.monotonic() >= patience:
                raise
            await session.clock.sleep(_WAIT_PAUSE)
    return found if found is not None and found["metadata"]["uid"] == meta["uid"] else None


async def plan_of(session: Session, run: Mapping[str, Any]) -> Plan:
    """Return the nodes of a run's workflow, and of those in it, with how deep each is."""
    from fairlead.cli.progress import plan_depths

    namespace = run["metadata"]["namespace"]
    spec = run["spec"].get("workflow") or {}
    if "workflowRef" in run["spec"]:
        spec = await _workflow(session, run["spec"]["workflowRef"]["name"], namespace)
    inner: dict[str, dict[str, Any]] = {}
    open_ = [spec]
    while open_:
        nodes = open_.pop().get("nodes") or ()
        for name in {node["workflow"]["name"] for node in nodes if node.get("workflow")} - set(inner):
            inner[name] = await _workflow(session, name, namespace)
            open_.append(inner[name])
    return plan_depths(spec, inner)


async def _workflow(session: Session, name: str, namespace: str) -> dict[str, Any]:
    from fairlead.core import names
    from fairlead.kube import Ref

    found = await session.kube.get(Ref(names.API_VERSION, "Workflow", name, namespace))
    return dict((found or {}).get("spec") or {})


def title_of(run: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Return the line above the nodes."""
    from fairlead.cli.printing import money
    from fairlead.redaction import visible

    succeeded = _succeeded(run)
    status = run.get("status") or {}
    parts = [str(run["metadata"]["name"]), succeeded.get("reason") or "Pending"]
    if record:
        parts += [f"{record.get('done', 0)}/{record.get('total', 0)}", money((record.get("cost") or {}).get("total"))]
        parts += [f"{record['reused']} reused"] if record.get("reused") else []
        parts += ["suspended"] if record.get("suspended") and not status.get("duration") else []
    elif succeeded.get("message"):
        parts.append(succeeded["message"])
    return visible("  ".join(str(part) for part in (*parts, status.get("duration") or "") if part))


def summary(run: Mapping[str, Any]) -> str:
    """Return how a run ended: a line, and a second one that says why if it is not as it should."""
    from fairlead.cli.printing import money

    succeeded = _succeeded(run)
    status = run.get("status") or {}
    cost = money(status["cost"].get("total")) if status.get("cost") else None
    reused = f"{status['reused']} reused" if status.get("reused") else None
    parts = (succeeded.get("reason") or "Unknown", status.get("progress"), reused, status.get("duration"), cost)
    line = "  ".join([str(run["metadata"]["name"]), *(str(part) for part in parts if part)])
    message = succeeded.get("message") or ""
    return f"{line}\n  {message}" if succeeded.get("status") != "True" and message else line


def began(run: Mapping[str, Any]) -> bool:
    """Return whether a run was accepted: of one that was not, history has nothing."""
    return bool((run.get("status") or {}).get("startTime"))


def exit_code(run: Mapping[str, Any]) -> int:
    """Return the exit code of a run that has ended."""
    succeeded = _succeeded(run)
    return exits.run_exit_code(succeeded.get("reason", ""), succeeded=succeeded.get("status") == "True")


def _succeeded(run: Mapping[str, Any]) -> dict[str, Any]:
    from fairlead.cli.kinds import condition

    return condition(dict(run), "Succeeded")
