"""The work queue: tasks are claimed with an attempt, and only who holds the claim writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, insert, select, update

from fairlead.errors import Conflict
from fairlead.storage.base import (
    MAX_ATTEMPTS_WITHOUT_PROGRESS,
    AgentSession,
    Claimed,
    Effects,
    Fence,
    Fenced,
    Revision,
    RunEnd,
    RunState,
    Task,
    TaskState,
)
from fairlead.storage.sql import runs as run_rows
from fairlead.storage.sql.rows import build, columns, values
from fairlead.storage.sql.tables import journal, nodes, runs, sessions, spans, tasks
from fairlead.storage.sql.transaction import Transaction

_TASK = select(*columns(tasks, Task))
_BY_ID = _TASK.where(tasks.c.id == bindparam("id"))
_LOCKED = _BY_ID.with_for_update(key_share=True)
_OF_RUN = _TASK.where(tasks.c.run_uid == bindparam("uid")).order_by(tasks.c.seq)
_OF_POD = _TASK.where(tasks.c.pod_uid == bindparam("pod_uid"), tasks.c.state == TaskState.CLAIMED).order_by(tasks.c.seq)
_DEPTHS = (
    select(tasks.c.pool, tasks.c.state, func.count())
    .where(tasks.c.cluster == bindparam("cluster"), tasks.c.state.in_((TaskState.QUEUED, TaskState.CLAIMED)))
    .group_by(tasks.c.pool, tasks.c.state)
)
_LIVE_SESSION = (
    select(sessions.c.id)
    .where(sessions.c.id == bindparam("id"), sessions.c.revoked.is_(False))
    .with_for_update(read=True)
)
_CLAIMABLE = (
    select(tasks.c.id)
    .where(
        tasks.c.pool == bindparam("pool"),
        tasks.c.state == TaskState.QUEUED,
        tasks.c.available_at <= bindparam("at"),
    )
    .order_by(tasks.c.rank, tasks.c.seq)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True, key_share=True)
)
_TAKE = (
    update(tasks)
    .where(tasks.c.id == bindparam("task"))
    .values(
        state=TaskState.CLAIMED,
        attempt=tasks.c.attempt + 1,
        session=bindparam("holder"),
        pod_uid=bindparam("pod"),
        claimed_length=tasks.c.journal_length,
    )
    .returning(*columns(tasks, Task), tasks.c.released)
)
_START = (
    update(runs)
    .where(runs.c.uid == bindparam("of_run"))
    .values(
        state=RunState.RUNNING,
        started_at=func.coalesce(runs.c.started_at, bindparam("now", type_=runs.c.started_at.type)),
        attempt=bindparam("number"),
        pod=bindparam("on_pod"),
    )
)
_ENTRIES = (
    select(journal.c.seq, journal.c.attempt, journal.c.entry)
    .where(journal.c.task_id == bindparam("id"))
    .order_by(journal.c.seq)
)
_ADD_ENTRY = insert(journal)
_GROW = update(tasks).where(tasks.c.id == bindparam("task")).values(journal_length=bindparam("length"))
_PROGRESS = update(runs).where(runs.c.uid == bindparam("of_run"))  # sets what it is given
_BACK = select(
    tasks.c.id,
    tasks.c.run_uid,
    tasks.c.pool,
    tasks.c.idle,
    tasks.c.released,
    tasks.c.journal_length,
    tasks.c.claimed_length,
)
_BACK_ONE = _BACK.where(tasks.c.id == bindparam("id"))
_BACK_POD = (
    _BACK.where(tasks.c.pod_uid == bindparam("pod_uid"), tasks.c.state == TaskState.CLAIMED)
    .order_by(tasks.c.seq)
    .with_for_update(key_share=True)
)
_CANCELLED = select(runs.c.cancel_reason, runs.c.cancel_message).where(runs.c.uid == bindparam("uid"))
_PUT_BACK = (
    update(tasks)
    .where(tasks.c.id == bindparam("task"))
    .values(
        state=TaskState.QUEUED,
        session="",
        pod_uid="",
        idle=bindparam("without_progress"),
        released=bindparam("given_back"),
    )
)
_REVOKE = (
    update(sessions)
    .where(sessions.c.pod_uid == bindparam("of_pod"), sessions.c.revoked.is_(False))
    .values(revoked=True)
)


def claim(tx: Transaction, session: AgentSession, *, limit: int, at: datetime) -> list[Claimed]:
    """Take queued tasks of a session's pool."""
    if tx.first(_LIVE_SESSION, {"id": session.id}) is None:
        raise Fenced(f"the session of pod {session.namespace}/{session.pod} is over: it has to register again")
    found = tx.all(_CLAIMABLE, {"pool": session.pool, "at": at, "most": limit})
    return [_take(tx, row.id, session, at=at) for row in found]


def _take(tx: Transaction, task_id: str, session: AgentSession, *, at: datetime) -> Claimed:
    row = tx.first(_TAKE, {"task": task_id, "holder": session.id, "pod": session.pod_uid})
    assert row is not None  # noqa: S101 - it is locked
    task = Task(*row[:-1])
    number = task.attempt - row.released
    tx.run(_START, {"of_run": task.run_uid, "now": at, "number": number, "on_pod": session.pod})
    run = run_rows.get(tx, task.run_uid)
    assert run is not None  # noqa: S101 - a task belongs to a run
    revision = run_rows.get_revision(tx, run.revision) or Revision(run.revision, {})
    tx.announce("run", run.uid)
    return Claimed(task, run, revision, tuple(entries(tx, task_id)))


def require(tx: Transaction, fence: Fence) -> Task:
    """Return the task, locked, if the fence holds it."""
    task = _written_by(tx, fence)
    if task.state is not TaskState.CLAIMED:
        raise Fenced(f"task {fence.task_id} is over")
    return task


def _written_by(tx: Transaction, fence: Fence) -> Task:
    row = tx.first(_LOCKED, {"id": fence.task_id})
    task = None if row is None else build(Task, row)
    if task is None or (task.session, task.attempt) != (fence.session, fence.attempt):
        raise Fenced(f"attempt {fence.attempt} of task {fence.task_id} is over")
    return task


def append(
    tx: Transaction, fence: Fence, *, first: int, new: Sequence[Mapping[str, Any]], effects: Effects, at: datetime
) -> int:
    """Add entries with their effects, skipping those that are there."""
    task = _written_by(tx, fence)
    length = max(task.journal_length, first + len(new))
    if new and length == task.journal_length:
        return length
    if task.state is not TaskState.CLAIMED:
        raise Fenced(f"task {fence.task_id} is over")
    if first > task.journal_length:
        raise Conflict(f"the journal of task {task.id} has {task.journal_length} entries, not {first}")
    _add_entries(tx, task, new[task.journal_length - first :], at=at)
    _apply(tx, task.run_uid, effects)
    tx.announce("run", task.run_uid)
    return length


def _add_entries(tx: Transaction, task: Task, new: Sequence[Mapping[str, Any]], *, at: datetime) -> None:
    if not new:
        return
    rows = [
        {"task_id": task.id, "seq": seq, "attempt": task.attempt, "at": at, "entry": entry}
        for seq, entry in enumerate(new, start=task.journal_length)
    ]
    tx.run(_ADD_ENTRY, rows)
    tx.run(_GROW, {"task": task.id, "length": task.journal_length + len(new)})


def _apply(tx: Transaction, run_uid: str, effects: Effects) -> None:
    tx.upsert(nodes, [values(node) for node in effects.nodes])
    tx.upsert(spans, [values(span) for span in effects.spans])
    names = ("done", "total", "current")
    progress = {name: value for name in names if (value := getattr(effects, name)) is not None}
    if progress:
        tx.run(_PROGRESS, progress | {"of_run": run_uid})
    if effects.end is not None:
        run_rows.finish(tx, run_uid, effects.end)


def release(tx: Transaction, fence: Fence, *, at: datetime) -> None:
    """Put a task back; the attempt does not count."""
    require(tx, fence)
    row = tx.first(_BACK_ONE, {"id": fence.task_id})
    if row is not None:
        _put_back(tx, row, lost=False, at=at)


def requeue_pod(tx: Transaction, pod_uid: str, *, at: datetime) -> list[str]:
    """Revoke a pod's sessions and put its tasks back."""
    tx.run(_REVOKE, {"of_pod": pod_uid})
    rows = tx.all(_BACK_POD, {"pod_uid": pod_uid})
    for row in rows:
        _put_back(tx, row, lost=True, at=at)
    return [row.run_uid for row in rows]


def _put_back(tx: Transaction, row: Any, *, lost: bool, at: datetime) -> None:
    idle = 0 if row.journal_length > row.claimed_length else row.idle + lost
    cancelled = tx.first(_CANCELLED, {"uid": row.run_uid})
    if cancelled is not None and cancelled.cancel_reason:
        end = RunEnd(RunState.CANCELLED, cancelled.cancel_reason, cancelled.cancel_message, None, at)
        run_rows.finish(tx, row.run_uid, end)
        return
    if idle >= MAX_ATTEMPTS_WITHOUT_PROGRESS:
        run_rows.finish(tx, row.run_uid, _exhausted(at))
        return
    given_back = row.released + (not lost)
    tx.run(_PUT_BACK, {"task": row.id, "without_progress": idle, "given_back": given_back})
    tx.announce("run", row.run_uid)
    tx.announce("queue", row.pool)


def _exhausted(at: datetime) -> RunEnd:
    message = (
        f"{MAX_ATTEMPTS_WITHOUT_PROGRESS} pods in a row were lost before they got anything done; "
        "look at the pods' logs and events (memory limit, image), then start the run again."
    )
    return RunEnd(RunState.FAILED, "AttemptsExhausted", message, None, at)


def entries(tx: Transaction, task_id: str) -> list[Mapping[str, Any]]:
    """Return a task's journal."""
    return [{**row.entry, "seq": row.seq, "attempt": row.attempt} for row in tx.all(_ENTRIES, {"id": task_id})]


def of_run(tx: Transaction, uid: str) -> list[Task]:
    """Return a run's tasks."""
    return [build(Task, row) for row in tx.all(_OF_RUN, {"uid": uid})]


def of_pod(tx: Transaction, pod_uid: str) -> list[Task]:
    """Return what a pod holds."""
    return [build(Task, row) for row in tx.all(_OF_POD, {"pod_uid": pod_uid})]


def depths(tx: Transaction, cluster: str) -> dict[str, tuple[int, int]]:
    """Return, by pool, how many tasks wait and how many are claimed."""
    found: dict[str, dict[TaskState, int]] = {}
    for pool, state, number in tx.all(_DEPTHS, {"cluster": cluster}):
        found.setdefault(pool, {})[state] = number
    return {pool: (n.get(TaskState.QUEUED, 0), n.get(TaskState.CLAIMED, 0)) for pool, n in found.items()}
