"""Options that commands share, what they mean together, and how commands teach."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

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


class Command(click.Command):
    """A command whose help keeps apart what it does and where, and ends with examples."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, and below them those that say which cluster is meant."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        found = [(option.name, record) for option in options if (record := option.get_help_record(ctx))]
        for title, where in (("Options", False), ("Which cluster", True)):
            rows = [record for name, record in found if (name in _TARGET_NAMES) is where]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        _write_examples(self.examples, ctx, formatter)


class Group(click.Group):
    """A command with commands of its own, whose help ends with examples."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names in the order in which they were written."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list with whole sentences."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, self.commands[name].get_short_help_str(200)) for name in self.list_commands(ctx)]
            )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        _write_examples(self.examples, ctx, formatter)


def _write_examples(examples: str, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write the examples as they stand, under the name that the program was called by."""
    if not examples:
        return
    name = ctx.find_root().info_name or "fairlead"
    with formatter.section("Examples"):
        for line in examples.strip().splitlines():
            text = line.strip()
            formatter.write(f"  {text.replace('fairlead', name, 1) if text.startswith('fairlead') else text}\n")


def command(name: str | None = None, *, examples: str = "") -> Callable[[Callable[..., Any]], click.Command]:
    """Return a decorator that makes a command whose help ends with *examples*: one to a line, a comment behind it."""
    return click.command(name, cls=Command, examples=examples)


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

runtime_option = click.option(
    "--runtime",
    envvar="FAIRLEAD_RUNTIME",
    default="auto",
    show_default=True,
    show_envvar=True,
    type=click.Choice(("auto", "docker", "process")),
    help="What runs pods; auto: Docker, where its engine and the agent image are on this machine.",
)
image_option = click.option(
    "--agent-image",
    envvar="FAIRLEAD_AGENT_IMAGE",
    default="fairlead-agent:0.1.0",
    show_default=True,
    show_envvar=True,
    help="The image of agents' containers.",
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
_TARGET_NAMES: Final = ("home", "kubeconfig", "context", "namespace", "all_namespaces", "gateway")


def target_options(*, everywhere: bool = False, gateway: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that adds the options and passes them to the command as *target*.

    Args:
        everywhere: with ``-A``.
        gateway: with ``--gateway``.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def with_target(**given: Any) -> Any:
            target = Target(**{name: given.pop(name) for name in _TARGET_NAMES if name in given})
            return function(target=target, **given)

        options = [*_TARGET_OPTIONS, *([_ALL] if everywhere else []), *([_GATEWAY] if gateway else [])]
        decorated: Any = with_target
        for option in options:
            decorated = option(decorated)
        return decorated

    return decorate


def complete_names(plural: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return what completes the names of Fairlead's objects of one kind: those of the cluster that is meant."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from fairlead.cli.completion import object_names

        known = {name: ctx.params[name] for name in _TARGET_NAMES if ctx.params.get(name)}
        target = Target(**{"home": Path(HOME_DEFAULT).expanduser(), **known})
        return [CompletionItem(name) for name in object_names(target, plural) if name.startswith(incomplete)]

    return complete


def run_argument(*, default: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the argument RUN: a name, its beginning, or ``@latest``; without *default* it has to be given."""
    # To click a default of None is one, too.
    given: dict[str, Any] = {} if default is None else {"default": default, "required": False}
    return click.argument("run", shell_complete=complete_names("workflowruns"), **given)


def program() -> str:
    """Return the name that the user called this program by."""
    context = click.get_current_context(silent=True)
    return (context.find_root().info_name if context is not None else None) or "fairlead"
