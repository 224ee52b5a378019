"""Turns: tasks that a task hands to an agent's pool, and waits for."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, insert, select

from fairlead.storage.base import Fence, TaskState, Turn
from fairlead.storage.sql import queue, tasks
from fairlead.storage.sql.runs import AT_ONCE, waiting_to_start
from fairlead.storage.sql.tables import tasks as task_table
from fairlead.storage.sql.transaction import Transaction

_KNOWN = select(task_table.c.id).where(
    task_table.c.parent == bindparam("of_parent"), task_table.c.key == bindparam("of_key")
)
_OPEN = queue.LOCKED.where(
    task_table.c.parent == bindparam("of_parent"), task_table.c.state != TaskState.DONE
).order_by(task_table.c.seq)
_ADD = insert(task_table)


def start(tx: Transaction, fence: Fence, turn: Turn) -> bool:
    """Queue a turn below the task that the fence holds, unless its key has one."""
    parent = tasks.require(tx, fence)
    if tx.first(_KNOWN, {"of_parent": parent.id, "of_key": turn.key}) is not None:
        return False
    row = {
        "id": turn.id,
        "run_uid": parent.run_uid,
        "cluster": parent.cluster,
        "pool": turn.pool,
        "rank": parent.rank,
        "deadline": turn.deadline,
        "available_at": AT_ONCE,
        "kind": "turn",
        "parent": parent.id,
        "key": turn.key,
        "request": turn.request,
    }
    tx.run(_ADD, row | waiting_to_start(held=parent.held))
    tx.announce("queue", turn.pool)
    tx.announce("run", parent.run_uid)
    return True


def cancel(tx: Transaction, fence: Fence, *, keys: Sequence[str]) -> None:
    """End turns of the task that the fence holds."""
    parent = tasks.require(tx, fence)
    wanted = frozenset(keys)
    queue.end_turns(tx, [row for row in tx.all(_OPEN, {"of_parent": parent.id}) if row.key in wanted])
