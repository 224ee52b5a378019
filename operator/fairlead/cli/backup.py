"""``backup``: a consistent copy of this machine's state, also while Fairlead runs."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fairlead.cli.options import command, home_option

if TYPE_CHECKING:
    from fairlead.localcluster.supervisor.home import Home


@command(
    examples="""
    fairlead backup
    fairlead backup /media/usb/fairlead.tar.gz
    """
)
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@home_option
def backup(home: Path, file: Path | None) -> int:
    """Write the state of this machine's Fairlead to FILE (default: fairlead-<time>.tar.gz).

    The copy holds both databases as they are at one moment each, keys and credentials: keep it as you keep a password.
    To restore it, unpack it into an empty folder and start with that: FAIRLEAD_HOME=<folder> fairlead up
    """
    from fairlead.cli import exits, printing
    from fairlead.clock import SystemClock
    from fairlead.errors import TerminalError
    from fairlead.localcluster.supervisor.home import Home

    place = Home(home.resolve())
    if not place.state_file.exists():
        raise TerminalError(f"there is nothing to back up in {home}: `fairlead up` makes a home")
    target = file or Path(f"fairlead-{SystemClock().now():%Y%m%d-%H%M%S}.tar.gz")
    if target.exists():
        raise TerminalError(f"{target} is there already; give another name")
    if not target.resolve().parent.is_dir():
        raise TerminalError(f"there is no folder {target.resolve().parent}; make it, or give another path")
    write_backup(place, target)
    click.echo(target)
    printing.hint(f"{target.stat().st_size // 1024} KiB. It holds credentials.")
    return exits.OK


def write_backup(home: Home, target: Path) -> None:
    """Write everything that a home needs to go on elsewhere into one compressed file, or nothing at all.

    History is copied after the API server's objects: a run that is known to history but not to the API is one whose
    object was deleted, whereas the opposite would be a run that is queued again.
    """
    import os
    import tempfile

    partial = target.with_name(f".{target.name}.new")
    try:
        with (
            tempfile.TemporaryDirectory(dir=target.resolve().parent, prefix=".fairlead-backup-") as folder,
            os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file,
            tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as archive,
        ):
            for database in (home.apiserver / "cluster.db", home.database):
                if database.exists():
                    copy = Path(folder) / database.name
                    copy_database(database, copy)
                    archive.add(copy, database.relative_to(home.root), filter=_private)
            for path in (home.apiserver / "pki", home.state_file, home.kubeconfig):
                if path.exists():
                    archive.add(path, path.relative_to(home.root), filter=_private)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _private(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Whoever unpacks it makes files that only they can read."""
    member.mode = 0o700 if member.isdir() else 0o600
    return member


def copy_database(source: Path, target: Path) -> None:
    """Copy a SQLite database as it is at one moment, with writers at work."""
    import contextlib
    import sqlite3

    with (
        contextlib.closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as reader,
        contextlib.closing(sqlite3.connect(target)) as writer,
    ):
        reader.backup(writer)
