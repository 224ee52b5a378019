"""What a tool is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from fairlead.errors import RetryableError, TerminalError

MAX_RESULT_BYTES: Final = 1 << 20
MAX_INPUT_BYTES: Final = 16 << 20


class ToolFailed(TerminalError):
    """The tool cannot do what it was asked for; the same arguments fail again."""

    reason = "ToolFailed"


class ToolUnavailable(RetryableError):
    """The tool did not work this time."""

    reason = "ToolFailed"


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool may use besides its arguments."""

    read_config_map: Callable[[str, str], Awaitable[bytes]]
    """Returns a key of a ConfigMap of the run's namespace."""
    timeout_seconds: float
    namespace: str = ""
    """Of the run."""


class Tool(Protocol):
    """One tool."""

    name: str
    description: str
    """For people and for models."""
    schema: Mapping[str, Any]
    """JSON Schema of the arguments."""
    settings: Mapping[str, Any]
    """JSON Schemas of what only a Tool object can set (``config``), by name: no caller can."""

    def is_idempotent(self, arguments: Mapping[str, Any]) -> bool:
        """Whether these arguments may be used twice: a call whose outcome is unknown is then made again."""

    async def use(self, arguments: Mapping[str, Any], context: ToolContext) -> Any:
        """Return the result, which is JSON.

        Raises:
            ToolFailed: trying the same again cannot help.
            RetryableError: it may.
        """
