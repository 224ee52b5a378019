"""Runs: created, read, ended, forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import bindparam, delete, exists, insert, select, update

from fairlead.storage.base import QueuedTask, Revision, Run, RunEnd, RunState, TaskState
from fairlead.storage.sql.rows import build, columns, values
from fairlead.storage.sql.tables import nodes, revisions, runs, spans, tasks
from fairlead.storage.sql.transaction import Transaction

_AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)
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
    .values(state=TaskState.DONE)
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
    )
)
_END_NODES = (
    update(nodes)
    .where(nodes.c.run_uid == bindparam("of_run"), nodes.c.finished_at.is_(None))
    .values(state=RunState.CANCELLED.value, reason=bindparam("end_reason"), finished_at=bindparam("end_at"))
)
_END_SPANS = (
    update(spans)
    .where(spans.c.run_uid == bindparam("of_run"), spans.c.finished_at.is_(None))
    .values(status=bindparam("end_status"), finished_at=bindparam("end_at"))
)
_LOCK_TASKS = (
    select(tasks.c.state)
    .where(tasks.c.run_uid == bindparam("uid"))
    .order_by(tasks.c.seq)
    .with_for_update(key_share=True)
)
_ASK_CANCEL = (
    update(runs)
    .where(runs.c.uid == bindparam("of_run"), runs.c.cancel_reason == "")
    .values(cancel_reason=bindparam("why"), cancel_message=bindparam("words"))
)


def submit(tx: Transaction, run: Run, revision: Revision, *, task: QueuedTask) -> bool:
    """Create a run with its revision and its task, unless it is known."""
    if get(tx, run.uid) is not None:
        return False
    tx.upsert(revisions, [values(revision)])
    if not tx.add_if_new(runs, values(run)):
        return False
    row = {"id": task.id, "run_uid": task.run_uid, "pool": task.pool, "deadline": task.deadline}
    state = {"state": TaskState.QUEUED, "rank": -task.priority, "available_at": _AT_ONCE, "cluster": run.cluster}
    tx.run(_ADD_TASK, row | state)
    tx.announce("run", run.uid)
    tx.announce("queue", task.pool)
    return True


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
    tx.run(_STOP_TASKS, {"of_run": uid})
    row = {"end_state": end.state, "end_message": end.message, "end_output": end.output}
    why = {"of_run": uid, "end_reason": end.reason, "end_at": end.at}
    if not tx.run(_END, row | why):
        return False
    tx.run(_END_NODES, why)
    status = "ok" if end.state is RunState.SUCCEEDED else "error"
    tx.run(_END_SPANS, {"of_run": uid, "end_at": end.at, "end_status": status})
    tx.announce("run", uid)
    return True


def cancel(tx: Transaction, uid: str, *, reason: str, message: str, at: datetime) -> Run | None:
    """Ask for a run's end, or end it if no pod holds it."""
    states = [row.state for row in tx.all(_LOCK_TASKS, {"uid": uid})]
    run = get(tx, uid)
    if run is None or run.state.final:
        return run
    if TaskState.CLAIMED in states:
        tx.run(_ASK_CANCEL, {"of_run": uid, "why": reason, "words": message})
        tx.announce("run", uid)
    else:
        finish(tx, uid, RunEnd(RunState.CANCELLED, reason, message, None, at))
    return get(tx, uid)


def forget(tx: Transaction, uid: str) -> None:
    """Delete a run with all that belongs to it, its revision too if no other run has it."""
    tx.all(_LOCK_TASKS, {"uid": uid})
    run = get(tx, uid)
    if run is None:
        return
    tx.first(_LOCK_REVISION, {"digest": run.revision})  # or two that go at once each leave it to the other
    tx.run(delete(runs).where(runs.c.uid == uid))
    used = exists(select(runs.c.uid).where(runs.c.revision == run.revision))
    tx.run(delete(revisions).where(revisions.c.digest == run.revision, ~used))
    tx.announce("run", uid)
