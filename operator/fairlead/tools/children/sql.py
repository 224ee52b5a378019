"""The child process of the tool `sql`: DuckDB, locked before it sees the query."""

from __future__ import annotations

import base64
import math
import tempfile
from collections import Counter
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import duckdb
import orjson

from fairlead.tools.children.limits import Problem, forbid_files, main

MAX_ROWS: Final = 10_000
MAX_BYTES: Final = 1 << 20
_MAX_INT: Final = 2**63
_CONFIG: Final = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_unsigned_extensions": "false",
    "python_enable_replacements": "false",
    "memory_limit": "400MB",
    "threads": "1",
    "temp_directory": "",
}
_READERS: Final = {
    "csv": "read_csv(?, header = true, sample_size = -1)",
    "json": "read_json(?, maximum_object_size = 16777216)",
    "parquet": "read_parquet(?)",
}
_LOCK: Final = ("SET enable_external_access = false", "SET lock_configuration = true")


def compute(payload: dict[str, Any]) -> Any:
    """Return the rows of the query's result."""
    connection = duckdb.connect(":memory:", config=dict(_CONFIG))
    for table in payload["tables"]:
        _load(connection, table)
    for statement in _LOCK:
        connection.execute(statement)
    forbid_files()
    query = payload["query"]
    try:
        _check(connection, query)
        connection.execute(query)
        return _rows(connection)
    except duckdb.OutOfMemoryException as error:
        raise Problem("the query needs too much memory: ask for less", reason="LimitExceeded") from error
    except duckdb.Error as error:
        raise Problem(f"SQL: {str(error)[:1500]}") from error


def _load(connection: duckdb.DuckDBPyConnection, table: dict[str, Any]) -> None:
    name, form = table["name"], table["format"]
    content = base64.b64decode(table["content"])
    if form == "json" and content.strip() == b"[]":
        raise Problem(f"table {name} is empty: a list of no rows has no columns")
    with tempfile.TemporaryFile() as file:  # it has no name: nothing is left behind when this process is killed
        file.write(content)
        file.flush()
        path = f"/dev/fd/{file.fileno()}"
        try:
            load = f'CREATE TABLE "{name}" AS SELECT * FROM {_READERS[form]}'  # noqa: S608 - the parent checked the name
            connection.execute(load, [path])
        except duckdb.Error as error:
            text = str(error).replace(path, f"table {name}")
            raise Problem(f"table {name} is no {form}: {text[:1000]}") from error


def _check(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    statements = connection.extract_statements(query)
    if len(statements) != 1:
        raise Problem(f"give exactly one SQL statement, not {len(statements)}")
    if statements[0].type != duckdb.StatementType.SELECT:
        raise Problem(f"only queries (SELECT, WITH, FROM, VALUES) are run, no {statements[0].type.name}")


def _rows(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    names = [column[0] for column in connection.description or ()]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise Problem(f"the result has {twice[0]!r} more than once: name the columns with AS")
    rows: list[dict[str, Any]] = []
    size = 0
    while chunk := connection.fetchmany(500):
        for values in chunk:
            row = {name: _json(value) for name, value in zip(names, values, strict=True)}
            size += len(orjson.dumps(row)) + 1
            rows.append(row)
        if len(rows) > MAX_ROWS or size > MAX_BYTES:
            raise Problem(
                f"the result has more than {MAX_ROWS} rows or {MAX_BYTES} bytes: add LIMIT or aggregate",
                reason="TooLarge",
            )
    return rows


def _json(value: Any) -> Any:  # noqa: C901, PLR0911 - one line a type
    match value:
        case bool() | str() | None:
            return value
        case int():
            return value if -_MAX_INT <= value < _MAX_INT else str(value)
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return float(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes():
            return base64.b64encode(value).decode()
        case UUID():
            return str(value)
        case list() | tuple():
            return [_json(item) for item in value]
        case dict():
            return {str(key): _json(item) for key, item in value.items()}
        case _:
            return str(value)


if __name__ == "__main__":
    main(compute)
