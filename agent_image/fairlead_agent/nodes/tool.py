"""Use a tool."""

from __future__ import annotations

from typing import Any

from fairlead_agent.nodes.base import Try
from fairlead_agent.protocol import ToolRequest


async def run(attempt: Try) -> Any:
    """Return what the tool gives for the rendered arguments."""
    config = attempt.node.config
    return await attempt.call(ToolRequest(name=config["name"], arguments=attempt.render(config.get("arguments") or {})))
