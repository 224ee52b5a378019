"""What the pod's environment says. The only place of the agent that reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HELP: Final = """\
Usage: python -m fairlead_agent [--version] [--help]

Runs in an agent pod: registers with the gateway, pulls work, executes it, hands it back when told to end.

Environment:
  FAIRLEAD_GATEWAY_URL     where the gateway is, for example https://gateway.fairlead-system.svc (required)
  FAIRLEAD_GATEWAY_SOCKET  a Unix socket to reach it through, for a pod without a network; empty: none
  FAIRLEAD_GATEWAY_CA      PEM text of the authority that signed its certificate; empty: those of the system
  FAIRLEAD_TOKEN_FILE      the pod's projected token (/var/run/secrets/fairlead.dev/token)
  FAIRLEAD_CONCURRENCY     how many tasks at once (1)
  FAIRLEAD_DRAIN_SECONDS   how long tasks may go on after SIGTERM before they are handed back (20)
  FAIRLEAD_REFUSE_ROOT     set in the image: it does not start as root; empty: whoever starts it is right

It ends with exit code 2 if the environment is not usable, with 3 if it does not speak the gateway's protocol.
"""
_TOKEN_FILE: Final = "/var/run/secrets/fairlead.dev/token"  # noqa: S105 - a path


_LANGGRAPH: Final = {
    "LANGGRAPH_STRICT_MSGPACK": "true",
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
}
"""Whatever the pod's environment says: no type is made because stored bytes name it, and nothing is sent to anybody."""


class SettingsError(ValueError):
    """The environment is not usable; the text says what to set."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How this pod works."""

    gateway_url: str
    gateway_ca: str
    gateway_socket: str
    """A Unix socket that leads to it; empty: none, the URL's address does."""
    token_file: Path
    concurrency: int
    drain_seconds: float


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from *environment* (the process's own when None).

    Raises:
        SettingsError: something is missing or no number, or this is root and must not be.
    """
    env = os.environ if environment is None else environment
    if env.get("FAIRLEAD_REFUSE_ROOT") and os.geteuid() == 0:
        raise SettingsError("this image does not run as root: leave it its own user (10001), or give another but 0")
    url = env.get("FAIRLEAD_GATEWAY_URL", "").rstrip("/")
    if not url.startswith("https://"):
        raise SettingsError("FAIRLEAD_GATEWAY_URL must be the https:// address of the gateway")
    token_file = env.get("FAIRLEAD_TOKEN_FILE") or _TOKEN_FILE
    return Settings(
        gateway_url=url,
        gateway_ca=env.get("FAIRLEAD_GATEWAY_CA", ""),
        gateway_socket=env.get("FAIRLEAD_GATEWAY_SOCKET", ""),
        token_file=_mounted(token_file, env.get("CONTAINER_SANDBOX_MOUNT_POINT", "")),
        concurrency=int(_number(env, "FAIRLEAD_CONCURRENCY", default=1, low=1, high=1000)),
        drain_seconds=_number(env, "FAIRLEAD_DRAIN_SECONDS", default=20, low=0, high=86_400),
    )


def settle_langgraph() -> None:
    """Tell LangGraph, before anything imports it, what holds in every agent."""
    os.environ.update(_LANGGRAPH)


def _mounted(path: str, mount_point: str) -> Path:
    """Return where *path* is; without a mount namespace of its own the pod's volumes lie below *mount_point*."""
    return Path(mount_point) / path.lstrip("/") if mount_point else Path(path)


def _number(env: Mapping[str, str], name: str, *, default: float, low: float, high: float) -> float:
    text = env.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise SettingsError(f"{name} must be a number from {low:g} to {high:g}, not {text!r}")
    return value
