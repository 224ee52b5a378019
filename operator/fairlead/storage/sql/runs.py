"""Runs: created, read, ended, forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import bindparam, delete, exists, insert, select, update

from fairlead.storage.base import ApprovalState, QueuedTask, Revision, Run, RunEnd, RunState, TaskState
from fairlead.storage.sql import budgets, queue
from fairlead.storage.sql.rows import build, columns, values
from fairlead.storage.sql.tables import approvals, nodes, revisions, runs, spans, tasks
from fairlead.storage.sql.transaction import Transaction
from fairlead_agent.protocol import RESUME

UNTIL_RESUMED = queue.Waits((RESUME,), reason="Suspended")
"""What the tasks of a suspended run wait for."""
AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)
"""When a new task may be claimed: no clock is compared with another."""
_ACTIVE = (RunState.QUEUED, RunState.RUNNING)

_RUN = select(*columns(runs, Run))
_BY_UID = _RUN.where(runs.c.uid == bindparam("uid"))
_BY_NAME = (
    _RUN.where(
        runs.c.cluster == bindparam("cluster"),
        runs.c.namespace == bindparam("namespace"),
        runs.c.name == bindparam("name"),
    )
    .order_by(runs.c.seq.desc())
    .limit(1)
)
_REVISION = select(*columns(revisions, Revision)).where(revisions.c.digest == bindparam("digest"))
_LOCK_REVISION = _REVISION.with_for_update()
_ADD_TASK = insert(tasks)
_STOP_TASKS = (
    update(tasks)
    .where(tasks.c.run_uid == bindparam("of_run"), tasks.c.state != TaskState.DONE)
    .values(state=TaskState.DONE, wake_at=None, waits_for=(), parked="")
)
_END = (
    update(runs)
    .where(runs.c.uid == bindparam("of_run"), runs.c.state.in_(_ACTIVE))
    .values(
        state=bindparam("end_state"),
        reason=bindparam("end_reason"),
        message=bindparam("end_message"),
        output=bindparam("end_output"),
        finished_at=bindparam("end_at"),
        current=(),
        parked="",
        pending_approvals=0,
    )
)
_END_NODES = (
    update(nodes)
    .where(nodes.c.run_uid == bindparam("of_run"), nodes.c.finished_at.is_(None))
    .values(state=RunState.CANCELLED.value, reason=bindparam("end_reason"), message="", finished_at=bindparam("end_at"))
)
_END_SPANS = (
    update(spans)
    .where(spans.c.run_uid == bindparam("of_run"), spans.c.finished_at.is_(None))
    .values(status=bindparam("end_status"), finished_at=bindparam("end_at"))
)
_CANCEL_APPROVALS = (
    update(approvals)
    .where(approvals.c.run_uid == bindparam("of_run"), approvals.c.state == ApprovalState.PENDING)
    .values(state=ApprovalState.CANCELLED)
)
_ASK_CANCEL = (
    update(runs)
    .where(runs.c.uid == bindparam("of_run"), runs.c.cancel_reason == "")
    .values(cancel_reason=bindparam("why"), cancel_message=bindparam("words"), handlers=bindparam("with_handlers"))
)
_LET_GO = update(tasks).where(tasks.c.run_uid == bindparam("of_run")).values(held=False)
_FINISHED = (
    _RUN.where(
        runs.c.cluster == bindparam("cluster"),
        runs.c.namespace == bindparam("namespace"),
        runs.c.workflow == bindparam("workflow"),
        runs.c.finished_at >= bindparam("since", type_=runs.c.finished_at.type),
    )
    .order_by(runs.c.finished_at.desc(), runs.c.seq.desc())
    .limit(bindparam("most"))
)
_TO_EXPORT = (
    _RUN.where(runs.c.exported.is_(False), runs.c.finished_at.is_not(None))
    .order_by(runs.c.finished_at, runs.c.seq)
    .limit(bindparam("most"))
)
_MARK_EXPORTED = update(runs).where(runs.c.uid == bindparam("of_run")).values(exported=True)


def submit(tx: Transaction, run: Run, revision: Revision, *, task: QueuedTask | None) -> bool:
    """Create a run with its revision and its task, unless it is known."""
    if get(tx, run.uid) is not None:
        return False
    tx.upsert(revisions, [values(revision)])
    held = run.suspended and task is not None
    if not tx.add_if_new(runs, values(run) | {"parked": UNTIL_RESUMED.reason if held else ""}):
        return False
    tx.announce("run", run.uid)
    if task is not None:
        row = {"id": task.id, "run_uid": task.run_uid, "pool": task.pool, "deadline": task.deadline}
        order = {"rank": -task.priority, "available_at": AT_ONCE, "cluster": run.cluster}
        tx.run(_ADD_TASK, row | order | waiting_to_start(held=held))
        tx.announce("queue", task.pool)
    return True


def waiting_to_start(*, held: bool) -> dict[str, Any]:
    """Return the state of a new task: queued, or parked if its run is suspended."""
    waits = UNTIL_RESUMED if held else queue.Waits()
    state = TaskState.PARKED if held else TaskState.QUEUED
    return {"state": state, "held": held, "waits_for": waits.keys, "parked": waits.reason}


def get(tx: Transaction, uid: str) -> Run | None:
    """Return a run."""
    row = tx.first(_BY_UID, {"uid": uid})
    return None if row is None else build(Run, row)


def find(tx: Transaction, cluster: str, namespace: str, *, name: str) -> Run | None:
    """Return the latest run of a name."""
    row = tx.first(_BY_NAME, {"cluster": cluster, "namespace": namespace, "name": name})
    return None if row is None else build(Run, row)


def list_runs(tx: Transaction, cluster: str, *, namespace: str, workflow: str, active: bool, limit: int) -> list[Run]:
    """Return runs, latest first."""
    query = _RUN.where(runs.c.cluster == cluster).order_by(runs.c.seq.desc()).limit(limit)
    if namespace:
        query = query.where(runs.c.namespace == namespace)
    if workflow:
        query = query.where(runs.c.workflow == workflow)
    if active:
        query = query.where(runs.c.state.in_(_ACTIVE))
    return [build(Run, row) for row in tx.all(query)]


def get_many(tx: Transaction, uids: Sequence[str]) -> list[Run]:
    """Return those that exist, in the order they were created."""
    found: list[Run] = []
    for first in range(0, len(uids), 500):
        query = _RUN.where(runs.c.uid.in_(uids[first : first + 500])).order_by(runs.c.seq)
        found += [build(Run, row) for row in tx.all(query)]
    return found


def get_revision(tx: Transaction, digest: str) -> Revision | None:
    """Return a frozen revision."""
    row = tx.first(_REVISION, {"digest": digest})
    return None if row is None else build(Revision, row)


def finish(tx: Transaction, uid: str, end: RunEnd) -> bool:
    """End a run, its tasks, and whatever node or span of it had no end; False if it has ended already."""
    queue.lock_run(tx, uid)
    open_calls = budgets.lock_open(tx, run_uid=uid)
    tx.run(_STOP_TASKS, {"of_run": uid})
    row = {"end_state": end.state, "end_message": end.message, "end_output": end.output}
    why = {"of_run": uid, "end_reason": end.reason, "end_at": end.at}
    if not tx.run(_END, row | why):
        return False
    tx.run(_END_NODES, why)
    status = "ok" if end.state is RunState.SUCCEEDED else "error"
    tx.run(_END_SPANS, {"of_run": uid, "end_at": end.at, "end_status": status})
    tx.run(_CANCEL_APPROVALS, {"of_run": uid})
    budgets.spend_open(tx, open_calls)
    tx.announce("run", uid)
    return True


def cancel(tx: Transaction, uid: str, *, reason: str, message: str, at: datetime, handlers: bool) -> Run | None:
    """Ask for a run's end, or end it if no pod holds it and none has to run its handlers."""
    own = next((row for row in queue.lock_run(tx, uid) if row.kind == "run"), None)
    run = get(tx, uid)
    if run is None or run.state.final:
        return run
    claimed = own is not None and own.state is TaskState.CLAIMED
    if own is None or not (claimed or (handlers and run.started_at is not None)):
        finish(tx, uid, RunEnd(RunState.CANCELLED, reason, message, None, at))
        return get(tx, uid)
    tx.run(_ASK_CANCEL, {"of_run": uid, "why": reason, "words": message, "with_handlers": handlers})
    tx.run(_LET_GO, {"of_run": uid})
    if own.state is TaskState.PARKED:
        queue.enqueue(tx, own)
    tx.announce("run", uid)
    return get(tx, uid)


def forget(tx: Transaction, uid: str) -> None:
    """Delete a run with all that belongs to it, its revision too if no other run has it."""
    queue.lock_run(tx, uid)
    run = get(tx, uid)
    if run is None:
        return
    budgets.spend_open(tx, budgets.lock_open(tx, run_uid=uid))
    tx.first(_LOCK_REVISION, {"digest": run.revision})  # or two that go at once each leave it to the other
    tx.run(delete(runs).where(runs.c.uid == uid))
    used = exists(select(runs.c.uid).where(runs.c.revision == run.revision))
    tx.run(delete(revisions).where(revisions.c.digest == run.revision, ~used))
    tx.announce("run", uid)


def finished(
    tx: Transaction, cluster: str, *, namespace: str, workflow: str, since: datetime | None, limit: int
) -> list[Run]:
    """Return a workflow's finished runs, latest first."""
    where = {"cluster": cluster, "namespace": namespace, "workflow": workflow}
    rows = tx.all(_FINISHED, where | {"since": since or AT_ONCE, "most": limit})
    return [build(Run, row) for row in rows]


def to_export(tx: Transaction, *, limit: int) -> list[Run]:
    """Return finished runs whose trace was not exported, oldest first."""
    return [build(Run, row) for row in tx.all(_TO_EXPORT, {"most": limit})]


def mark_exported(tx: Transaction, uid: str) -> None:
    """Remember that a run's trace was exported."""
    tx.run(_MARK_EXPORTED, {"of_run": uid})
