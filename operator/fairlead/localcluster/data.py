"""Finds what is shipped beside the code: ``crds``, ``manifests``, ``configs``."""

from __future__ import annotations

from pathlib import Path

import fairlead
from fairlead.errors import TerminalError


def find_data(name: str) -> Path:
    """Return the folder *name*: that of the checkout that this package is run from, or the one in the wheel.

    Raises:
        TerminalError: it is in neither.
    """
    package = Path(fairlead.__file__).resolve().parent
    for folder in (package.parents[1] / name, package / "_data" / name):
        if folder.is_dir() and (folder.parent.name == "_data" or (folder.parent / "pyproject.toml").is_file()):
            return folder
    raise TerminalError(f'the folder "{name}" is missing from this installation; install fairlead again')
