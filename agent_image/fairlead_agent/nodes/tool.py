"""Use a tool, after a person agreed where it asks for that."""

from __future__ import annotations

from typing import Any, Final

from fairlead_agent.nodes.approval import granted
from fairlead_agent.nodes.base import Try
from fairlead_agent.protocol import ToolRequest

_CALL: Final = 0


async def run(attempt: Try) -> Any:
    """Return what the tool gives for the rendered arguments."""
    config, desk = attempt.node.config, attempt.desk
    request = ToolRequest(name=config["name"], arguments=attempt.render(config.get("arguments") or {}))
    if desk.needs_approval(request.name):
        await desk.ask(_CALL, f"Use the tool {request.name}?", tool=request)
        granted(await desk.decision(_CALL))
    return await desk.result(_CALL, request)
