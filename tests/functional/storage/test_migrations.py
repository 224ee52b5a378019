from __future__ import annotations

import asyncio
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
from fairlead.storage.sql.tables import HEAD, VERSION_TABLE, metadata


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


async def test_migrate_goes_on_from_the_first_revision(storage_url: str) -> None:
    def make_old(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", "fairlead.storage:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    storage = open_storage(storage_url)
    await on_connection(storage, make_old)

    await storage.migrate()

    assert await storage.get_run("nobody") is None
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
