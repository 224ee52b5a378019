"""The `Storage` protocol over a `Database`: each method is one function in one transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text

from fairlead.storage.base import (
    AgentSession,
    Approval,
    Begun,
    BudgetLine,
    CacheEntry,
    CallAnswer,
    CallIntent,
    CallRecord,
    Claimed,
    CostRow,
    Effects,
    Event,
    Fence,
    Grown,
    LogRecord,
    NodeRecord,
    OverBudget,
    PoolLoad,
    QueuedTask,
    Revision,
    Run,
    RunEnd,
    Signal,
    Span,
    Spent,
    Task,
    Turn,
    Verdict,
)
from fairlead.storage.migrations import bring_up_to_date
from fairlead.storage.sql import (
    approvals,
    budgets,
    cache,
    calls,
    costs,
    queue,
    reading,
    runs,
    sessions,
    tasks,
    turns,
    waiting,
)
from fairlead.storage.sql.transaction import Database


class SqlStorage:
    """Storage in SQLite or PostgreSQL. What a method promises is said in `fairlead.storage.base`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def migrate(self) -> None:
        """Bring the schema up to date."""
        await self._database.migrate(bring_up_to_date)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._database.aclose()

    async def ping(self) -> None:
        """Do nothing, or raise `Unavailable`."""
        await self._database.read(lambda tx: tx.first(text("SELECT 1")))

    async def publish(self, event: Event) -> None:
        """Tell everyone who listens."""
        await self._database.write(lambda tx: tx.announce(event.topic, event.key))

    def subscribe(self, *topics: str) -> AsyncIterator[Event]:
        """Yield events from now on."""
        return self._database.subscribe(*topics)

    async def submit(self, run: Run, *, revision: Revision, task: QueuedTask | None) -> bool:
        """Create the run and queue its task."""
        return await self._database.write(lambda tx: runs.submit(tx, run, revision, task=task))

    async def get_run(self, uid: str) -> Run | None:
        """Return a run."""
        return await self._database.read(lambda tx: runs.get(tx, uid))

    async def find_run(self, cluster: str, namespace: str, name: str) -> Run | None:
        """Return the latest run that had this name."""
        return await self._database.read(lambda tx: runs.find(tx, cluster, namespace, name=name))

    async def list_runs(
        self, cluster: str, *, namespace: str = "", workflow: str = "", active: bool = False, limit: int = 100
    ) -> list[Run]:
        """Return runs, latest first."""
        return await self._database.read(
            lambda tx: runs.list_runs(tx, cluster, namespace=namespace, workflow=workflow, active=active, limit=limit)
        )

    async def get_runs(self, uids: Sequence[str]) -> list[Run]:
        """Return those that exist."""
        return await self._database.read(lambda tx: runs.get_many(tx, uids))

    async def get_revision(self, digest: str) -> Revision | None:
        """Return a frozen revision."""
        return await self._database.read(lambda tx: runs.get_revision(tx, digest))

    async def cancel_run(
        self, uid: str, *, reason: str, message: str, at: datetime, handlers: bool = False
    ) -> Run | None:
        """Ask for the run's end."""
        return await self._database.write(
            lambda tx: runs.cancel(tx, uid, reason=reason, message=message, at=at, handlers=handlers)
        )

    async def end_run(self, uid: str, end: RunEnd) -> bool:
        """End a run whatever its task does."""
        return await self._database.write(lambda tx: runs.finish(tx, uid, end))

    async def delete_run(self, uid: str) -> None:
        """Forget a run and everything that belongs to it."""
        await self._database.write(lambda tx: runs.forget(tx, uid))

    async def claim(self, session: AgentSession, *, limit: int, at: datetime) -> list[Claimed]:
        """Take queued tasks of the session's pool."""
        return await self._database.write(lambda tx: tasks.claim(tx, session, limit=limit, at=at))

    async def append(
        self,
        fence: Fence,
        *,
        first: int,
        entries: Sequence[Mapping[str, Any]],
        effects: Effects,
        at: datetime,
        size: int = 0,
    ) -> Grown:
        """Add entries to the journal with their effects."""
        batch = tasks.Batch(first, entries, size)
        return await self._database.write(lambda tx: tasks.append(tx, fence, batch, effects=effects, at=at))

    async def release(self, fence: Fence, *, at: datetime, lost: bool = False) -> None:
        """Put the task back on the queue."""
        await self._database.write(lambda tx: tasks.release(tx, fence, at=at, lost=lost))

    async def check_fence(self, fence: Fence) -> Task:
        """Return the task if the fence still holds it."""
        return await self._database.read(lambda tx: tasks.check(tx, fence))

    async def requeue_pod(self, pod_uid: str, *, at: datetime) -> list[str]:
        """Take all tasks from a pod that is gone."""
        return await self._database.write(lambda tx: sessions.lose_pod(tx, pod_uid, at=at))

    async def journal(self, task_id: str) -> list[Mapping[str, Any]]:
        """Return a task's journal."""
        return await self._database.read(lambda tx: tasks.entries(tx, task_id))

    async def tasks_of_run(self, uid: str) -> list[Task]:
        """Return a run's tasks."""
        return await self._database.read(lambda tx: tasks.of_run(tx, uid))

    async def tasks_of_pod(self, pod_uid: str) -> list[Task]:
        """Return what a pod holds now."""
        return await self._database.read(lambda tx: tasks.of_pod(tx, pod_uid))

    async def queue_depths(self, cluster: str) -> dict[str, tuple[int, int]]:
        """Return, by pool, how many tasks wait and how many are claimed."""
        return await self._database.read(lambda tx: tasks.depths(tx, cluster))

    async def pool_load(self, pool: str) -> PoolLoad:
        """Return what a pool has to do."""
        return await self._database.read(lambda tx: tasks.load(tx, pool))

    async def park(
        self, fence: Fence, *, keys: Sequence[str], wake_at: datetime | None, reason: str, at: datetime
    ) -> list[Signal]:
        """Give the task back until something comes."""
        return await self._database.write(
            lambda tx: waiting.park(tx, fence, keys=keys, wake_at=wake_at, reason=reason, at=at)
        )

    async def wake(self, *, at: datetime) -> datetime | None:
        """Wake and decide what is due; return when to look again."""
        due = await self._database.read(waiting.next_due)  # mostly nothing is: no transaction that writes
        if due is None or due > at:
            return due
        return await self._database.write(lambda tx: waiting.wake(tx, at=at))

    async def signal(self, signal: Signal) -> bool:
        """Bring a signal about."""
        return await self._database.write(lambda tx: waiting.signal(tx, signal))

    async def signals_of_task(self, task_id: str) -> list[Signal]:
        """Return what has come."""
        return await self._database.read(lambda tx: queue.signals_of(tx, task_id))

    async def suspend_run(self, uid: str, *, suspended: bool, at: datetime, span: Span | None = None) -> Run | None:
        """Suspend or resume a run."""
        return await self._database.write(lambda tx: waiting.suspend(tx, uid, suspended=suspended, at=at, span=span))

    async def open_approval(self, fence: Fence, approval: Approval) -> Approval:
        """Ask people."""
        return await self._database.write(lambda tx: approvals.open_approval(tx, fence, approval))

    async def decide(self, task_id: str, key: str, verdict: Verdict) -> Approval | None:
        """Decide an approval."""
        return await self._database.write(lambda tx: approvals.decide(tx, task_id, key, verdict=verdict))

    async def get_approval(self, task_id: str, key: str) -> Approval | None:
        """Return an approval."""
        return await self._database.read(lambda tx: approvals.get(tx, task_id, key))

    async def approvals_of_run(self, uid: str) -> list[Approval]:
        """Return a run's approvals."""
        return await self._database.read(lambda tx: approvals.of_run(tx, uid))

    async def pending_approvals(self, cluster: str, *, namespace: str = "", limit: int = 1000) -> list[Approval]:
        """Return what waits for a decision."""
        return await self._database.read(lambda tx: approvals.pending(tx, cluster, namespace=namespace, limit=limit))

    async def start_turn(self, fence: Fence, turn: Turn) -> bool:
        """Queue a turn below the fence's task."""
        return await self._database.write(lambda tx: turns.start(tx, fence, turn))

    async def cancel_turns(self, fence: Fence, *, keys: Sequence[str], at: datetime) -> None:
        """End turns that nobody waits for."""
        del at
        await self._database.write(lambda tx: turns.cancel(tx, fence, keys=keys))

    async def get_cached(self, cluster: str, namespace: str, digest: str, *, at: datetime) -> CacheEntry | None:
        """Return what is kept under a digest."""
        return await self._database.read(lambda tx: cache.get(tx, cluster, namespace, digest=digest, at=at))

    async def drop_expired(self, *, at: datetime) -> int:
        """Delete expired cache entries."""
        return await self._database.write(lambda tx: cache.drop_expired(tx, at=at))

    async def begin_call(self, fence: Fence, intent: CallIntent) -> Begun:
        """Commit the intent."""
        return await self._database.write(lambda tx: calls.begin(tx, fence, intent))

    async def repeat_call(self, intent: CallIntent, *, lost: str) -> Begun | None:
        """Take over an intent from a gateway that died."""
        try:
            return await self._database.write(lambda tx: calls.repeat(tx, intent, lost=lost))
        except OverBudget:
            if await self._database.write(lambda tx: calls.take(tx, intent, lost=lost)):
                raise
            return None

    async def finish_call(self, task_id: str, key: str, answer: CallAnswer, *, span: Span | None) -> None:
        """Commit the answer and charge it."""
        await self._database.write(lambda tx: calls.finish(tx, task_id, key, answer=answer, span=span))

    async def spent(self, lines: Sequence[BudgetLine]) -> list[Spent]:
        """Return how budget lines stand."""
        return await self._database.read(lambda tx: budgets.spent(tx, lines))

    async def costs(
        self,
        cluster: str,
        *,
        by: Sequence[str],
        namespace: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
        workflow: str = "",
    ) -> list[CostRow]:
        """Return sums, highest cost first."""
        return await self._database.read(
            lambda tx: costs.query(tx, cluster, by=by, namespace=namespace, workflow=workflow, between=(since, until))
        )

    async def get_call(self, task_id: str, key: str) -> CallRecord | None:
        """Return a call."""
        return await self._database.read(lambda tx: calls.get(tx, task_id, key))

    async def calls_of_run(self, uid: str) -> list[CallRecord]:
        """Return a run's calls."""
        return await self._database.read(lambda tx: calls.of_run(tx, uid))

    async def unwanted_calls(self, intents: Sequence[CallIntent]) -> set[tuple[str, str]]:
        """Return task and key of those whose task, node or item has ended."""
        return await self._database.read(lambda tx: calls.unwanted(tx, intents))

    async def beat_gateway(self, gateway: str, *, at: datetime) -> None:
        """Say that a gateway process lives."""
        await self._database.write(lambda tx: calls.beat(tx, gateway, at=at))

    async def gateway_seen(self, gateway: str) -> datetime | None:
        """Return when a gateway process last said that it lives."""
        return await self._database.read(lambda tx: calls.seen(tx, gateway))

    async def register(self, session: AgentSession, *, at: datetime) -> None:
        """Add a session in place of the pod's earlier ones."""
        await self._database.write(lambda tx: sessions.register(tx, session, at=at))

    async def get_session(self, token_digest: str) -> AgentSession | None:
        """Return a session that is not revoked."""
        return await self._database.read(lambda tx: sessions.get(tx, token_digest))

    async def list_sessions(self, cluster: str) -> list[AgentSession]:
        """Return the sessions that are not revoked."""
        return await self._database.read(lambda tx: sessions.list_sessions(tx, cluster))

    async def finished_runs(
        self, cluster: str, *, namespace: str, workflow: str, since: datetime | None = None, limit: int = 100
    ) -> list[Run]:
        """Return a workflow's finished runs."""
        return await self._database.read(
            lambda tx: runs.finished(tx, cluster, namespace=namespace, workflow=workflow, since=since, limit=limit)
        )

    async def runs_to_export(self, *, limit: int = 20) -> list[Run]:
        """Return finished runs whose trace was not exported."""
        return await self._database.read(lambda tx: runs.to_export(tx, limit=limit))

    async def mark_exported(self, uid: str) -> None:
        """Remember that a run's trace was exported."""
        await self._database.write(lambda tx: runs.mark_exported(tx, uid))

    async def nodes_of_run(self, uid: str) -> list[NodeRecord]:
        """Return a run's node records."""
        return await self._database.read(lambda tx: reading.nodes_of_run(tx, uid))

    async def spans_of_run(self, uid: str) -> list[Span]:
        """Return a run's spans."""
        return await self._database.read(lambda tx: reading.spans_of_run(tx, uid))

    async def add_logs(self, fence: Fence, *, first: int, records: Sequence[LogRecord]) -> None:
        """Add lines to a run's log."""
        await self._database.write(lambda tx: tasks.add_logs(tx, fence, first=first, records=records))

    async def logs_of_run(self, uid: str, *, after: int = 0, limit: int = 1000) -> list[LogRecord]:
        """Return lines with an id over *after*."""
        return await self._database.read(lambda tx: reading.logs_of_run(tx, uid, after=after, limit=limit))
