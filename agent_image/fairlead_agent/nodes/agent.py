"""Hand a task to an agent: a task of its own in that agent's pool, or a call to one that someone else runs."""

from __future__ import annotations

from typing import Any

from fairlead_agent.nodes.base import Try


async def run(attempt: Try) -> Any:
    """Return the agent's answer."""
    config = attempt.node.config
    prompt, output = attempt.text("prompt"), config.get("output")
    if config["name"] in attempt.desk.external:
        return await attempt.desk.abroad(config["name"], prompt, output=output)
    return await attempt.desk.turn(config["name"], prompt, output=output, until=attempt.until)
