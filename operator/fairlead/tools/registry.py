"""Finds tools by name and checks their arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final

import jsonschema_rs
import orjson

from fairlead.tools.base import MAX_INPUT_BYTES, MAX_RESULT_BYTES, Tool, ToolContext, ToolFailed

_MASK: Final = "the value"
"""Instead of what was given, in messages: arguments may hold credentials."""


class Registry:
    """The tools there are."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._validators = {
            name: jsonschema_rs.Draft202012Validator(dict(tool.schema), mask=_MASK)
            for name, tool in self._tools.items()
        }

    @property
    def tools(self) -> tuple[Tool, ...]:
        """All of them, by name."""
        return tuple(self._tools[name] for name in sorted(self._tools))

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
        self._check(name, arguments)
        result = await tool.use(arguments, context)
        try:
            size = len(orjson.dumps(result))
        except orjson.JSONEncodeError as error:
            raise ToolFailed(f"the result cannot be kept as JSON: {error}") from error
        if size > MAX_RESULT_BYTES:
            raise ToolFailed(f"the result has {size} bytes; at most {MAX_RESULT_BYTES} fit", reason="TooLarge")
        return result

    def _check(self, name: str, arguments: Mapping[str, Any]) -> None:
        if len(orjson.dumps(arguments)) > MAX_INPUT_BYTES:
            raise ToolFailed(f"the arguments have more than {MAX_INPUT_BYTES} bytes", reason="TooLarge")
        error = next(self._validators[name].iter_errors(dict(arguments)), None)
        if error is None:
            return
        place = ".".join(str(part) for part in error.instance_path)
        raise ToolFailed(
            f"arguments{'.' + place if place else ''} of the tool {name}: {error.message[:500]}",
            reason="InvalidArguments",
        )
