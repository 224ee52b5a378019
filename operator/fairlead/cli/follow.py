"""Follows a run until it has ended: as a tree on a terminal, as lines anywhere else, or silently."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import click

from fairlead.cli import exits
from fairlead.cli.gateway import GatewayReader
from fairlead.cli.kinds import condition
from fairlead.cli.printing import money, styled
from fairlead.cli.progress import NodeLine, node_lines, plan_depths
from fairlead.cli.session import Session
from fairlead.core import names
from fairlead.errors import RetryableError
from fairlead.kube import Ref
from fairlead.logs import visible

_PAUSE: Final = 0.3
_WAIT_PAUSE: Final = 0.5
_PATIENCE: Final = 60.0
"""Seconds that an API server may be away before following a run is given up."""
_SILENT_SECONDS: Final = 2.0


class View(Protocol):
    """Shows how a run is getting on."""

    def show(self, title: str, lines: Sequence[NodeLine]) -> None:
        """Show the nodes as they are now."""

    def close(self) -> None:
        """Show no more."""


@dataclass(slots=True)
class Lines:
    """One line for each change, for logs and pipes."""

    clock: Any
    _seen: dict[str, str] = field(default_factory=dict)
    _title: str = ""

    def show(self, title: str, lines: Sequence[NodeLine]) -> None:
        """Print what has changed."""
        now = self.clock.now().strftime("%H:%M:%SZ")
        if title != self._title and not lines:
            click.echo(f"{now}  {title}", err=True)
        self._title = title
        for line in lines:
            if line.state != "Pending" and self._seen.get(line.name) != line.state:
                self._seen[line.name] = line.state
                click.echo(f"{now}  {line.state:<9}  {line.text()}", err=True)

    def close(self) -> None:
        """Show no more."""


@dataclass(slots=True)
class Tree:
    """The whole plan in place, never higher than the terminal."""

    _height: int = 0

    def show(self, title: str, lines: Sequence[NodeLine]) -> None:
        """Draw the plan over what was drawn before."""
        columns, rows = shutil.get_terminal_size()
        drawn = [title, *(self._line(line) for line in fitted(lines, rows - 3))]
        click.echo("".join(f"\x1b[2K{cut(text, columns)}\n" for text in self._start(drawn)), nl=False, err=True)
        self._height = len(drawn)

    def close(self) -> None:
        """Leave the last picture where it is."""
        self._height = 0

    def _start(self, drawn: list[str]) -> list[str]:
        if self._height:
            click.echo(f"\x1b[{self._height}A", nl=False, err=True)
        return drawn + [""] * max(0, self._height - len(drawn))

    @staticmethod
    def _line(line: NodeLine) -> str:
        return "  " * (line.depth + 1) + styled(line.state, line.text())


def fitted(lines: Sequence[NodeLine], rows: int) -> list[NodeLine]:
    """Return as many lines as there is room for: what is going on first, the rest in one line at the end."""
    if len(lines) <= rows or rows < 1:
        return list(lines)
    busy = [line for line in lines if line.state in ("Running", "Retrying", "Failed")]
    kept = (busy + [line for line in lines if line not in busy])[: rows - 1]
    rest = len(lines) - len(kept)
    return [*[line for line in lines if line in kept], NodeLine(f"… and {rest} more nodes", 0, "")]


def cut(text: str, columns: int) -> str:
    """Return as much of a line as fits, without cutting into what colours it."""
    plain = click.unstyle(text)
    return text if len(plain) < columns else plain[: columns - 1]


def choose_view(clock: Any) -> View:
    """Return a tree on a terminal, lines elsewhere."""
    return Tree() if sys.stderr.isatty() else Lines(clock)


async def wait_for_run(session: Session, run: Mapping[str, Any]) -> dict[str, Any]:
    """Wait until a run has ended, by its object alone; return the object."""
    while True:
        found = await read_object(session, run)
        if found is None or condition(found, "Finished").get("status") == "True":
            return found or dict(run)
        await session.clock.sleep(_WAIT_PAUSE)


async def follow_run(session: Session, gateway: GatewayReader, run: Mapping[str, Any], view: View) -> dict[str, Any]:
    """Show a run until it has ended; return its object."""
    depths = await plan_of(session, run)
    obj: dict[str, Any] = dict(run)
    try:
        while True:
            before = session.clock.monotonic()
            finished = condition(obj, "Finished").get("status") == "True"
            record = await _record(gateway, run)
            lines = node_lines(depths, record.get("nodes") or ()) if record else []
            view.show(title_of(obj, record), lines)
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


async def _record(gateway: GatewayReader, run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the gateway's record; nothing while it has none, or while the gateway is started again."""
    meta = run["metadata"]
    try:
        return await gateway.find(meta["namespace"], meta["uid"]) or {}
    except RetryableError:
        return {}


async def read_object(session: Session, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a run's object as it is now; None if it was deleted. An API server that is started again is waited for.

    Raises:
        RetryableError: it has not answered for a minute.
    """
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


async def plan_of(session: Session, run: Mapping[str, Any]) -> dict[str, int]:
    """Return the nodes of a run's workflow and how deep each is."""
    spec = run["spec"].get("workflow")
    if spec is None and "workflowRef" in run["spec"]:
        ref = Ref(names.API_VERSION, "Workflow", run["spec"]["workflowRef"]["name"], run["metadata"]["namespace"])
        spec = ((await session.kube.get(ref)) or {}).get("spec")
    return plan_depths(spec or {})


def title_of(run: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Return the line above the nodes."""
    succeeded = condition(dict(run), "Succeeded")
    reason = succeeded.get("reason") or "Pending"
    status = run.get("status") or {}
    parts = [str(run["metadata"]["name"]), reason]
    if record:
        parts += [f"{record.get('done', 0)}/{record.get('total', 0)}", money((record.get("cost") or {}).get("total"))]
    elif succeeded.get("message"):
        parts.append(succeeded["message"])
    return visible("  ".join(str(part) for part in (*parts, status.get("duration") or "") if part))


def summary(run: Mapping[str, Any]) -> str:
    """Return how a run ended, in a line."""
    succeeded = condition(dict(run), "Succeeded")
    state = "Succeeded" if succeeded.get("status") == "True" else "Failed"
    status = run.get("status") or {}
    cost = money((status.get("cost") or {}).get("total"))
    parts = (succeeded.get("reason") or "Unknown", status.get("progress"), status.get("duration"), cost)
    line = "  ".join([str(run["metadata"]["name"]), *(str(part) for part in parts if part)])
    message = visible(succeeded.get("message") or "")
    return styled(state, line) + (f"\n  {message}" if state == "Failed" and message else "")


def exit_code(run: Mapping[str, Any]) -> int:
    """Return the exit code of a run that has ended."""
    succeeded = condition(dict(run), "Succeeded")
    return exits.run_exit_code(succeeded.get("reason", ""), succeeded=succeeded.get("status") == "True")
