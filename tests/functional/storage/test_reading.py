from __future__ import annotations

import pytest

from fairlead.core import names
from fairlead.storage import Storage
from fairlead.storage.base import Fenced, LogRecord
from fairlead.storage.sql.reading import MAX_LINE
from fairlead.testing.storage import CLUSTER, NAMESPACE, NOW, claim, start_run


def line(text: str, run_uid: str = "run-1") -> LogRecord:
    return LogRecord(run_uid, NOW, "info", "a", 1, text)


async def logged(storage: Storage, uid: str = "run-1", *, after: int = 0) -> list[str]:
    return [record.text for record in await storage.logs_of_run(uid, after=after)]


async def test_logs_of_run_go_on_after_an_id(storage: Storage) -> None:
    one, other = await start_run(storage, "run-1"), await start_run(storage, "run-2")
    await storage.add_logs(one, first=0, records=[line("one")])
    await storage.add_logs(other, first=0, records=[line("other", "run-2")])
    await storage.add_logs(one, first=1, records=[line("two")])

    first = await storage.logs_of_run("run-1", limit=1)
    rest = await storage.logs_of_run("run-1", after=first[-1].id)

    assert [record.text for record in first + rest] == ["one", "two"]
    assert await storage.logs_of_run("run-1", after=rest[-1].id) == []


async def test_add_logs_skips_what_is_there(storage: Storage) -> None:
    fence = await start_run(storage)
    await storage.add_logs(fence, first=0, records=[line("one"), line("two")])
    await storage.add_logs(fence, first=0, records=[line("one"), line("two")])
    await storage.add_logs(fence, first=1, records=[line("two"), line("three")])
    await storage.add_logs(fence, first=5, records=[line("after two that were given up")])
    assert await logged(storage) == ["one", "two", "three", "after two that were given up"]


async def test_add_logs_counts_anew_for_the_next_attempt_and_takes_nothing_of_the_last(storage: Storage) -> None:
    before = await start_run(storage)
    await storage.add_logs(before, first=0, records=[line("one")])
    await storage.release(before, at=NOW, lost=True)
    now, _ = await claim(storage, pool=names.run_pool(CLUSTER, NAMESPACE, "run-1"))
    await storage.add_logs(now, first=0, records=[line("again")])
    with pytest.raises(Fenced):
        await storage.add_logs(before, first=1, records=[line("late")])
    assert await logged(storage) == ["one", "again"]


async def test_add_logs_keeps_what_a_database_would_refuse_and_cuts_what_is_long(storage: Storage) -> None:
    fence = await start_run(storage)

    await storage.add_logs(fence, first=0, records=[line("nul \0 and half a pair \ud800"), line("x" * 100_000)])

    odd, long = await logged(storage)
    assert odd == "nul \ufffd and half a pair ?"
    assert len(long) == MAX_LINE
