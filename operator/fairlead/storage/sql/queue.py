"""Rows of the work queue: locked, queued, parked, ended, and woken by signals.

Everything that changes something of a task locks it first, of more than one by age; then come its calls, the run, its
nodes and, by their keys, what runs share (sums of days, budget lines). So two never wait for each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select, update

from fairlead.storage.base import ApprovalState, Signal, TaskState
from fairlead.storage.sql import budgets
from fairlead.storage.sql.rows import build, columns
from fairlead.storage.sql.tables import approvals, runs, signals, tasks
from fairlead.storage.sql.transaction import Transaction

ROW = select(*(column for column in tasks.c if column is not tasks.c.request))
"""All of a task but the request of a turn, which may be large."""
LOCKED = ROW.with_for_update(key_share=True)
_ONE = LOCKED.where(tasks.c.id == bindparam("id"))
_LOCK = select(tasks.c.id).where(tasks.c.id == bindparam("id")).with_for_update(key_share=True)
_THESE = LOCKED.where(tasks.c.id.in_(bindparam("ids", expanding=True))).order_by(tasks.c.seq)
_OF_RUN = LOCKED.where(tasks.c.run_uid == bindparam("uid")).order_by(tasks.c.seq)
_PUT = (
    update(tasks)
    .where(tasks.c.id == bindparam("task"))
    .values(
        state=bindparam("into"),
        session="",
        pod_uid="",
        wake_at=bindparam("until"),
        waits_for=bindparam("keys"),
        parked=bindparam("why"),
        idle=bindparam("without_progress"),
        released=bindparam("given_back"),
    )
)
_SHOW = update(runs).where(runs.c.uid == bindparam("of_run")).values(parked=bindparam("why"))
_END = (
    update(tasks)
    .where(tasks.c.id == bindparam("task"))
    .values(state=TaskState.DONE, wake_at=None, waits_for=(), parked="")
)
_SIGNALS = (
    select(*columns(signals, Signal)).where(signals.c.task_id == bindparam("id")).order_by(signals.c.at, signals.c.key)
)

_CANCEL_APPROVALS = (
    update(approvals)
    .where(approvals.c.task_id == bindparam("of_task"), approvals.c.state == ApprovalState.PENDING)
    .values(state=ApprovalState.CANCELLED)
)
_WITHDRAW = _CANCEL_APPROVALS.where(
    approvals.c.node == bindparam("at_node"), approvals.c.item.in_(bindparam("of_items", expanding=True))
)
_FEWER_APPROVALS = (
    update(runs)
    .where(runs.c.uid == bindparam("of_run"))
    .values(pending_approvals=runs.c.pending_approvals - bindparam("number"))
)


@dataclass(frozen=True, slots=True)
class Waits:
    """What a parked task waits for, and why, in a word."""

    keys: Sequence[str] = ()
    wake_at: datetime | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Attempts:
    """How many attempts of a task in a row came to nothing, and how many were given back."""

    idle: int
    released: int


def lock(tx: Transaction, task_id: str) -> Any:
    """Return a task's row, locked, or None."""
    return tx.first(_ONE, {"id": task_id})


def only_lock(tx: Transaction, task_id: str) -> None:
    """Lock a task for whoever does not ask how it stands."""
    tx.first(_LOCK, {"id": task_id})


def lock_all(tx: Transaction, task_ids: Iterable[str]) -> Sequence[Any]:
    """Return the rows of those tasks that exist, locked."""
    wanted = sorted(filter(None, task_ids))
    return tx.all(_THESE, {"ids": wanted}) if wanted else ()


def lock_run(tx: Transaction, uid: str) -> Sequence[Any]:
    """Return the rows of a run's tasks, locked."""
    return tx.all(_OF_RUN, {"uid": uid})


def enqueue(tx: Transaction, row: Any, *, attempts: Attempts | None = None) -> None:
    """Put a task on the queue."""
    _put(tx, row, TaskState.QUEUED, waits=Waits(), attempts=attempts)
    if row.parked:
        show_parked(tx, row, "")
    tx.announce("queue", row.pool)
    tx.announce("run", row.run_uid)


def park(tx: Transaction, row: Any, waits: Waits, *, attempts: Attempts | None = None) -> None:
    """Take a task off the queue, or from its pod, until something comes."""
    _put(tx, row, TaskState.PARKED, waits=waits, attempts=attempts)
    show_parked(tx, row, waits.reason)
    tx.announce("run", row.run_uid)


def _put(tx: Transaction, row: Any, state: TaskState, *, waits: Waits, attempts: Attempts | None) -> None:
    counted = attempts or Attempts(row.idle, row.released)
    values = {
        "task": row.id,
        "into": state,
        "keys": tuple(waits.keys),
        "until": waits.wake_at,
        "why": waits.reason,
        "without_progress": counted.idle,
        "given_back": counted.released,
    }
    tx.run(_PUT, values)


def show_parked(tx: Transaction, row: Any, reason: str) -> None:
    """Say of the run why nobody holds it, if *row* is the run's own task."""
    if row.kind == "run":
        tx.run(_SHOW, {"of_run": row.run_uid, "why": reason})


def deliver(tx: Transaction, row: Any, key: str, *, value: Mapping[str, Any], at: datetime) -> bool:
    """Give a task, which is locked, a signal; False if it has one under this key."""
    if not tx.add_if_new(signals, {"task_id": row.id, "key": key, "value": value, "at": at}):
        return False
    if row.state is TaskState.PARKED and not row.held and key in row.waits_for:
        enqueue(tx, row)
    tx.announce("signal", row.id)
    return True


def signals_of(tx: Transaction, task_id: str) -> list[Signal]:
    """Return what has come for a task."""
    return [build(Signal, row) for row in tx.all(_SIGNALS, {"id": task_id})]


def withdraw(tx: Transaction, row: Any, places: Iterable[tuple[str, str]]) -> None:
    """Ask people no more what nodes and items of a task, which is locked, have asked and nobody has answered."""
    items: dict[str, list[str]] = defaultdict(list)
    for node, item in places:
        items[node].append(item)
    withdrawn = sum(
        tx.run(_WITHDRAW, {"of_task": row.id, "at_node": node, "of_items": of_node}) for node, of_node in items.items()
    )
    if withdrawn:
        tx.run(_FEWER_APPROVALS, {"of_run": row.run_uid, "number": withdrawn})


def end_turns(tx: Transaction, rows: Sequence[Any]) -> None:
    """End the tasks of turns of one run, which are locked, with what they have open."""
    open_calls = [call for row in rows for call in budgets.lock_open(tx, task_id=row.id)]
    unanswered = 0
    for row in rows:
        tx.run(_END, {"task": row.id})
        unanswered += tx.run(_CANCEL_APPROVALS, {"of_task": row.id})
        tx.announce("run", row.run_uid)
    if unanswered:
        tx.run(_FEWER_APPROVALS, {"of_run": rows[0].run_uid, "number": unanswered})
    budgets.spend_open(tx, open_calls)


def answer_turn(tx: Transaction, row: Any, answer: Mapping[str, Any], *, at: datetime) -> None:
    """End a turn and give its answer to the task that waits for it."""
    parent = lock(tx, row.parent)
    end_turns(tx, [row])
    if parent is not None and parent.state is not TaskState.DONE:
        deliver(tx, parent, row.key, value=answer, at=at)
