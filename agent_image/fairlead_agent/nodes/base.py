"""What an action is given."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fairlead_agent.desk import Desk
from fairlead_agent.expressions import ExpressionError, Scope, render
from fairlead_agent.failures import failure
from fairlead_agent.functions import to_text
from fairlead_agent.graph import Node


@dataclass(frozen=True, slots=True)
class Try:
    """One try of a node or item."""

    node: Node
    default_model: str
    scope: Scope
    desk: Desk
    until: datetime | None = None
    """When the node's ``timeoutSeconds`` is over, if it begins to wait now."""

    def render(self, value: Any) -> Any:
        """Fill in ``{{ }}``.

        Raises:
            NodeFailure: ``ExpressionError``.
        """
        try:
            return render(value, self.scope)
        except ExpressionError as error:
            raise failure("ExpressionError", str(error)) from None

    def text(self, field: str) -> str:
        """Return a field of the action as a text, with ``{{ }}`` filled in."""
        return to_text(self.render(self.node.config.get(field)))
