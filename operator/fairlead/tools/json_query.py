"""`json_query`: find and reshape JSON with JMESPath."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.tools.base import ToolContext
from fairlead.tools.child import Children


class JsonQuery:
    """Applies a JMESPath expression to data."""

    name = "json_query"
    description = "Applies a JMESPath expression to JSON data; returns what it finds."
    settings: Mapping[str, Any] = {}
    schema: Mapping[str, Any] = {
        "type": "object",
        "required": ["data", "expression"],
        "additionalProperties": False,
        "properties": {"data": {}, "expression": {"type": "string", "minLength": 1, "maxLength": 8192}},
    }

    def __init__(self, children: Children) -> None:
        self._children = children

    def is_idempotent(self, arguments: Mapping[str, Any]) -> bool:
        """It computes and changes nothing."""
        del arguments
        return True

    async def use(self, arguments: Mapping[str, Any], context: ToolContext) -> Any:
        """Evaluate the expression, in a child process."""
        return await self._children.run("json_query", dict(arguments), context)
