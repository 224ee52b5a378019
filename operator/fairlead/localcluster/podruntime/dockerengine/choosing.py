"""Decides what runs pods on this machine: its Docker engine, if that and the agent image are there, or processes."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fairlead.errors import TerminalError
from fairlead.localcluster.podruntime.dockerengine.labels import GATEWAY_SOCKET

RUNTIMES: Final = ("auto", "docker", "process")
_SOCKET_PATH: Final = 107
"""The longest path of a Unix socket."""
_LOCAL: Final = "http+docker://"
_LOOK_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class Choice:
    """What runs pods, and why."""

    engine: str
    """``docker`` or ``process``."""
    why: str


class _Unsuitable(Exception):
    """Why pods cannot be containers here; the text is for people."""


def choose(wish: str, *, agent_image: str, gateway: Path) -> Choice:
    """Return what runs pods; talks to the engine.

    Args:
        wish: one of `RUNTIMES`.
        agent_image: what has to be there.
        gateway: the folder for the gateway's socket.

    Raises:
        TerminalError: ``docker`` was asked for, and why it cannot be had.
    """
    if wish == "process":
        return Choice("process", "as asked for")
    try:
        version = _look(agent_image, gateway)
    except _Unsuitable as error:
        if wish == "docker":
            raise TerminalError(f"pods cannot run in Docker here: {error}") from error
        return Choice("process", str(error))
    return Choice("docker", f"Docker {version} and {agent_image} are there")


def _look(agent_image: str, gateway: Path) -> str:
    """Return the version of an engine that can be used."""
    try:
        import docker
        from docker.errors import DockerException, ImageNotFound
        from requests import RequestException
    except ImportError:
        raise _Unsuitable('the library is missing: pip install "fairlead[local]"') from None
    if len(str(gateway / GATEWAY_SOCKET).encode()) > _SOCKET_PATH:
        raise _Unsuitable(f"the path {gateway / GATEWAY_SOCKET} is too long for a socket; use a shorter FAIRLEAD_HOME")
    try:
        client = docker.from_env(timeout=_LOOK_SECONDS)
        if not client.api.base_url.startswith(_LOCAL):
            raise _Unsuitable(f"the engine at {client.api.base_url} is on another machine")
        info = client.info()
        _check_machine(info["Name"], info["OperatingSystem"], kind=info["OSType"])
        client.api.inspect_image(agent_image)  # type: ignore[no-untyped-call]
    except ImageNotFound:
        raise _Unsuitable(f"Docker does not have the image {agent_image}; make image builds it") from None
    except (DockerException, RequestException, OSError) as error:
        raise _Unsuitable(f"no Docker engine answers ({_short(error)})") from error
    return str(info["ServerVersion"])


def _check_machine(name: str, system: str, *, kind: str) -> None:
    """Hold the engine to running on this very machine: only then its containers see our sockets and files."""
    if kind != "linux" or "Docker Desktop" in system or name != platform.node():
        raise _Unsuitable(f"the engine runs in another machine ({name}, {system}), which our sockets do not reach")


def _short(error: Exception) -> str:
    """Return the innermost reason, which is the one that a person can do something about."""
    cause: BaseException = error
    while (deeper := cause.__cause__ or cause.__context__) is not None:
        cause = deeper
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
