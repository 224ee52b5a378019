"""`sql`: one SQL query over tables that are given as data or kept in ConfigMaps."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

import orjson

from fairlead.tools.base import MAX_INPUT_BYTES, ToolContext, ToolFailed
from fairlead.tools.child import Children

_FORMATS: Final = ["csv", "json", "parquet"]
_TABLE: Final[Mapping[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "configMap": {
            "type": "object",
            "required": ["name", "key"],
            "additionalProperties": False,
            "properties": {"name": {"type": "string"}, "key": {"type": "string"}},
        },
        "data": {"type": ["array", "string"]},
        "format": {"enum": _FORMATS},
    },
    "oneOf": [{"required": ["configMap"]}, {"required": ["data"]}],
}


class Sql:
    """Runs a query with DuckDB, in a child process."""

    name = "sql"
    description = (
        "Runs one SQL query (DuckDB) over tables: {query, tables: {name: {configMap: {name, key}, format} | "
        "{data: rows or text, format}}}; returns the rows as a list of objects."
    )
    settings: Mapping[str, Any] = {}
    schema: Mapping[str, Any] = {
        "type": "object",
        "required": ["query"],
        "additionalProperties": False,
        "properties": {
            "query": {"type": "string", "minLength": 1, "maxLength": 65536},
            "tables": {
                "type": "object",
                "maxProperties": 32,
                "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]{0,62}$"},
                "additionalProperties": _TABLE,
            },
        },
    }

    def __init__(self, children: Children) -> None:
        self._children = children

    def is_idempotent(self, arguments: Mapping[str, Any]) -> bool:
        """It computes and changes nothing."""
        del arguments
        return True

    async def use(self, arguments: Mapping[str, Any], context: ToolContext) -> Any:
        """Load the tables and run the query."""
        tables = []
        left = MAX_INPUT_BYTES
        for name, table in (arguments.get("tables") or {}).items():
            content, form = await _content(table, context)
            left -= len(content)
            if left < 0:
                raise ToolFailed(f"the tables have more than {MAX_INPUT_BYTES} bytes", reason="TooLarge")
            tables.append({"name": name, "format": form, "content": base64.b64encode(content).decode()})
        return await self._children.run("sql", {"query": arguments["query"], "tables": tables}, context)


async def _content(table: Mapping[str, Any], context: ToolContext) -> tuple[bytes, str]:
    if "configMap" in table:
        ref = table["configMap"]
        content = await context.read_config_map(ref["name"], ref["key"])
        return content, table.get("format") or _format_of(ref["key"])
    data = table["data"]
    if isinstance(data, list):
        return orjson.dumps(data), "json"
    form = table.get("format", "csv")
    return (base64.b64decode(data) if form == "parquet" else data.encode()), form


def _format_of(key: str) -> str:
    ending = key.rpartition(".")[2].lower()
    if ending in _FORMATS:
        return ending
    raise ToolFailed(f"say the format of {key}: one of {', '.join(_FORMATS)}", reason="InvalidArguments")
