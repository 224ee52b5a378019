"""The child process that checks arguments which take long to check."""

from __future__ import annotations

from typing import Any

import jsonschema_rs  # noqa: F401 - before files are forbidden

from fairlead.tools.base import ToolFailed
from fairlead.tools.checks import check_arguments
from fairlead.tools.children.limits import Problem, forbid_files, main


def compute(payload: dict[str, Any]) -> None:
    """Return nothing if the arguments are what the schema asks for."""
    forbid_files()
    try:
        check_arguments(payload["name"], payload["schema"], payload["arguments"])
    except ToolFailed as failed:
        raise Problem(str(failed), reason=failed.reason) from failed


if __name__ == "__main__":
    main(compute)
