"""The tool `sql` in its real child process: what it can do, and what it cannot be made to do."""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path
from typing import Any

import pytest

from fairlead.tools.base import ToolContext, ToolFailed
from fairlead.tools.child import Children
from fairlead.tools.registry import Registry
from fairlead.tools.sql import Sql

CSV = 'id,date,tier,text\n1,2026-01-02,gold,"Hello, you"\n2,2026-01-03,free,"Two\nlines"\n3,2026-01-04,gold,\n'
ESCAPE = Path("/tmp/fairlead-escape.csv")  # noqa: S108 - what an escape would write
CANARY = "canary-3f9b2c"


async def no_config_map(name: str, key: str) -> bytes:
    raise AssertionError(name, key)


async def run(query: str, *, seconds: float = 20, **tables: Any) -> Any:
    context = ToolContext(no_config_map, seconds)
    return await Registry((Sql(Children()),)).use("sql", {"query": query, "tables": tables}, context)


async def test_use_csv_from_a_config_map() -> None:
    async def read(name: str, key: str) -> bytes:
        assert (name, key) == ("messages", "messages.csv")
        return CSV.encode()

    arguments = {
        "query": "SELECT tier, count(*) AS n, min(date) AS first FROM messages GROUP BY tier ORDER BY tier",
        "tables": {"messages": {"configMap": {"name": "messages", "key": "messages.csv"}}},
    }
    rows = await Registry((Sql(Children()),)).use("sql", arguments, ToolContext(read, 20))
    assert rows == [
        {"tier": "free", "n": 1, "first": "2026-01-03"},
        {"tier": "gold", "n": 2, "first": "2026-01-02"},
    ]


async def test_use_joins_rows_and_text() -> None:
    rows = await run(
        "SELECT m.id, m.text, c.category FROM m JOIN c ON m.id = c.id ORDER BY m.id",
        m={"data": CSV, "format": "csv"},
        c={"data": [{"id": 2, "category": "bug"}, {"id": 1, "category": "question"}]},
    )
    assert rows == [
        {"id": 1, "text": "Hello, you", "category": "question"},
        {"id": 2, "text": "Two\nlines", "category": "bug"},
    ]


async def test_use_types_become_json() -> None:
    (row,) = await run(
        "SELECT 1.5::DECIMAL(9,2) AS d, DATE '2026-01-02' AS day, [1, 2] AS l, {'a': 1} AS s, NULL AS n, true AS b, "
        "'x'::BLOB AS raw, 170141183460469231731687303715884105727::HUGEINT AS big, 'nan'::DOUBLE AS nan"
    )
    assert row == {
        "d": 1.5, "day": "2026-01-02", "l": [1, 2], "s": {"a": 1}, "n": None, "b": True,
        "raw": base64.b64encode(b"x").decode(), "big": "170141183460469231731687303715884105727", "nan": None,
    }  # fmt: skip


async def test_use_parquet(tmp_path: Path) -> None:
    import duckdb

    file = tmp_path / "t.parquet"
    duckdb.sql("SELECT range AS n FROM range(5)").write_parquet(str(file))
    data = base64.b64encode(file.read_bytes()).decode()
    assert await run("SELECT sum(n) AS s FROM t", t={"data": data, "format": "parquet"}) == [{"s": 10}]


async def test_use_query_without_rows_gives_none() -> None:
    assert await run("SELECT 1 AS a WHERE false") == []


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("SELECT * FROM read_csv('/etc/passwd')", id="read_csv"),
        pytest.param("SELECT * FROM '/etc/passwd'", id="file-as-table"),
        pytest.param("SELECT * FROM read_text('/etc/passwd')", id="read_text"),
        pytest.param("SELECT * FROM read_blob('/proc/self/environ')", id="read_blob"),
        pytest.param("SELECT * FROM glob('/*')", id="glob"),
        pytest.param("SELECT * FROM read_parquet('https://example.com/x.parquet')", id="http"),
        pytest.param("ATTACH '/tmp/x.db' AS x", id="attach"),
        pytest.param("COPY (SELECT 1) TO '/tmp/fairlead-escape.csv'", id="copy-to"),
        pytest.param("CREATE TABLE x AS SELECT 1", id="create"),
        pytest.param("EXPORT DATABASE '/tmp/fairlead-escape'", id="export"),
        pytest.param("INSTALL httpfs", id="install"),
        pytest.param("LOAD httpfs", id="load"),
        pytest.param("PRAGMA database_list", id="pragma"),
        pytest.param("SET enable_external_access = true", id="set"),
        pytest.param("RESET lock_configuration", id="reset"),
        pytest.param("SELECT 1; SELECT 2", id="two-statements"),
        pytest.param("SELECT getenv('HOME')", id="getenv"),
        pytest.param("CALL pragma_version()", id="call"),
        pytest.param("SELECT * FROM sys", id="python-variable"),
        pytest.param("SELECT * FROM payload", id="python-payload"),
        pytest.param("SELECT * FROM query('COPY (SELECT 1) TO ''/tmp/fairlead-escape.csv''')", id="query-function"),
        pytest.param("SELECT * FROM query_table('/etc/passwd')", id="query-table"),
        pytest.param("SELEC 1", id="syntax"),
        pytest.param("SELECT 1 AS a, 2 AS a", id="two-columns-of-a-name"),
        pytest.param("", id="empty"),
    ],
)
def test_use_what_leads_outside_is_refused(query: str) -> None:
    with pytest.raises(ToolFailed) as failed:
        asyncio.run(run(query))
    assert "root:" not in str(failed.value)
    assert not ESCAPE.exists()


async def test_use_child_sees_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_CANARY", CANARY)
    settings = await run("SELECT name, value FROM duckdb_settings()")
    assert CANARY not in str(settings)
    assert {row["name"]: row["value"] for row in settings}["enable_external_access"] == "false"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        pytest.param("SELECT * FROM range(10001)", "TooLarge", id="rows"),
        pytest.param("SELECT repeat('x', 3000) AS x FROM range(1000)", "TooLarge", id="bytes"),
        pytest.param("SELECT repeat('x', 1000000000) AS x", "LimitExceeded", id="one-value"),
        pytest.param("SELECT list(range) FROM range(1000000000)", "LimitExceeded", id="memory"),
        pytest.param("SELECT count(*) FROM range(100000000) a, range(1000000) b", "ToolTimeout", id="cross-join"),
        pytest.param(
            "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) AS m FROM t",
            "",
            id="endless-recursion",
        ),
        pytest.param("SELECT " + "(" * 20000 + "1" + ")" * 20000, "", id="nested"),
    ],
)
async def test_use_too_much_ends(query: str, reason: str) -> None:
    """Whatever is asked for, it ends in time with a reason, and this process is none the worse."""
    with pytest.raises(ToolFailed) as failed:
        await run(query, seconds=4)
    assert reason in ("", failed.value.reason)


async def test_use_regular_expressions_take_linear_time() -> None:
    assert await run("SELECT regexp_matches(repeat('a', 100000), '(a+)+$') AS m") == [{"m": True}]


async def test_use_table_that_is_no_csv_says_so() -> None:
    with pytest.raises(ToolFailed, match="table t"):
        await run("SELECT 1 AS a", t={"data": "PAR1nonsense", "format": "json"})


async def test_use_empty_list_says_so() -> None:
    with pytest.raises(ToolFailed, match="table t is empty"):
        await run("SELECT 1 AS a", t={"data": []})


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({}, id="no-query"),
        pytest.param({"query": "SELECT 1", "file": "/etc/passwd"}, id="unknown"),
        pytest.param({"query": "SELECT 1", "tables": {'x" AS SELECT 1; --': {"data": []}}}, id="table-name"),
        pytest.param({"query": "SELECT 1", "tables": {"t": {}}}, id="empty-table"),
        pytest.param({"query": 1}, id="type"),
    ],
)
async def test_use_wrong_arguments_are_told(arguments: dict[str, Any]) -> None:
    with pytest.raises(ToolFailed, match="of the tool sql") as failed:
        await Registry((Sql(Children()),)).use("sql", arguments, ToolContext(no_config_map, 5))
    assert failed.value.reason == "InvalidArguments"


async def test_use_unknown_tool_names_the_nearest() -> None:
    with pytest.raises(ToolFailed, match="did you mean sql"):
        await Registry((Sql(Children()),)).use("slq", {}, ToolContext(no_config_map, 5))


def test_use_leaves_no_process_behind() -> None:
    with pytest.raises(ToolFailed):
        asyncio.run(run("SELECT count(*) FROM range(100000000) a, range(1000000) b", seconds=1))
    own = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
    commands = [Path(f"/proc/{pid}/cmdline").read_text() for pid in Path(own).read_text().split()]
    assert [command for command in commands if "fairlead.tools" in command] == []
