"""Have a person decide."""

from __future__ import annotations

from typing import Any

from fairlead_agent.desk import APPROVAL_SECONDS
from fairlead_agent.failures import failure
from fairlead_agent.nodes.base import Try
from fairlead_agent.protocol import Decision

TIMED_OUT = "timeout"
"""The `Decision.via` of a decision that nobody made."""


async def run(attempt: Try) -> Any:
    """Return who agreed, when and why."""
    config = attempt.node.config
    await attempt.desk.ask(
        0,
        attempt.text("message"),
        approvers=tuple(config.get("approvers") or ()),
        timeout_seconds=config.get("timeoutSeconds") or APPROVAL_SECONDS,
        on_timeout=config.get("onTimeout") or "Reject",
    )
    return granted(await attempt.desk.decision(0, until=attempt.until))


def granted(decision: Decision) -> dict[str, Any]:
    """Return the decision as an output.

    Raises:
        NodeFailure: ``ApprovalRejected``, ``ApprovalTimeout``.
    """
    if decision.approved:
        return {"approved": True, "by": decision.by, "comment": decision.comment, "at": decision.at.isoformat()}
    reason = "ApprovalTimeout" if decision.via == TIMED_OUT else "ApprovalRejected"
    raise failure(reason, refusal(decision))


def refusal(decision: Decision) -> str:
    """Say who did not agree, and why."""
    if decision.via == TIMED_OUT:
        return "nobody decided in time"
    why = f": {decision.comment}" if decision.comment else ""
    return f"{decision.by or 'somebody'} rejected it{why}"
