"""``apply``: declared objects to the server, by server-side apply."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from fairlead.cli.options import Target, command, target_options

if TYPE_CHECKING:
    from fairlead.cli.session import Session

MANAGER: Final = "fairlead"
_FIRST: Final = (
    *("Namespace", "CustomResourceDefinition", "ServiceAccount", "Secret", "ConfigMap"),
    *("Model", "Tool", "Agent", "Workflow"),
)


@command(
    examples="""
    fairlead apply -f triage.yaml
    fairlead apply -R -f configs/approval      # with the folders in it
    fairlead apply -f triage.yaml --dry-run
    """
)
@click.option(
    "-f", "--filename", "paths", multiple=True, required=True, help="A file, a folder, or - for standard input."
)
@click.option("-R", "--recursive", is_flag=True, help="Look into the folders of a folder.")
@click.option("--dry-run", is_flag=True, help="Ask the server what it would do; nothing is changed.")
@click.option("--force-conflicts", is_flag=True, help="Take over fields that another manager has set.")
@target_options()
def apply(target: Target, *, paths: tuple[str, ...], recursive: bool, dry_run: bool, force_conflicts: bool) -> int:
    """Apply files to the cluster, on the server's side: what they say becomes true, again and again."""
    from fairlead.cli.files import read_objects
    from fairlead.cli.session import run_session

    objects = read_objects(paths, recursive=recursive)
    return run_session(target, lambda session: apply_objects(session, objects, dry_run=dry_run, force=force_conflicts))


async def apply_objects(
    session: Session,
    objects: list[dict[str, Any]],
    *,
    dry_run: bool = False,
    force: bool = False,
    say: Callable[[str], None] = click.echo,
) -> int:
    """Apply *objects* in an order in which each finds what it refers to; go on after one that is refused."""
    from fairlead.cli import exits
    from fairlead.errors import FairleadError

    code = exits.OK
    for obj in sorted(objects, key=_order):
        try:
            say(await _apply_one(session, obj, dry_run=dry_run, force=force))
        except FairleadError as error:
            code = exits.explain(error)
    return code


def _order(obj: dict[str, Any]) -> int:
    return _FIRST.index(obj["kind"]) if obj["kind"] in _FIRST else len(_FIRST)


async def _apply_one(session: Session, obj: dict[str, Any], *, dry_run: bool, force: bool) -> str:
    from fairlead.errors import InvalidObject
    from fairlead.kube import Ref

    resource = await session.kube.resource(obj["apiVersion"], obj["kind"])
    meta = dict(obj["metadata"])
    if resource.namespaced:
        meta.setdefault("namespace", session.namespace)
    placed = {**obj, "metadata": meta}
    if not meta.get("name"):
        if not meta.get("generateName"):
            raise InvalidObject(f"{obj['kind']} needs metadata.name", field="metadata.name")
        made = await session.kube.create(placed, dry_run=dry_run)
        return _said(made, "created", dry_run=dry_run)
    before = await session.kube.get(Ref.of(placed))
    after = await session.kube.apply(placed, manager=MANAGER, force=force, dry_run=dry_run)
    if before is None:
        return _said(after, "created", dry_run=dry_run)
    same = before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
    return _said(after, "unchanged" if same else "configured", dry_run=dry_run)


def _said(obj: dict[str, Any], what: str, *, dry_run: bool) -> str:
    group = obj["apiVersion"].rpartition("/")[0]
    title = f"{obj['kind'].lower()}{f'.{group}' if group else ''}/{obj['metadata']['name']}"
    return f"{title} {what}{' (server dry run)' if dry_run else ''}"
