"""The work queue: tasks are claimed with an attempt, and only who holds the claim writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, insert, select, update

from fairlead.errors import Conflict, TooLarge
from fairlead.storage.base import (
    MAX_ATTEMPTS_WITHOUT_PROGRESS,
    MAX_JOURNAL_BYTES,
    AgentSession,
    Claimed,
    Effects,
    Fence,
    Fenced,
    Grown,
    LogRecord,
    NodeRecord,
    PoolLoad,
    Revision,
    RunEnd,
    RunState,
    Task,
    TaskState,
)
from fairlead.storage.sql import cache, queue, reading
from fairlead.storage.sql import runs as run_rows
from fairlead.storage.sql.rows import build, columns, values
from fairlead.storage.sql.tables import journal, nodes, runs, sessions, spans, tasks
from fairlead.storage.sql.transaction import Transaction
from fairlead_agent.protocol import ErrorInfo, TurnAnswer

_SUMS = ("input_tokens", "output_tokens", "cost", "unpriced_calls")
"""Of a node's record, kept by `costs`."""

_TASK = select(*columns(tasks, Task))
_BY_ID = _TASK.where(tasks.c.id == bindparam("id"))
_PARENT = select(tasks.c.parent).where(tasks.c.id == bindparam("id"))
_OF_RUN = _TASK.where(tasks.c.run_uid == bindparam("uid")).order_by(tasks.c.seq)
_OF_POD = _TASK.where(tasks.c.pod_uid == bindparam("pod_uid"), tasks.c.state == TaskState.CLAIMED).order_by(tasks.c.seq)
_DEPTHS = (
    select(tasks.c.pool, tasks.c.state, func.count())
    .where(tasks.c.cluster == bindparam("cluster"), tasks.c.state.in_((TaskState.QUEUED, TaskState.CLAIMED)))
    .group_by(tasks.c.pool, tasks.c.state)
)
_LOAD = (
    select(tasks.c.pod_uid, func.count())
    .where(tasks.c.pool == bindparam("pool"), tasks.c.state.in_((TaskState.QUEUED, TaskState.CLAIMED)))
    .group_by(tasks.c.pod_uid)
)
"""What is queued has no pod."""
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
        logged=0,
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
_BY_FENCE = (
    tasks.c.id == bindparam("task"),
    tasks.c.session == bindparam("holder"),
    tasks.c.attempt == bindparam("number"),
    tasks.c.state == TaskState.CLAIMED,
)
_HELD = select(tasks.c.id).where(*_BY_FENCE).with_for_update(key_share=True)
_EXTEND = (
    update(tasks)
    .where(*_BY_FENCE, tasks.c.journal_length == bindparam("first"), tasks.c.journal_bytes <= bindparam("bytes_before"))
    .values(journal_length=bindparam("length"), journal_bytes=tasks.c.journal_bytes + bindparam("more_bytes"))
    .returning(tasks.c.id, tasks.c.run_uid, tasks.c.parent, tasks.c.key)
)
_GROW = (
    update(tasks)
    .where(tasks.c.id == bindparam("task"))
    .values(journal_length=bindparam("length"), journal_bytes=tasks.c.journal_bytes + bindparam("more_bytes"))
)
_LOGGED = update(tasks).where(tasks.c.id == bindparam("task")).values(logged=bindparam("lines"))
_PROGRESS = update(runs).where(runs.c.uid == bindparam("of_run")).returning(runs.c.cancel_reason)
"""Sets what it is given."""
_ON_POD = select(tasks.c.id, tasks.c.parent).where(
    tasks.c.pod_uid == bindparam("pod_uid"), tasks.c.state == TaskState.CLAIMED
)
_CANCELLED = select(runs.c.cancel_reason, runs.c.cancel_message, runs.c.handlers).where(
    runs.c.uid == bindparam("uid"), runs.c.cancel_reason != ""
)
_REUSED = update(runs).where(runs.c.uid == bindparam("of_run")).values(reused=runs.c.reused + bindparam("more_reused"))
_REVOKE = (
    update(sessions)
    .where(sessions.c.pod_uid == bindparam("of_pod"), sessions.c.revoked.is_(False))
    .values(revoked=True)
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries for a journal: *first* of them are there before, and they take *size* bytes."""

    first: int
    entries: Sequence[Mapping[str, Any]]
    size: int = 0


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
    if task.kind == "run":
        number = task.attempt - row.released
        tx.run(_START, {"of_run": task.run_uid, "now": at, "number": number, "on_pod": session.pod})
    run = run_rows.get(tx, task.run_uid)
    assert run is not None  # noqa: S101 - a task belongs to a run
    revision = run_rows.get_revision(tx, run.revision) or Revision(run.revision, {})
    tx.announce("run", run.uid)
    return Claimed(task, run, revision, tuple(entries(tx, task_id)), tuple(queue.signals_of(tx, task_id)))


def check(tx: Transaction, fence: Fence) -> Task:
    """Return the task if the fence holds it."""
    row = tx.first(_BY_ID, {"id": fence.task_id})
    task = None if row is None else build(Task, row)
    if task is None or task.state is not TaskState.CLAIMED or not _holds(fence, task):
        raise Fenced(f"attempt {fence.attempt} of task {fence.task_id} is over")
    return task


def require(tx: Transaction, fence: Fence) -> Any:
    """Return the task's row, locked, if the fence holds it."""
    row = _written_by(tx, fence)
    if row.state is not TaskState.CLAIMED:
        raise Fenced(f"task {fence.task_id} is over")
    return row


def hold(tx: Transaction, fence: Fence) -> None:
    """Lock the task, if the fence holds it."""
    if tx.first(_HELD, _by_fence(fence)) is None:
        require(tx, fence)


def _by_fence(fence: Fence) -> dict[str, Any]:
    return {"task": fence.task_id, "holder": fence.session, "number": fence.attempt}


def _written_by(tx: Transaction, fence: Fence) -> Any:
    row = queue.lock(tx, fence.task_id)
    if row is None or not _holds(fence, row):
        raise Fenced(f"attempt {fence.attempt} of task {fence.task_id} is over")
    return row


def _holds(fence: Fence, task: Any) -> bool:
    return (task.session, task.attempt) == (fence.session, fence.attempt)


def append(tx: Transaction, fence: Fence, batch: Batch, *, effects: Effects, at: datetime) -> Grown:
    """Add entries with their effects, skipping those that are there."""
    if effects.turn is not None:
        _lock_parent(tx, fence.task_id)
    length, new = batch.first + len(batch.entries), batch.entries
    ends = effects.end is not None or effects.turn is not None  # that can always be said
    most = MAX_JOURNAL_BYTES - (0 if ends else batch.size)
    grown = {"first": batch.first, "length": length, "bytes_before": most, "more_bytes": batch.size}
    row = tx.first(_EXTEND, _by_fence(fence) | grown) if new else None
    if row is None:
        row = _written_by(tx, fence)
        if new and length <= row.journal_length:
            told = row.kind == "run" and cancelled(tx, row.run_uid) is not None
            return Grown(row.journal_length, cancelled=told)
        if row.journal_bytes > most:
            raise TooLarge(f"the journal would have over {MAX_JOURNAL_BYTES >> 20} MiB: let nodes return less")
        new, length = _missing(tx, row, batch), max(row.journal_length, length)
    if new:
        _add_entries(tx, fence, new, first=length - len(new), at=at)
    to_end = _progress(tx, row.run_uid, effects)
    _apply(tx, row, effects, at=at)
    tx.announce("run", row.run_uid)
    return Grown(length, cancelled=to_end)


def _missing(tx: Transaction, row: Any, batch: Batch) -> Sequence[Mapping[str, Any]]:
    """Make room for those entries that are not there yet, and return them."""
    if row.state is not TaskState.CLAIMED:
        raise Fenced(f"task {row.id} is over")
    if batch.first > row.journal_length:
        raise Conflict(f"the journal of task {row.id} has {row.journal_length} entries, not {batch.first}")
    missing = batch.entries[row.journal_length - batch.first :]
    if missing:
        tx.run(_GROW, {"task": row.id, "length": row.journal_length + len(missing), "more_bytes": batch.size})
    return missing


def _lock_parent(tx: Transaction, task_id: str) -> None:
    """Lock the older task first, as everybody does."""
    found = tx.first(_PARENT, {"id": task_id})
    if found is not None and found.parent:
        queue.lock(tx, found.parent)


def _add_entries(tx: Transaction, fence: Fence, new: Sequence[Mapping[str, Any]], *, first: int, at: datetime) -> None:
    rows = [
        {"task_id": fence.task_id, "seq": seq, "attempt": fence.attempt, "at": at, "entry": entry}
        for seq, entry in enumerate(new, start=first)
    ]
    tx.run(_ADD_ENTRY, rows)


def _progress(tx: Transaction, uid: str, effects: Effects) -> bool:
    """Keep how far a run is; return whether it is being cancelled, as far as that is known then."""
    names = ("done", "total", "current")
    progress = {name: value for name in names if (value := getattr(effects, name)) is not None}
    run = tx.first(_PROGRESS, progress | {"of_run": uid}) if progress else None
    return run is not None and bool(run.cancel_reason)


def _apply(tx: Transaction, row: Any, effects: Effects, *, at: datetime) -> None:
    uid = row.run_uid
    if effects.reused:
        tx.run(_REUSED, {"of_run": uid, "more_reused": effects.reused})
    tx.upsert(nodes, [_node_values(node) for node in sorted(effects.nodes, key=_node_key)])
    tx.upsert(spans, [values(span) for span in effects.spans])
    cache.keep(tx, uid, effects.cached)
    queue.withdraw(tx, row, effects.withdrawn)
    if effects.end is not None:
        run_rows.finish(tx, uid, _explained(tx, uid, effects.end))
    if effects.turn is not None:
        queue.answer_turn(tx, row, effects.turn, at=at)


def _explained(tx: Transaction, uid: str, end: RunEnd) -> RunEnd:
    """Return how a run ended; the agent knows that it was cancelled, we know why."""
    cancel = cancelled(tx, uid) if end.state is RunState.CANCELLED else None
    return end if cancel is None else replace(end, reason=cancel.cancel_reason, message=cancel.cancel_message)


def _node_key(node: NodeRecord) -> tuple[str, str, int]:
    return node.node, node.item, node.iteration


def _node_values(node: NodeRecord) -> dict[str, Any]:
    """Return a record without its sums, which are not the writer's."""
    found = values(node)
    for name in _SUMS:
        del found[name]
    return found


def add_logs(tx: Transaction, fence: Fence, *, first: int, records: Sequence[LogRecord]) -> None:
    """Add lines of a claim, skipping those that are there."""
    row = require(tx, fence)
    new = records[max(row.logged - first, 0) :]
    if new:
        tx.run(_LOGGED, {"task": row.id, "lines": first + len(records)})
        reading.add_logs(tx, row.run_uid, new)


def release(tx: Transaction, fence: Fence, *, at: datetime, lost: bool) -> None:
    """Put a task back; the attempt counts only if it was lost."""
    _lock_parent(tx, fence.task_id)
    give_back(tx, require(tx, fence), lost=lost, at=at)


def requeue_pod(tx: Transaction, pod_uid: str, *, at: datetime) -> list[str]:
    """Revoke a pod's sessions and put its tasks back."""
    tx.run(_REVOKE, {"of_pod": pod_uid})
    found = tx.all(_ON_POD, {"pod_uid": pod_uid})
    locked = queue.lock_all(tx, {row.id for row in found} | {row.parent for row in found})
    rows = [row for row in locked if row.pod_uid == pod_uid and row.state is TaskState.CLAIMED]
    for row in rows:
        give_back(tx, row, lost=True, at=at)
    return list(dict.fromkeys(row.run_uid for row in rows))


def account(row: Any, *, lost: bool) -> queue.Attempts:
    """Return how a task's attempts count when this one is over too."""
    idle = 0 if row.journal_length > row.claimed_length else row.idle + lost
    return queue.Attempts(idle, row.released + (not lost))


def cancelled(tx: Transaction, uid: str) -> Any:
    """Return why a run is being cancelled, or None."""
    return tx.first(_CANCELLED, {"uid": uid})


def give_back(tx: Transaction, row: Any, *, lost: bool, at: datetime) -> None:
    """Take a task from its pod: back to the queue, or over if there is no use in that."""
    attempts = account(row, lost=lost)
    exhausted = attempts.idle >= MAX_ATTEMPTS_WITHOUT_PROGRESS
    end = _end_of(cancelled(tx, row.run_uid), exhausted=exhausted, turn=row.kind == "turn", at=at)
    if end is None and row.held:
        queue.park(tx, row, run_rows.UNTIL_RESUMED, attempts=attempts)
    elif end is None:
        queue.enqueue(tx, row, attempts=attempts)
    elif row.kind == "turn":
        queue.answer_turn(tx, row, _failure(end), at=at)
    else:
        run_rows.finish(tx, row.run_uid, end)


def _end_of(cancel: Any, *, exhausted: bool, turn: bool, at: datetime) -> RunEnd | None:
    """Return how a run or a turn ends whose task came back, or None if it goes on."""
    if cancel is not None and (turn or exhausted or not cancel.handlers):
        return RunEnd(RunState.CANCELLED, cancel.cancel_reason, cancel.cancel_message, None, at)
    return _exhausted(at) if exhausted else None


def _failure(end: RunEnd) -> dict[str, Any]:
    error = ErrorInfo(reason=end.reason, message=end.message, retryable=False)
    return TurnAnswer(error=error).model_dump(mode="json", by_alias=True)


def _exhausted(at: datetime) -> RunEnd:
    message = (
        f"{MAX_ATTEMPTS_WITHOUT_PROGRESS} pods in a row were lost, or dropped the task, before they got anything done; "
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


def load(tx: Transaction, pool: str) -> PoolLoad:
    """Return what a pool has to do."""
    held: dict[str, int] = dict(tx.all(_LOAD, {"pool": pool}))
    return PoolLoad(held.pop("", 0), held)
