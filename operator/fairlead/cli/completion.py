"""``completion``: scripts for shells; and the protocol with which kubectl asks a plugin."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from fairlead.cli.options import Target
    from fairlead.cli.session import Session

_SHELLS: Final = ("bash", "zsh", "fish")
_PATIENCE: Final = 1.0
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


def object_names(target: Target, plural: str) -> list[str]:
    """Return the names of the objects of one kind, the latest first; nothing where nobody answers in time."""
    from fairlead.cli.session import run_session

    async def names(session: Session) -> list[str]:
        import asyncio

        import orjson

        from fairlead.core import names as known

        path = f"/apis/{known.API_VERSION}/namespaces/{session.namespace}/{plural}"
        async with asyncio.timeout(_PATIENCE):
            _, _, body = await session.kube.raw("GET", path)
        found = [item["metadata"] for item in orjson.loads(body)["items"]]
        return [meta["name"] for meta in sorted(found, key=lambda meta: meta["creationTimestamp"], reverse=True)]

    with contextlib.suppress(Exception):  # a completion that fails must not disturb what is being typed
        return run_session(target, names)
    return []


def kubectl_complete() -> None:
    """Answer kubectl, which calls ``kubectl_complete-fairlead <words…>``: a line each, the directive last."""
    for value, about in complete(sys.argv[1:]):
        click.echo(f"{value}\t{about}" if about else value)
    click.echo(f":{_NO_FILES}")
