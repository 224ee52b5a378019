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

    async def use(
        self,
        name: str,
        arguments: Mapping[str, Any],
        context: ToolContext,
        *,
        config: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return what a tool gives for *arguments* and what a Tool object adds to them.

        Raises:
            ToolFailed: there is no such tool, the arguments are wrong, or it cannot do it.
        """
        tool = self._tools.get(name)
        if tool is None:
            near = get_close_matches(name, self._tools, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(sorted(self._tools))}"
            raise ToolFailed(f"there is no tool {name}{hint}", reason="ToolNotFound")
        given = {**arguments, **(config or {})}
        check_arguments(name, _extended(tool, config or {}), given)
        result = await tool.use(given, context)
        check_result(result)
        return result


def _extended(tool: Tool, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of the arguments with the settings that *config* has."""
    settings = {name: schema for name, schema in tool.settings.items() if name in config}
    return {**tool.schema, "properties": {**tool.schema["properties"], **settings}} if settings else tool.schema
