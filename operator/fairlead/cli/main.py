"""``fairlead``, also installed as ``kubectl-fairlead``: finds the command and turns errors into exit codes."""

from __future__ import annotations

import importlib
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from fairlead import __version__
from fairlead.cli import exits
from fairlead.errors import FairleadError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Entry(NamedTuple):
    """Where a command is, and what the list of commands says of it."""

    module: str
    summary: str


GROUPS: Final[dict[str, dict[str, Entry]]] = {
    "This machine": {
        "demo": Entry("demo", "Start Fairlead here and run the quickstart."),
        "up": Entry("local", "Start Fairlead on this machine: Kubernetes API, gateway, operator, pods."),
        "down": Entry("local", "Stop what `up` started."),
        "status": Entry("local", "Show what runs on this machine."),
        "backup": Entry("backup", "Write a consistent copy of this machine's state to one file."),
    },
    "Workflows": {
        "validate": Entry("validate", "Check files: schema, graph, expressions, references."),
        "plan": Entry("planning", "Show what a run would do, need and cost; nothing is called."),
        "apply": Entry("apply", "Apply files, folders or standard input, on the server's side."),
        "get": Entry("get", "List objects, or show one."),
        "run": Entry("run", "Start a run of a workflow, and watch it if asked to."),
    },
    "Runs": {
        "wait": Entry("wait", "Wait until a run has ended, or until a person has to decide."),
        "output": Entry("reading", "Print what a run put out."),
        "logs": Entry("reading", "Print a run's log."),
        "trace": Entry("tracing", "Show where a run's time and money went, step by step."),
        "cost": Entry("costing", "Show what was spent, by workflow, model, day, node and more."),
        "profile": Entry("profiling", "Show what a run, or a workflow's runs, spent their time on."),
        "stop": Entry("steer", "Stop a run."),
        "suspend": Entry("steer", "Pause a run after what it is doing now."),
        "resume": Entry("steer", "Go on with a suspended run."),
        "rerun": Entry("rerun", "Run again, with the results of an earlier run that still hold."),
    },
    "Approvals": {
        "approvals": Entry("approve", "List what waits for a person's decision."),
        "approve": Entry("approve", "Say yes to what a run asks."),
        "reject": Entry("approve", "Say no to what a run asks."),
    },
    "Agents": {
        "agents": Entry("agents", "List and describe agents, drain their pods, register those that run elsewhere."),
    },
    "More": {
        "doctor": Entry("doctor", "Check this installation and say what to do about what is wrong."),
        "completion": Entry("completion", "Print the completion script of a shell."),
        "exit-codes": Entry("exits", "List what the exit codes mean."),
    },
}
_ENTRIES: Final = {name: entry for group in GROUPS.values() for name, entry in group.items()}


class LazyGroup(click.Group):
    """A group that knows its commands' names and summaries, and imports a command's module when it is called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names, in the order of the list."""
        return list(_ENTRIES)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        """Import a command."""
        entry = _ENTRIES.get(name)
        if entry is None:
            return None
        module = importlib.import_module(f"fairlead.cli.{entry.module}")
        command: click.Command = getattr(module, name.replace("-", "_"))
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer commands without importing them."""
        from click.shell_completion import CompletionItem

        items = [CompletionItem(name, help=entry.summary) for name, entry in _ENTRIES.items()]
        found = [item for item in items if str(item.value).startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list without importing anything."""
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.summary) for name, entry in commands.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and suggest one for a name that is none."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            close = difflib.get_close_matches(args[0], _ENTRIES, 1)
            if close:
                raise click.UsageError(f'{error.message} Did you mean "{close[0]}"?', ctx) from error
            raise


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="fairlead %(version)s")
@click.option("--no-color", envvar="NO_COLOR", default="", hidden=True, is_flag=False, flag_value="1")
@click.option("--term", envvar="TERM", default="", hidden=True)
@click.pass_context
def cli(ctx: click.Context, no_color: str, term: str) -> None:
    """Run workflows of AI agents the way Kubernetes runs everything else."""
    if no_color or term == "dumb":
        ctx.color = False
    ctx.meta["fairlead.cli.dumb"] = term == "dumb"


def program_name(argument: str) -> str:
    """Return what the program is called in its own messages: kubectl calls its plugins by their file name."""
    return "kubectl fairlead" if PurePath(argument).name.startswith("kubectl-") else "fairlead"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments, name=program_name(sys.argv[0])))


def run(arguments: list[str], *, name: str = "fairlead") -> int:
    """Run the command line; return the exit code."""
    try:
        code: Any = cli.main(arguments, prog_name=name, standalone_mode=False)
    except (
        click.exceptions.Exit,
        click.ClickException,
        click.Abort,
        KeyboardInterrupt,
        OSError,
        FairleadError,
    ) as error:
        return exits.explain(error)
    return code if isinstance(code, int) else exits.OK


if __name__ == "__main__":
    main()
