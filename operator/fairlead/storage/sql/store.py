"""The `Storage` protocol over a `Database`: each method is one function in one transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text

from fairlead.storage.base import (
    AgentSession,
    CallAnswer,
    CallIntent,
    CallRecord,
    Claimed,
    Effects,
    Event,
    Fence,
    LogRecord,
    NodeRecord,
    QueuedTask,
    Revision,
    Run,
    RunEnd,
    Span,
    Task,
)
from fairlead.storage.migrations import bring_up_to_date
from fairlead.storage.sql import calls, reading, runs, sessions, tasks
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

    async def submit(self, run: Run, *, revision: Revision, task: QueuedTask) -> bool:
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

    async def cancel_run(self, uid: str, *, reason: str, message: str, at: datetime) -> Run | None:
        """Ask for the run's end."""
        return await self._database.write(lambda tx: runs.cancel(tx, uid, reason=reason, message=message, at=at))

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
        self, fence: Fence, *, first: int, entries: Sequence[Mapping[str, Any]], effects: Effects, at: datetime
    ) -> int:
        """Add entries to the journal with their effects; return its length."""
        return await self._database.write(
            lambda tx: tasks.append(tx, fence, first=first, new=entries, effects=effects, at=at)
        )

    async def release(self, fence: Fence, *, at: datetime) -> None:
        """Put the task back on the queue."""
        await self._database.write(lambda tx: tasks.release(tx, fence, at=at))

    async def check_fence(self, fence: Fence) -> Task:
        """Return the task if the fence still holds it."""
        return await self._database.read(lambda tx: tasks.require(tx, fence))

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

    async def begin_call(self, fence: Fence, intent: CallIntent) -> CallRecord | None:
        """Commit the intent."""
        return await self._database.write(lambda tx: calls.begin(tx, fence, intent))

    async def repeat_call(self, intent: CallIntent, *, lost: str) -> bool:
        """Take over an intent from a gateway that died."""
        return await self._database.write(lambda tx: calls.repeat(tx, intent, lost=lost))

    async def finish_call(self, task_id: str, key: str, answer: CallAnswer, *, span: Span | None) -> None:
        """Commit the answer and charge it."""
        await self._database.write(lambda tx: calls.finish(tx, task_id, key, answer=answer, span=span))

    async def get_call(self, task_id: str, key: str) -> CallRecord | None:
        """Return a call."""
        return await self._database.read(lambda tx: calls.get(tx, task_id, key))

    async def calls_of_run(self, uid: str) -> list[CallRecord]:
        """Return a run's calls."""
        return await self._database.read(lambda tx: calls.of_run(tx, uid))

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

    async def nodes_of_run(self, uid: str) -> list[NodeRecord]:
        """Return a run's node records."""
        return await self._database.read(lambda tx: reading.nodes_of_run(tx, uid))

    async def spans_of_run(self, uid: str) -> list[Span]:
        """Return a run's spans."""
        return await self._database.read(lambda tx: reading.spans_of_run(tx, uid))

    async def add_logs(self, records: Sequence[LogRecord]) -> None:
        """Add lines to runs' logs."""
        await self._database.write(lambda tx: reading.add_logs(tx, records))

    async def logs_of_run(self, uid: str, *, after: int = 0, limit: int = 1000) -> list[LogRecord]:
        """Return lines with an id over *after*."""
        return await self._database.read(lambda tx: reading.logs_of_run(tx, uid, after=after, limit=limit))
