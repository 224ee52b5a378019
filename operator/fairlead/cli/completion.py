"""``completion``: scripts for shells; and the protocol with which kubectl asks a plugin."""

from __future__ import annotations

import sys
from typing import Final

import click

_SHELLS: Final = ("bash", "zsh", "fish")
_NO_FILES: Final = 4
"""kubectl's (cobra's) directive: offer no file names."""
_HINTS: Final = {
    "bash": 'eval "$(fairlead completion bash)"      in ~/.bashrc',
    "zsh": 'eval "$(fairlead completion zsh)"       in ~/.zshrc, after compinit',
    "fish": "fairlead completion fish | source       in ~/.config/fish/config.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> int:
    """Print the completion script of a shell; `kubectl fairlead` is completed by kubectl itself."""
    from click.shell_completion import get_completion_class

    from fairlead.cli import exits
    from fairlead.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - one of the three
    click.echo(found(cli, {}, "fairlead", "_FAIRLEAD_COMPLETE").source())
    if sys.stdout.isatty():
        click.echo(f"# {_HINTS[shell]}", err=True)
    return exits.OK


def complete(words: list[str]) -> list[tuple[str, str]]:
    """Return what could follow *words*, whose last is the one that is being written, with a description of each."""
    from click.shell_completion import ShellComplete

    from fairlead.cli.main import cli

    *before, last = words or [""]
    found = ShellComplete(cli, {}, "fairlead", "_FAIRLEAD_COMPLETE").get_completions(before, last)
    return [(item.value, item.help or "") for item in found if item.type == "plain"]


def kubectl_complete() -> None:
    """Answer kubectl, which calls ``kubectl_complete-fairlead <words…>``: a line each, the directive last."""
    for value, about in complete(sys.argv[1:]):
        click.echo(f"{value}\t{about}" if about else value)
    click.echo(f":{_NO_FILES}")
