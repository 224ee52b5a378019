"""What is asked all the time is found by an index, however much history there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from fairlead.storage import Storage
from fairlead.storage.base import (
    BudgetLine,
    CacheEntry,
    CallAnswer,
    Effects,
    Event,
    Reservation,
    RunEnd,
    RunState,
    Signal,
    Verdict,
)
from fairlead.testing.storage import (
    CLUSTER,
    NAMESPACE,
    NOW,
    claim,
    make_approval,
    make_intent,
    make_session,
    make_turn,
    sqlite_storage,
    start_run,
)

LINE = BudgetLine("model/fast", "2026-01", max_cost=100)
WORST = Reservation((LINE,), input_tokens=1, input_cost=1, output_tokens=1)
EXPECTED_SCANS = {"SCAN CONSTANT ROW", "SCAN sqlite_master"}


class Asked:
    """The statements that a storage sends, and what of a table each would have to read."""

    def __init__(self, storage: Any) -> None:
        self.storage = storage
        self.statements: dict[str, Any] = {}
        event.listen(storage._database._engine, "before_cursor_execute", self._take)

    def _take(self, _connection: Any, _cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        self.statements[statement] = parameters[0] if rest[1] else parameters

    async def scans(self) -> dict[str, list[str]]:
        """Return the statements that read a whole table."""
        asked = {
            statement: parameters
            for statement, parameters in self.statements.items()
            if statement.startswith(("SELECT", "UPDATE", "DELETE"))
        }
        found: dict[str, list[str]] = await self.storage._database.write(lambda tx: _scans(tx.connection, asked))
        return found


def _scans(connection: Any, asked: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for statement, parameters in asked.items():
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
        scans = [row[3] for row in plan if row[3].startswith("SCAN") and row[3] not in EXPECTED_SCANS]
        if scans:
            found[statement] = scans
    return found


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    async with sqlite_storage(tmp_path) as storage:
        yield Asked(storage)


async def work(storage: Storage) -> None:
    """Do what pods, gateways and people do, once each."""
    fence = await start_run(storage)
    await storage.wake(at=NOW)
    await storage.start_turn(fence, make_turn())
    turn_fence, _ = await claim(storage, "pod-2")
    await storage.begin_call(fence, make_intent(reservation=WORST))
    await storage.begin_call(fence, make_intent(reservation=WORST))
    await storage.repeat_call(make_intent(gateway="gateway-2"), lost="gateway-1")
    await storage.finish_call(fence.task_id, "a/-/1/1/0", CallAnswer({}, NOW, cost=1), span=None)
    await storage.open_approval(fence, make_approval())
    await storage.open_approval(fence, make_approval("decided"))
    await storage.decide(fence.task_id, "decided", Verdict(approved=True, by="ada", at=NOW))
    cached = CacheEntry("d", 1, "run-1", NOW, NOW)
    await storage.append(fence, first=0, entries=[{"kind": "X"}], effects=Effects(cached=(cached,), done=0), at=NOW)
    await storage.park(fence, keys=["k"], wake_at=NOW, reason="Time", at=NOW)
    await storage.append(turn_fence, first=0, entries=[{"kind": "X"}], effects=Effects(turn={}), at=NOW)
    await storage.signal(Signal(fence.task_id, "another", {}, NOW))
    await storage.suspend_run("run-1", suspended=True, at=NOW)
    await storage.suspend_run("run-1", suspended=False, at=NOW)
    await storage.wake(at=make_approval().deadline)


async def read(storage: Storage) -> None:
    """Ask what loops ask."""
    await storage.get_cached(CLUSTER, NAMESPACE, "d", at=NOW)
    await storage.drop_expired(at=NOW)
    await storage.spent([LINE])
    await storage.costs(CLUSTER, by=("model",), since=NOW)
    await storage.finished_runs(CLUSTER, namespace=NAMESPACE, workflow="triage", since=NOW)
    await storage.runs_to_export()
    await storage.mark_exported("run-1")
    await storage.pending_approvals(CLUSTER)
    await storage.pending_approvals(CLUSTER, namespace=NAMESPACE)
    await storage.approvals_of_run("run-1")
    await storage.list_runs(CLUSTER, active=True)
    await storage.get_runs(["run-1"])
    await storage.find_run(CLUSTER, NAMESPACE, "run-1")
    await storage.nodes_of_run("run-1")
    await storage.spans_of_run("run-1")
    await storage.calls_of_run("run-1")
    await storage.logs_of_run("run-1")
    await storage.queue_depths(CLUSTER)
    await storage.pool_load("pool")
    await storage.tasks_of_pod("pod-2-uid")
    await storage.list_sessions(CLUSTER)
    await storage.get_session(make_session().token_digest)


async def clean_up(storage: Storage) -> None:
    await storage.requeue_pod("pod-2-uid", at=NOW)
    await storage.publish(Event("run", "run-1"))
    await storage.end_run("run-1", RunEnd(RunState.FAILED, "Timeout", "", None, NOW))
    await storage.delete_run("run-1")


async def test_what_is_asked_all_the_time_scans_no_table(asked: Asked) -> None:
    for body in (work, read, clean_up):
        await body(asked.storage)

    assert len(asked.statements) > 60
    assert await asked.scans() == {}


async def test_a_query_without_an_index_is_noticed(asked: Asked) -> None:
    await asked.storage._database.read(lambda tx: tx.connection.exec_driver_sql("SELECT uid FROM runs WHERE pod = 'x'"))

    assert await asked.scans() == {"SELECT uid FROM runs WHERE pod = 'x'": ["SCAN runs"]}
