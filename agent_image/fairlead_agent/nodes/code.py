"""Run a program in a sandbox of the gateway's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fairlead_agent.functions import to_text
from fairlead_agent.nodes.base import Try
from fairlead_agent.protocol import CodeRequest, FileContent

_CALL: Final = 0
DEFAULT_SECONDS: Final = 60.0
"""What ``limits.timeoutSeconds`` is where it is absent."""
PATIENCE_SECONDS: Final = 600.0
"""How long a program waits for its turn, beside its own time, unless the node says otherwise."""


async def run(attempt: Try) -> Any:
    """Return what the program gave: ``output``, ``stdout``, ``stderr``, ``files`` and ``notes``.

    Its source is sent as it is written in the workflow, by the gateway: nothing is ever filled into it.
    """
    config = attempt.node.config
    files = attempt.render(config.get("files") or {})
    request = CodeRequest(
        inputs=attempt.render(config.get("inputs") or {}),
        files={name: _content(value) for name, value in files.items()},
    )
    own = (config.get("limits") or {}).get("timeoutSeconds") or DEFAULT_SECONDS
    return await attempt.desk.result(_CALL, request, longest=own + PATIENCE_SECONDS)


def _content(value: Any) -> str | FileContent:
    """Return a file's content: a text, a file of another program as it came from there, or a value as JSON."""
    if isinstance(value, Mapping) and value.keys() == {"base64"} and isinstance(value["base64"], str):
        return FileContent(base64=value["base64"])
    return to_text(value)
