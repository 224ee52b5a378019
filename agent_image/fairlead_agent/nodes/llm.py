"""Ask a model, with or without tools."""

from __future__ import annotations

from typing import Any

from fairlead_agent.conversation import DEFAULT_TURNS, Limits, Talk, answer, opening
from fairlead_agent.nodes.base import Try


async def run(attempt: Try) -> Any:
    """Return the text of the answer, or with ``output`` the value that it holds."""
    config = attempt.node.config
    talk = Talk(
        model=config.get("model") or attempt.default_model,
        messages=opening(attempt.text("prompt"), system=attempt.text("system")),
        output=config.get("output"),
        parameters=config.get("parameters") or {},
        tools=tuple(config.get("tools") or ()),
        limits=Limits(turns=config.get("maxTurns") or DEFAULT_TURNS),
    )
    return await answer(talk, attempt.desk)
