from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from fairlead.errors import RetryableError
from fairlead.services.exporting import MAX_PAUSE, MAX_TRIES, Exporting
from fairlead.storage import Storage
from fairlead.storage.base import RunEnd, RunState
from fairlead.testing.clock import FakeClock
from fairlead.testing.storage import NOW, sqlite_storage, start_run
from fairlead.tracing.ids import trace_id


class Sender:
    """Takes every trace but those that it refuses."""

    def __init__(self, *refused: str) -> None:
        self.refused = {bytes.fromhex(trace_id(uid)) for uid in refused}
        self.down = False

    async def send(self, request: bytes) -> str:
        if self.down or any(one in request for one in self.refused):
            raise RetryableError("503", reason="CollectorUnavailable", retry_after=0)
        return ""


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    async with sqlite_storage(tmp_path) as opened:
        yield opened


async def finish(storage: Storage, uid: str) -> None:
    await start_run(storage, uid)
    await storage.end_run(uid, RunEnd(RunState.FAILED, "Timeout", "late", None, NOW))


async def waiting(storage: Storage) -> list[str]:
    return [run.uid for run in await storage.runs_to_export(limit=100)]


def build(storage: Storage) -> Exporting:
    spread = random.Random(1)  # noqa: S311 - no secret
    return Exporting(storage, FakeClock(NOW + timedelta(minutes=1)), None, spread=spread)


async def test_round_a_trace_that_is_never_taken_holds_up_no_other_and_is_given_up(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    exporting, sender = build(storage), Sender("bad-1", "bad-2")
    for uid in ("bad-1", "bad-2"):
        await finish(storage, uid)
        await exporting.round(sender)
    for number in range(2 * MAX_TRIES):
        assert set(await waiting(storage)) <= {"bad-1", "bad-2"}
        await finish(storage, f"good-{number}")
        assert await exporting.round(sender) <= 2, "the pause does not grow with the failures of one"
    assert await waiting(storage) == []
    told = capsys.readouterr().out
    assert told.count("trace_given_up") == 2
    assert "given_up=2" in told


async def test_round_gives_nothing_up_while_the_collector_takes_nothing(storage: Storage) -> None:
    exporting, sender = build(storage), Sender()
    uids = ["run-1", "run-2", "run-3"]
    for uid in uids:
        await finish(storage, uid)
    sender.down = True
    pauses = [await exporting.round(sender) for _ in range(3 * MAX_TRIES)]
    assert MAX_PAUSE / 2 <= pauses[-1] <= MAX_PAUSE
    assert await waiting(storage) == uids
    sender.down = False
    await exporting.round(sender)
    assert await waiting(storage) == []
