"""`python` and `shell`: programs that models write. Nothing is run here: they are given who runs it, in a sandbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fairlead.api.v1alpha1.workflow import CodeLimits, Network
from fairlead.tools.base import ToolContext

Language = Literal["python", "shell"]
_TEXT: Final = 65_536
_FILE: Final[Mapping[str, Any]] = {
    "oneOf": [
        {"type": "string"},
        {
            "type": "object",
            "required": ["base64"],
            "additionalProperties": False,
            "properties": {"base64": {"type": "string"}},
        },
    ]
}
_SAID: Final = {
    "python": (
        "Runs a Python program in a sandbox: {source, inputs, files}. It has the standard library, the global "
        "`inputs`, its files in the working directory, and no network unless it was given one. What it assigns to the "
        "global `output` (JSON), prints, and writes below out/ is returned: {output, stdout, stderr, files, exitCode, "
        "notes}."
    ),
    "shell": (
        "Runs a POSIX shell command in a sandbox: {command, inputs, files}. Inputs are environment variables, files "
        "are in the working directory, and there is no network unless it was given one. What it prints and writes "
        "below out/ is returned: {stdout, stderr, files, exitCode, notes}."
    ),
}
PROGRAM: Final[Mapping[Language, str]] = {"python": "source", "shell": "command"}
"""The argument that holds the program."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program as a workflow or a model wrote it."""

    language: Language
    source: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)
    """Relative path to a text, or to ``{"base64": …}``."""
    network: Network = field(default_factory=Network)
    limits: CodeLimits = field(default_factory=CodeLimits)


RunProgram = Callable[[Program], Awaitable[Mapping[str, Any]]]
"""Runs a program and returns what came of it: also of one that failed."""


class CodeTool:
    """Runs what it is given as a program."""

    settings: Mapping[str, Any] = {
        "network": Network.model_json_schema(),
        "limits": CodeLimits.model_json_schema(),
    }

    def __init__(self, language: Language, run: RunProgram) -> None:
        self.name: str = language
        self.description: str = _SAID[language]
        self.schema: Mapping[str, Any] = {
            "type": "object",
            "required": [PROGRAM[language]],
            "additionalProperties": False,
            "properties": {
                PROGRAM[language]: {"type": "string", "minLength": 1, "maxLength": _TEXT},
                "inputs": {"type": "object"},
                "files": {"type": "object", "maxProperties": 64, "additionalProperties": _FILE},
            },
        }
        self._language: Language = language
        self._run = run

    def is_idempotent(self, arguments: Mapping[str, Any]) -> bool:
        """Without a network nothing outside has changed."""
        return not (arguments.get("network") or {}).get("allow")

    async def use(self, arguments: Mapping[str, Any], context: ToolContext) -> Any:
        """Run the program: its limits bound it."""
        del context
        program = Program(
            self._language,
            arguments[PROGRAM[self._language]],
            arguments.get("inputs") or {},
            arguments.get("files") or {},
            Network.model_validate(arguments.get("network") or {}),
            CodeLimits.model_validate(arguments.get("limits") or {}),
        )
        return await self._run(program)
