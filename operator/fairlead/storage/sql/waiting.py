"""Tasks that wait: parked by their pod or because the run is suspended, woken by signals and times."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select, update

from fairlead.storage.base import ApprovalState, Fence, Run, Signal, Span, TaskState, Verdict
from fairlead.storage.sql import approvals, queue, tasks
from fairlead.storage.sql import runs as run_rows
from fairlead.storage.sql.rows import values
from fairlead.storage.sql.tables import approvals as approval_table
from fairlead.storage.sql.tables import runs, spans
from fairlead.storage.sql.tables import tasks as task_table
from fairlead.storage.sql.transaction import Transaction
from fairlead_agent.protocol import RESUME

_AT_ONCE = 200
"""How many of each kind are woken in one transaction."""
_SUSPEND = update(runs).where(runs.c.uid == bindparam("of_run")).values(suspended=bindparam("held_up"))
_HOLD = update(task_table).where(task_table.c.id == bindparam("task")).values(held=bindparam("held_up"))
_TIMED = (task_table.c.state == TaskState.PARKED, task_table.c.held.is_(False), task_table.c.wake_at.is_not(None))
_NEXT_TASK = select(task_table.c.wake_at).where(*_TIMED).order_by(task_table.c.wake_at).limit(1)
_PENDING = approval_table.c.state == ApprovalState.PENDING
_NEXT_APPROVAL = select(approval_table.c.deadline).where(_PENDING).order_by(approval_table.c.deadline).limit(1)
# What another transaction holds at this moment is left to it, or to the next time.
_DUE_TASKS = (
    queue.ROW.where(*_TIMED, task_table.c.wake_at <= bindparam("at"))
    .order_by(task_table.c.wake_at)
    .limit(_AT_ONCE)
    .with_for_update(key_share=True, skip_locked=True)
)
_DUE_APPROVALS = (
    select(approval_table.c.task_id, approval_table.c.key, approval_table.c.on_timeout)
    .join(task_table, task_table.c.id == approval_table.c.task_id)
    .where(_PENDING, approval_table.c.deadline <= bindparam("at"))
    .order_by(approval_table.c.deadline)
    .limit(_AT_ONCE)
    .with_for_update(of=task_table, key_share=True, skip_locked=True)
)


def park(
    tx: Transaction, fence: Fence, *, keys: Sequence[str], wake_at: datetime | None, reason: str, at: datetime
) -> list[Signal]:
    """Give a task back until something comes, unless it has come already."""
    row = tasks.require(tx, fence)
    there = _there(tx, row, keys, at=at)
    if there:
        return there
    if row.kind == "run" and tasks.cancelled(tx, row.run_uid):
        tasks.give_back(tx, row, lost=False, at=at)
        return []
    waits = queue.Waits(keys, _earliest(wake_at, row.deadline, after=at), reason)
    queue.park(tx, row, waits, attempts=tasks.account(row, lost=False))
    return []


def _there(tx: Transaction, row: Any, keys: Sequence[str], *, at: datetime) -> list[Signal]:
    wanted = frozenset(keys)
    there = [signal for signal in queue.signals_of(tx, row.id) if signal.key in wanted] if wanted else []
    if RESUME in wanted and not row.held:
        there.append(Signal(row.id, RESUME, {}, at))
    return there


def _earliest(wake_at: datetime | None, deadline: datetime | None, *, after: datetime) -> datetime | None:
    """Return when to go on at the latest. A deadline that is over has been dealt with: it wakes nobody again."""
    times = [wake_at, deadline if deadline is not None and deadline > after else None]
    return min((time for time in times if time is not None), default=None)


def next_due(tx: Transaction) -> datetime | None:
    """Return the next time at which something has to be woken or decided."""
    times = [row[0] for row in (tx.first(_NEXT_TASK), tx.first(_NEXT_APPROVAL)) if row is not None]
    return min(times, default=None)


def wake(tx: Transaction, *, at: datetime) -> datetime | None:
    """Wake and decide what is due."""
    for row in tx.all(_DUE_TASKS, {"at": at}):
        queue.enqueue(tx, row)
    for row in tx.all(_DUE_APPROVALS, {"at": at}):
        verdict = Verdict(approved=row.on_timeout == "Approve", by="", at=at, via="timeout")
        approvals.decide(tx, row.task_id, row.key, verdict=verdict)
    return next_due(tx)


def signal(tx: Transaction, new: Signal) -> bool:
    """Bring a signal about."""
    row = queue.lock(tx, new.task_id)
    return row is not None and queue.deliver(tx, row, new.key, value=new.value, at=new.at)


def suspend(tx: Transaction, uid: str, *, suspended: bool, at: datetime, span: Span | None) -> Run | None:
    """Suspend or resume a run."""
    rows = queue.lock_run(tx, uid)
    run = run_rows.get(tx, uid)
    if run is None or run.state.final or run.suspended == suspended:
        return run
    tx.run(_SUSPEND, {"of_run": uid, "held_up": suspended})
    for row in rows:
        if row.state is not TaskState.DONE and not run.cancel_reason:
            tx.run(_HOLD, {"task": row.id, "held_up": suspended})
            _hold(tx, row) if suspended else _let_go(tx, row, at=at)
    if span is not None:
        tx.upsert(spans, [values(span)])
    tx.announce("run", uid)
    return run_rows.get(tx, uid)


def _hold(tx: Transaction, row: Any) -> None:
    if row.state is TaskState.QUEUED:
        queue.park(tx, row, run_rows.UNTIL_RESUMED)
    elif row.state is TaskState.PARKED:
        queue.show_parked(tx, row, run_rows.UNTIL_RESUMED.reason)


def _let_go(tx: Transaction, row: Any, *, at: datetime) -> None:
    if row.state is not TaskState.PARKED:
        return
    late = row.wake_at is not None and row.wake_at <= at
    came = {signal.key for signal in queue.signals_of(tx, row.id)} | {RESUME}
    if late or not came.isdisjoint(row.waits_for):
        queue.enqueue(tx, row)
    else:
        queue.show_parked(tx, row, row.parked)
