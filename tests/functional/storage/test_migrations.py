from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from fairlead.errors import TerminalError
from fairlead.storage import Storage, migrations, open_storage
from fairlead.storage.base import CallAnswer, CallState, CostRow, RunState
from fairlead.storage.sql.tables import HEAD, VERSION_TABLE, metadata
from fairlead.testing.storage import CLUSTER, NAMESPACE, NOW, POOL, claim


async def on_connection(storage: Any, function: Any) -> Any:
    return await storage._database.write(lambda tx: function(tx.connection))


async def test_migrate_makes_the_tables_that_the_code_has(storage: Storage) -> None:
    def differences(connection: Connection) -> list[Any]:
        options = {"version_table": VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        return [
            change
            for change in compare_metadata(context, metadata)
            if not (change[0] == "add_table" and change[1].name == "outbox" and connection.dialect.name != "sqlite")
        ]

    assert await on_connection(storage, differences) == []


def test_head_is_the_last_revision() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))

    assert scripts.get_current_head() == HEAD


async def test_migrate_again_changes_nothing(storage: Storage, other: Storage) -> None:
    await storage.migrate()
    await other.migrate()

    revision = await on_connection(
        storage, lambda connection: connection.scalar(text("SELECT version_num FROM fairlead_version"))
    )
    assert revision == HEAD


async def test_migrate_by_several_at_the_same_moment(storage_url: str) -> None:
    storages = [open_storage(storage_url) for _ in range(3)]

    await asyncio.gather(*(storage.migrate() for storage in storages))

    assert await storages[0].get_run("nobody") is None
    for storage in storages:
        await storage.aclose()


def upgrade_to(revision: str) -> Callable[[Connection], None]:
    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", "fairlead.storage:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    return upgrade


async def test_migrate_goes_on_from_the_first_revision(storage_url: str) -> None:
    storage = open_storage(storage_url)
    await on_connection(storage, upgrade_to("0001"))

    await storage.migrate()

    assert await storage.get_run("nobody") is None
    await storage.aclose()


T1, T2 = 1_767_323_045_678_901, 1_767_409_445_000_000
"""Two moments of 2 and 3 January 2026, in microseconds."""
RUN_OF_0002: dict[str, Any] = {
    "cluster": CLUSTER,
    "namespace": NAMESPACE,
    "workflow": "triage",
    "revision": "r1",
    "inputs": '{"message":"hi"}',
    "created_at": T1,
    "reason": "",
    "message": "",
    "cancel_reason": "",
    "cancel_message": "",
    "done": 1,
    "total": 2,
    "current": '["a"]',
    "attempt": 1,
    "pod": "pod-1",
    "input_tokens": 30,
    "output_tokens": 15,
    "cost": 1400,
    "unpriced_calls": 1,
    "scripted_calls": 1,
}
TASK_OF_0002: dict[str, Any] = {
    "cluster": CLUSTER,
    "pool": POOL,
    "attempt": 1,
    "released": 0,
    "idle": 0,
    "pod_uid": "",
    "session": "",
}
TASK_OF_0002 |= {"journal_length": 1, "claimed_length": 0, "available_at": 0}
NODE_OF_0002: dict[str, Any] = {
    "run_uid": "new",
    "reason": "",
    "message": "",
    "tries": 1,
    "attempt": 1,
    "started_at": T1,
}
CALL_OF_0002: dict[str, Any] = {
    "task_id": "new-task",
    "run_uid": "new",
    "digest": "d",
    "node": "a",
    "gateway": "g",
    "request": "{}",
}
CALL_OF_0002 |= {"started_at": T1, "repeats": 0, "action": "llm", "target": "fast", "state": "Done"}
CALL_OF_0002 |= {"input_tokens": 10, "output_tokens": 5, "priced": True}
ROWS_OF_0002: tuple[tuple[str, dict[str, Any]], ...] = (
    ("revisions", {"digest": "r1", "document": '{"workflow":{"spec":{}}}'}),
    ("runs", RUN_OF_0002 | {"uid": "old", "name": "old", "state": "Succeeded", "finished_at": T2}),
    ("runs", RUN_OF_0002 | {"uid": "new", "name": "new", "state": "Running", "started_at": T1}),
    ("tasks", TASK_OF_0002 | {"id": "old-task", "run_uid": "old", "state": "Done", "rank": 0}),
    ("tasks", TASK_OF_0002 | {"id": "new-task", "run_uid": "new", "state": "Queued", "rank": -7}),
    ("journal", {"task_id": "new-task", "seq": 0, "attempt": 1, "at": T1, "entry": '{"kind":"NodeStarted"}'}),
    *(("nodes", NODE_OF_0002 | {"node": "a", "item": item, "iteration": 2, "state": "Running"}) for item in ("", "3")),
    ("calls", CALL_OF_0002 | {"key": "a/=3/2/1/0", "item": "3", "cost": 700, "reply": "{}", "finished_at": T1}),
    ("calls", CALL_OF_0002 | {"key": "a/=3/2/2/0", "item": "3", "cost": 700, "reply": "{}", "finished_at": T2}),
    ("calls", CALL_OF_0002 | {"key": "a/-/2/1/0", "item": "", "reply": '{"scripted":true}', "finished_at": T2}),
    (
        "calls",
        CALL_OF_0002 | {"key": "a/-/2/1/1", "item": "", "state": "Intent", "input_tokens": 0, "output_tokens": 0},
    ),
    ("calls", CALL_OF_0002 | {"key": "a/-/2/1/2", "item": "", "action": "tool", "reply": "{}", "finished_at": T2}),
)


def fill_0002(connection: Connection) -> None:
    upgrade_to("0002")(connection)
    for table, row in ROWS_OF_0002:
        names = ", ".join(f'"{name}"' for name in row)
        marks = ", ".join(f":{name}" for name in row)
        connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), row)  # noqa: S608 - constants


async def test_migrate_from_0002_keeps_what_is_there_and_sums_what_was_spent(storage_url: str) -> None:
    storage = open_storage(storage_url)
    await on_connection(storage, fill_0002)

    await storage.migrate()

    old, new = await storage.get_run("old"), await storage.get_run("new")
    assert old is not None
    assert new is not None
    assert (old.state, old.exported, new.exported) == (RunState.SUCCEEDED, True, False)
    assert (new.inputs, new.current, new.cost, new.priority) == ({"message": "hi"}, ("a",), 1400, 7)
    assert (new.suspended, new.parked, new.pending_approvals, new.budget) == (False, "", 0, None)
    assert await storage.costs(CLUSTER, by=("day", "model", "workflow", "agent")) == [
        CostRow({"day": day, "model": "fast", "workflow": "triage", "agent": ""}, *sums)
        for day, sums in (("2026-01-02", (1, 10, 5, 700, 0, 0)), ("2026-01-03", (2, 20, 10, 700, 1, 1)))
    ]
    nodes = {
        node.item: (node.input_tokens, node.cost, node.unpriced_calls) for node in await storage.nodes_of_run("new")
    }
    assert nodes == {"": (30, 1400, 1), "3": (20, 1400, 0)}
    await storage.aclose()


async def test_migrate_from_0002_lets_a_run_go_on(storage_url: str) -> None:
    storage = open_storage(storage_url)
    await on_connection(storage, fill_0002)
    await storage.migrate()

    fence, claimed = await claim(storage, "pod-2")

    assert (claimed.run.uid, claimed.task.kind, claimed.task.attempt) == ("new", "run", 2)
    assert [entry["kind"] for entry in claimed.journal] == ["NodeStarted"]
    record = await storage.get_call("new-task", "a/-/2/1/1")
    assert record is not None
    assert (record.state, record.intent.reservation, record.granted_output_tokens) == (CallState.INTENT, None, None)
    await storage.finish_call("new-task", "a/-/2/1/1", CallAnswer({}, NOW, 1, 1, cost=1), span=None)
    assert await storage.park(fence, keys=["k"], wake_at=NOW, reason="Time", at=NOW) == []
    assert await storage.wake(at=NOW) is None
    await storage.delete_run("old")
    assert await storage.list_runs(CLUSTER) == [await storage.get_run("new")]
    await storage.aclose()


async def test_migrate_refuses_what_a_newer_version_wrote(storage: Storage, other: Storage) -> None:
    await on_connection(
        storage, lambda connection: connection.execute(text("UPDATE fairlead_version SET version_num = '9999'"))
    )

    with pytest.raises(TerminalError, match=r"newer version .*9999.* restore a backup"):
        await other.migrate()


async def test_migrate_refuses_the_database_of_another_program(storage_url: str) -> None:
    storage = open_storage(storage_url)
    await on_connection(storage, lambda connection: connection.execute(text("CREATE TABLE runs (id INTEGER)")))

    with pytest.raises(TerminalError, match="another program"):
        await storage.migrate()
    await storage.aclose()
