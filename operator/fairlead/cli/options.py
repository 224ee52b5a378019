"""Options that commands share, and what they mean together."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

HOME_DEFAULT: Final = "~/.fairlead"
FORMATS: Final = ("table", "wide", "name", "json", "yaml")


@dataclass(frozen=True, slots=True)
class Target:
    """Which cluster is meant, and where in it."""

    home: Path
    kubeconfig: str = ""
    """What was asked for: a path, or several as in ``KUBECONFIG``; empty: see `session.find_kubeconfig`."""
    context: str = ""
    namespace: str = ""
    all_namespaces: bool = False
    gateway: str = ""


home_option = click.option(
    "--home",
    envvar="FAIRLEAD_HOME",
    default=HOME_DEFAULT,
    show_default=True,
    show_envvar=True,
    type=click.Path(path_type=Path, file_okay=False),
    callback=lambda _ctx, _param, value: value.expanduser(),
    help="The folder that everything of laptop mode lives in.",
)

output_option = click.option(
    "-o", "--output", "fmt", type=click.Choice(FORMATS), default="table", show_default=True, help="How it is printed."
)

_TARGET_OPTIONS: Final = (
    click.option("-n", "--namespace", default="", help="The namespace; default: that of the kubeconfig's context."),
    click.option("--context", default="", help="A context of the kubeconfig; default: its current one."),
    click.option(
        "--kubeconfig",
        envvar="KUBECONFIG",
        show_envvar=True,
        default="",
        help="The cluster; default: the Fairlead that runs on this machine, else ~/.kube/config.",
    ),
    home_option,
)
_ALL: Final = click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces.")
_GATEWAY: Final = click.option(
    "--gateway",
    envvar="FAIRLEAD_GATEWAY_URL",
    show_envvar=True,
    default="",
    help="The gateway's URL; default: that of this machine's Fairlead, else a port-forward to the cluster's.",
)


def target_options(*, everywhere: bool = False, gateway: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that adds the options and passes them to the command as *target*.

    Args:
        everywhere: with ``-A``.
        gateway: with ``--gateway``.
    """

    def decorate(command: Callable[..., Any]) -> Any:
        @functools.wraps(command)
        def with_target(**given: Any) -> Any:
            names = ("home", "kubeconfig", "context", "namespace", "all_namespaces", "gateway")
            target = Target(**{name: given.pop(name) for name in names if name in given})
            return command(target=target, **given)

        options = [*_TARGET_OPTIONS, *([_ALL] if everywhere else []), *([_GATEWAY] if gateway else [])]
        decorated: Any = with_target
        for option in options:
            decorated = option(decorated)
        return decorated

    return decorate


def program() -> str:
    """Return the name that the user called this program by."""
    context = click.get_current_context(silent=True)
    return (context.find_root().info_name if context is not None else None) or "fairlead"
