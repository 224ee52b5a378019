"""What an action is given, and how it fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fairlead_agent.expressions import ExpressionError, Scope, render
from fairlead_agent.graph import Node
from fairlead_agent.protocol import CallReply, ErrorInfo, LlmRequest, ToolRequest

Request = LlmRequest | ToolRequest


class NodeFailure(Exception):
    """A try that failed for a reason that belongs to the workflow or the world."""

    def __init__(self, error: ErrorInfo) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True, slots=True)
class Try:
    """One try of a node or item."""

    node: Node
    default_model: str
    scope: Scope
    send: Callable[[Request], Awaitable[CallReply]]

    def render(self, value: Any) -> Any:
        """Fill in ``{{ }}``.

        Raises:
            NodeFailure: ``ExpressionError``.
        """
        try:
            return render(value, self.scope)
        except ExpressionError as error:
            info = ErrorInfo(reason="ExpressionError", message=str(error), retryable=False)
            raise NodeFailure(info) from None

    async def call(self, request: Request) -> Any:
        """Make a call through the gateway and return its result.

        Raises:
            NodeFailure: what the gateway answered.
        """
        reply = await self.send(request)
        if reply.error is not None:
            raise NodeFailure(reply.error)
        return reply.result
