"""Finds built-in tools by name and checks what goes in and out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from fairlead.tools.base import Tool, ToolContext, ToolFailed
from fairlead.tools.checks import check_arguments, check_result


class Registry:
    """The tools that are built in."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}

    @property
    def tools(self) -> tuple[Tool, ...]:
        """All of them, by name."""
        return tuple(self._tools[name] for name in sorted(self._tools))

    def find(self, name: str) -> Tool | None:
        """Return a tool."""
        return self._tools.get(name)

    async def use(self, name: str, arguments: Mapping[str, Any], context: ToolContext) -> Any:
        """Return what a tool gives for *arguments*.

        Raises:
            ToolFailed: there is no such tool, the arguments are wrong, or it cannot do it.
        """
        tool = self._tools.get(name)
        if tool is None:
            near = get_close_matches(name, self._tools, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(sorted(self._tools))}"
            raise ToolFailed(f"there is no tool {name}{hint}", reason="ToolNotFound")
        check_arguments(name, tool.schema, arguments)
        result = await tool.use(arguments, context)
        check_result(result)
        return result
