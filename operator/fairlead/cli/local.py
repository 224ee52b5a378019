"""``up``, ``down``, ``status``: Fairlead on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fairlead.cli import exits
from fairlead.cli.options import command, home_option, image_option, program, runtime_option

if TYPE_CHECKING:
    from fairlead.localcluster.supervisor.home import Home


@dataclass(frozen=True, slots=True)
class Wish:
    """How a home is to be started."""

    ports: Mapping[str, int] = field(default_factory=dict)
    runtime: str = "auto"
    agent_image: str = "fairlead-agent:0.1.0"


@command(
    examples="""
    fairlead up --detach
    fairlead up                                # Ctrl-C stops it
    fairlead up --runtime process              # without containers, also where Docker is
    FAIRLEAD_HOME=/tmp/try fairlead up -d      # another one beside it, with a home of its own
    """
)
@home_option
@click.option("--detach", "-d", is_flag=True, help="Return when everything is ready; `down` ends it.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the Kubernetes API; remembered.")
@click.option("--gateway-port", type=click.IntRange(1, 65535), help="Port of the gateway; remembered.")
@click.option("--operator-port", type=click.IntRange(1, 65535), help="Port of the operator's probes; remembered.")
@runtime_option
@image_option
def up(home: Path, *, detach: bool, runtime: str, agent_image: str, **given: int | None) -> int:
    """Start Fairlead on this machine: a Kubernetes API, the gateway, the operator and a pod runtime.

    Everything lives in one folder. Started again after a crash, it goes on where it was, on the same ports.
    """
    names = {"port": "apiserver", "gateway_port": "gateway", "operator_port": "operator"}
    ports = {names[option]: number for option, number in given.items() if number is not None}
    return bring_up(home, Wish(ports, runtime, agent_image), detach=detach)


@click.command()
@home_option
def down(home: Path) -> int:
    """Stop what `up` started in this home. Nothing is deleted; `up` goes on from there."""
    import asyncio

    from fairlead.clock import SystemClock
    from fairlead.localcluster.supervisor.down import stop_home

    place = _home(home)
    if place.locked():
        click.echo("… stopping Fairlead", err=True)
    stopped = asyncio.run(stop_home(place, SystemClock()))
    click.echo(f"Fairlead is stopped ({home})" if stopped else f"Fairlead does not run in {home}", err=True)
    return exits.OK


@click.command()
@home_option
def status(home: Path) -> int:
    """Show what runs on this machine; exit code 1 if nothing does."""
    from fairlead.localcluster.supervisor.home import State

    place = _home(home)
    state = State.read(place)
    running = state.supervisor is not None and state.supervisor.alive()
    click.echo(f"home        {home}")
    click.echo(f"state       {('ready' if state.ready else 'starting') if running else 'stopped'}")
    for name, child in state.children.items():
        port = f"  127.0.0.1:{state.ports[name]}" if name in state.ports else ""
        click.echo(f"{name:<11} {'running' if child.alive() else 'stopped'}  pid {child.pid}{port}")
    if running:
        click.echo(f"pods        {state.engine}")
        click.echo(f"kubeconfig  {place.kubeconfig}")
    return exits.OK if running else exits.FAILED


def bring_up(home: Path, wish: Wish, *, detach: bool) -> int:
    """Start a home and say what to do next; in the foreground, return when it has ended."""
    place = _home(home)
    if place.locked():
        click.echo(f"Fairlead is already running in {home}", err=True)
        _next_steps(place, running_in_front=False)
        return exits.OK
    if detach:
        start_detached(place, wish)
        _next_steps(place, running_in_front=False)
        return exits.OK
    return _run_in_front(place, wish)


def _run_in_front(home: Home, wish: Wish) -> int:
    import asyncio

    from fairlead.clock import SystemClock
    from fairlead.localcluster.supervisor.supervisor import Options, Supervisor
    from fairlead.logs import setup
    from fairlead.settings import child_environment

    setup(level="WARNING", fmt="console")
    options = Options(home, child_environment, wish.ports, wish.agent_image, wish.runtime)
    supervisor = Supervisor(options, SystemClock(), show)
    asyncio.run(supervisor.run(lambda: _next_steps(home, running_in_front=True)))
    return exits.OK


def start_detached(home: Home, wish: Wish, *, report: Callable[[str, str], None] | None = None) -> None:
    """Start a home's supervisor and return when everything is ready.

    Raises:
        TerminalError: it could not start, and why.
    """
    import os
    import subprocess

    import orjson

    from fairlead.errors import TerminalError

    home.create()
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "fairlead.localcluster.supervisor", "--home", str(home.root)]
    command += [f"--port={name}={number}" for name, number in wish.ports.items()]
    command += ["--runtime", wish.runtime, "--agent-image", wish.agent_image]
    log_file = os.open(home.logs / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(log_file, "ab") as log:
        subprocess.Popen(  # noqa: S603 - our own program
            [*command, "--report-fd", str(writer)],
            pass_fds=[writer],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    os.close(writer)
    with os.fdopen(reader, "rb") as reports:
        for line in reports:
            document = orjson.loads(line)
            if document["kind"] == "ready":
                return
            if document["kind"] == "error":
                raise TerminalError(document["text"])
            (report or show)(document["kind"], document["text"])
    raise TerminalError(f"Fairlead ended while it was starting; see {home.logs / 'supervisor.log'}")


def show(kind: str, text: str) -> None:
    """Print one report of the supervisor."""
    mark = "✓" if kind == "done" else "…"
    click.echo(f"{mark} {text}", err=True)


def _next_steps(home: Home, *, running_in_front: bool) -> None:
    name = program()
    stop = "Ctrl-C stops it." if running_in_front else f"Stop it: {name} down"
    click.echo(
        f"\nFairlead is ready. {stop}\n"
        f"  export KUBECONFIG={home.kubeconfig}\n"
        f"  kubectl apply -f workflow.yaml     or: {name} demo",
        err=True,
    )


def _home(path: Path) -> Home:
    from fairlead.localcluster.supervisor.home import Home

    return Home(path.expanduser().resolve())
