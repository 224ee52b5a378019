"""What only a file can do: be full, be read-only, be something else."""

from __future__ import annotations

import asyncio
import os
import pwd
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sqlalchemy import text

from fairlead.errors import TerminalError, Unavailable
from fairlead.storage import open_storage
from fairlead.storage.base import Effects, Fence
from fairlead.storage.sql.outbox import _KEPT, Outbox
from fairlead.testing.storage import NOW, make_revision, make_run, make_session, make_task, sqlite_storage

FENCE = Fence("run-1-task", "pod-1-session", 1)


async def pragma(storage: Any, name: str) -> Any:
    return await storage._database.write(lambda tx: tx.connection.exec_driver_sql(f"PRAGMA {name}").scalar())


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


async def claimed(storage: Any) -> None:
    await storage.submit(make_run(), revision=make_revision(), task=make_task())
    await storage.register(make_session(), at=NOW)
    await storage.claim(make_session(), limit=1, at=NOW)


async def test_open_is_durable_and_for_its_owner_only(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'fairlead.db'}")
    await storage.migrate()

    assert await pragma(storage, "journal_mode") == "wal"
    assert await pragma(storage, "synchronous") == 2, "FULL"
    assert await pragma(storage, "foreign_keys") == 1
    assert await pragma(storage, "busy_timeout") == 10_000
    assert modes(tmp_path) == {"fairlead.db": 0o600, "fairlead.db-shm": 0o600, "fairlead.db-wal": 0o600}
    await storage.aclose()


async def test_a_full_disk_is_unavailable_and_loses_nothing(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        await claimed(storage)
        await storage.append(FENCE, first=0, entries=[{"kind": "A"}], effects=Effects(), at=NOW)
        pages = await pragma(storage, "page_count")
        await pragma(storage, f"max_page_count = {pages}")
        big = [{"kind": "B", "output": "x" * 1_000_000}]

        with pytest.raises(Unavailable, match="free some space"):
            await storage.append(FENCE, first=1, entries=big, effects=Effects(done=1, total=1), at=NOW)

        assert [entry["kind"] for entry in await storage.journal("run-1-task")] == ["A"]
        await pragma(storage, "max_page_count = 1000000")
        assert (await storage.append(FENCE, first=1, entries=big, effects=Effects(), at=NOW)).length == 2


async def test_a_full_disk_fails_only_what_does_not_fit_of_a_group(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        await claimed(storage)
        await pragma(storage, f"max_page_count = {await pragma(storage, 'page_count') + 20}")

        def submit(number: int, size: int) -> Any:
            run = make_run(f"new-{number}", inputs={"x": "x" * size})
            return storage.submit(run, revision=make_revision(), task=make_task(run.uid))

        results = await asyncio.gather(submit(1, 10), submit(2, 1_000_000), submit(3, 10), return_exceptions=True)

        assert [type(result) for result in results] == [bool, Unavailable, bool]
        assert [run.uid for run in await storage.get_runs(["new-1", "new-2", "new-3"])] == ["new-1", "new-3"]


async def test_many_writers_at_once_are_all_committed(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        uids = [f"run-{number}" for number in range(200)]
        added = await asyncio.gather(
            *(storage.submit(make_run(uid), revision=make_revision(), task=make_task(uid)) for uid in [*uids, *uids])
        )

        assert sum(added) == 200
        assert len(await storage.get_runs(uids)) == 200


READ_ONLY = """
import asyncio, os, sys
from fairlead.errors import TerminalError
from fairlead.storage import open_storage
from fairlead.testing.storage import NOW
async def main():
    storage = open_storage(sys.argv[1])
    if len(sys.argv) > 2:  # root may write everywhere; what is imported by now needs no rights
        os.setgroups([])
        os.setgid(int(sys.argv[3]))
        os.setuid(int(sys.argv[2]))
    try:
        await storage.beat_gateway("g", at=NOW)
    except TerminalError as error:
        print(error)
    finally:
        await storage.aclose()
asyncio.run(main())
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, which pytest's own are not."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        yield folder
        folder.chmod(0o755)


def test_a_read_only_file_says_what_to_do(open_folder: Path) -> None:
    async def fill() -> None:
        async with sqlite_storage(open_folder) as storage:
            await claimed(storage)

    asyncio.run(fill())
    open_folder.chmod(0o555)
    (open_folder / "fairlead.db").chmod(0o444)
    nobody = pwd.getpwnam("nobody")
    who = [str(nobody.pw_uid), str(nobody.pw_gid)] if os.geteuid() == 0 else []

    tried = subprocess.run(
        [sys.executable, "-c", READ_ONLY, f"sqlite:///{open_folder / 'fairlead.db'}", *who],
        capture_output=True,
        text=True,
        check=False,
    )

    assert "give this user the right to write" in tried.stdout, tried.stderr


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fairlead.db").write_text("Dear diary, " * 1000)
    storage = open_storage(f"sqlite:///{tmp_path / 'fairlead.db'}")

    with pytest.raises(TerminalError, match="is not a SQLite database"):
        await storage.migrate()
    await storage.aclose()
    assert (tmp_path / "fairlead.db").read_text().startswith("Dear diary")


async def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "fairlead.db") as connection:
        connection.execute("CREATE TABLE recipes (id INTEGER)")
    connection.close()
    storage = open_storage(f"sqlite:///{tmp_path / 'fairlead.db'}")

    with pytest.raises(TerminalError, match="another program"):
        await storage.migrate()
    await storage.aclose()


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'missing' / 'fairlead.db'}")

    with pytest.raises(TerminalError, match=r"missing.* cannot be made: No such file or directory"):
        await storage.migrate()
    await storage.aclose()


async def test_a_file_that_another_process_has_locked_is_unavailable(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        await pragma(storage, "busy_timeout = 50")
        with sqlite3.connect(tmp_path / "fairlead.db", isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable, match="is busy"):
                await storage.beat_gateway("g", at=NOW)
            assert await storage.gateway_seen("g") is None, "reading goes on"
            other.execute("ROLLBACK")
        other.close()

        await storage.beat_gateway("g", at=NOW)
        assert await storage.gateway_seen("g") == NOW


async def test_a_writing_transaction_is_alone_from_its_first_statement(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        database: Any = storage._database  # type: ignore[attr-defined]

        def look(tx: Any) -> str:
            tx.all(text("SELECT * FROM runs"))
            other = sqlite3.connect(tmp_path / "fairlead.db", isolation_level=None, timeout=0)
            try:
                other.execute("DELETE FROM gateways")
            except sqlite3.OperationalError as error:
                return str(error)
            finally:
                other.close()
            return "not locked"

        assert await database.write(look) == "database is locked"


async def test_the_outbox_is_bounded(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        database: Any = storage._database  # type: ignore[attr-defined]

        def fill(tx: Any) -> None:
            row = text("INSERT INTO outbox (origin, topic, key) VALUES ('x', 'run', :key)")
            tx.connection.execute(row, [{"key": str(n)} for n in range(_KEPT + 500)])
            for number in range(500):
                tx.announce("run", str(number))
            Outbox(tmp_path, "y").add(tx)

        await database.write(fill)

        kept = await database.read(lambda tx: tx.first(text("SELECT count(*) FROM outbox"))[0])
        assert _KEPT <= kept <= _KEPT + 500


async def test_a_closed_storage_is_unavailable(tmp_path: Path) -> None:
    async with sqlite_storage(tmp_path) as storage:
        pass
    with pytest.raises(Unavailable, match="closed"):
        await storage.ping()
