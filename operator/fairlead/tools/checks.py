"""Checks what goes into a tool and what comes out. Offline, in linear time, and without repeating what was given."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import orjson

from fairlead.tools.base import MAX_INPUT_BYTES, MAX_RESULT_BYTES, ToolContext, ToolFailed
from fairlead.tools.child import Children
from fairlead_agent.schema_sizes import SchemaRefused, weigh
from fairlead_agent.schemas import SchemaError, build_validator

if TYPE_CHECKING:
    import jsonschema_rs

_MASK: Final = "the value"
"""Instead of what was given, in messages: arguments may hold credentials."""
_MAX_STEPS: Final = 10_000_000
"""Of a check that is done while everybody waits: about half a second at worst."""


async def check_declared(
    name: str, schema: Mapping[str, Any], arguments: Mapping[str, Any], *, children: Children, context: ToolContext
) -> None:
    """Refuse arguments that are not what a Tool's own schema asks for; what may take long is left to a child process.

    Raises:
        ToolFailed: where they are wrong and why, or that the check takes too long.
    """
    if _weight(name, orjson.dumps(schema)) * _size(arguments) <= _MAX_STEPS:
        check_arguments(name, schema, arguments)
    else:
        await children.run("json_schema", {"name": name, "schema": schema, "arguments": arguments}, context)


def check_arguments(name: str, schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that are not what a tool asks for.

    Raises:
        ToolFailed: where they are wrong and why.
    """
    _size(arguments)
    error = next(_validator(name, orjson.dumps(schema)).iter_errors(dict(arguments)), None)
    if error is None:
        return
    place = ".".join(str(part) for part in error.instance_path)
    raise ToolFailed(
        f"arguments{'.' + place if place else ''} of the tool {name}: {error.message[:500]}",
        reason="InvalidArguments",
    )


def _size(arguments: Mapping[str, Any]) -> int:
    size = len(orjson.dumps(arguments))
    if size > MAX_INPUT_BYTES:
        raise ToolFailed(f"the arguments have more than {MAX_INPUT_BYTES} bytes", reason="TooLarge")
    return size


def check_result(result: Any) -> None:
    """Refuse a result that cannot be kept.

    Raises:
        ToolFailed: it is no JSON, or too large.
    """
    try:
        size = len(orjson.dumps(result))
    except orjson.JSONEncodeError as error:
        raise ToolFailed(f"the result cannot be kept as JSON: {error}") from error
    if size > MAX_RESULT_BYTES:
        raise ToolFailed(f"the result has {size} bytes; at most {MAX_RESULT_BYTES} fit", reason="TooLarge")


@lru_cache(maxsize=256)
def _validator(name: str, schema: bytes) -> jsonschema_rs.Validator:
    try:
        return build_validator(orjson.loads(schema), mask=_MASK)
    except SchemaError as error:
        raise _unusable(name, error) from None


@lru_cache(maxsize=256)
def _weight(name: str, schema: bytes) -> int:
    try:
        return weigh(orjson.loads(schema))
    except SchemaRefused as error:
        raise _unusable(name, error) from None


def _unusable(name: str, error: ValueError) -> ToolFailed:
    return ToolFailed(f"the parameters of the tool {name} are no JSON Schema: {str(error)[:500]}")
