from __future__ import annotations

from fairlead.storage import Storage
from fairlead.storage.base import LogRecord
from fairlead.storage.sql.reading import MAX_LINE
from fairlead.testing.storage import NOW, make_revision, make_run, make_task


def line(text: str, run_uid: str = "run-1") -> LogRecord:
    return LogRecord(run_uid, NOW, "info", "a", 1, text)


async def test_logs_of_run_go_on_after_an_id(storage: Storage) -> None:
    for uid in ("run-1", "run-2"):
        await storage.submit(make_run(uid), revision=make_revision(), task=make_task(uid))
    await storage.add_logs([line("one"), line("other", "run-2"), line("two"), line("nobody's", "nobody")])

    first = await storage.logs_of_run("run-1", limit=1)
    rest = await storage.logs_of_run("run-1", after=first[-1].id)

    assert [record.text for record in first + rest] == ["one", "two"]
    assert await storage.logs_of_run("run-1", after=rest[-1].id) == []


async def test_add_logs_keeps_what_a_database_would_refuse_and_cuts_what_is_long(storage: Storage) -> None:
    await storage.submit(make_run(), revision=make_revision(), task=make_task())

    await storage.add_logs([line("nul \0 and half a pair \ud800"), line("x" * 100_000)])

    odd, long = await storage.logs_of_run("run-1")
    assert odd.text == "nul \ufffd and half a pair ?"
    assert len(long.text) == MAX_LINE
