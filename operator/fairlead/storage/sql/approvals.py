"""Approvals: questions to people, and what became of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import bindparam, select, update

from fairlead.storage.base import Approval, ApprovalState, Fence, Verdict
from fairlead.storage.sql import queue, tasks
from fairlead.storage.sql.rows import build, columns, values
from fairlead.storage.sql.tables import approvals, nodes, runs
from fairlead.storage.sql.transaction import Transaction
from fairlead_agent.protocol import Decision, iteration_of

_APPROVAL = select(*columns(approvals, Approval))
_ONE = _APPROVAL.where(approvals.c.task_id == bindparam("task_id"), approvals.c.key == bindparam("key"))
_IN_ORDER = (approvals.c.requested_at, approvals.c.task_id, approvals.c.key)
_OF_RUN = _APPROVAL.where(approvals.c.run_uid == bindparam("uid")).order_by(*_IN_ORDER)
_COUNT = (
    update(runs)
    .where(runs.c.uid == bindparam("of_run"))
    .values(pending_approvals=runs.c.pending_approvals + bindparam("more"))
)
_OVER = select(nodes.c.node).where(
    nodes.c.run_uid == bindparam("uid"),
    nodes.c.node == bindparam("node"),
    nodes.c.item == bindparam("item"),
    nodes.c.iteration == bindparam("iteration"),
    nodes.c.finished_at.is_not(None),
)
_DECIDE = (
    update(approvals)
    .where(
        approvals.c.task_id == bindparam("of_task"),
        approvals.c.key == bindparam("of_key"),
        approvals.c.state == ApprovalState.PENDING,
    )
    .values(
        state=bindparam("verdict"),
        decided_by=bindparam("who"),
        decided_at=bindparam("when"),
        comment=bindparam("words"),
        via=bindparam("through"),
        verified=bindparam("sure"),
    )
)


def open_approval(tx: Transaction, fence: Fence, approval: Approval) -> Approval:
    """Ask people, unless they were asked under this key before, or who asks is over: a request may come late."""
    tasks.require(tx, fence)
    if tx.first(_OVER, _place(approval)) is not None:
        late = replace(approval, state=ApprovalState.CANCELLED)
        tx.add_if_new(approvals, values(late))
        return get(tx, approval.task_id, approval.key) or late
    if tx.add_if_new(approvals, values(approval)):
        tx.run(_COUNT, {"of_run": approval.run_uid, "more": 1})
        tx.announce("run", approval.run_uid)
        return approval
    return get(tx, approval.task_id, approval.key) or approval


def _place(approval: Approval) -> dict[str, Any]:
    place = {"uid": approval.run_uid, "node": approval.node, "item": approval.item}
    return place | {"iteration": iteration_of(approval.key)}


def decide(tx: Transaction, task_id: str, key: str, *, verdict: Verdict) -> Approval | None:
    """Decide an approval and tell its task. The first verdict stands."""
    task = queue.lock(tx, task_id)
    found = get(tx, task_id, key)
    if task is None or found is None:
        return None
    if tx.run(_DECIDE, _decision(task_id, key, verdict)) == 0:
        return found
    tx.run(_COUNT, {"of_run": found.run_uid, "more": -1})
    queue.deliver(tx, task, key, value=_to_signal(verdict), at=verdict.at)
    tx.announce("run", found.run_uid)
    return get(tx, task_id, key)


def _decision(task_id: str, key: str, verdict: Verdict) -> dict[str, Any]:
    return {
        "of_task": task_id,
        "of_key": key,
        "verdict": ApprovalState.APPROVED if verdict.approved else ApprovalState.REJECTED,
        "who": verdict.by,
        "when": verdict.at,
        "words": verdict.comment,
        "through": verdict.via,
        "sure": verdict.verified,
    }


def _to_signal(verdict: Verdict) -> dict[str, Any]:
    decision = Decision(
        approved=verdict.approved,
        by=verdict.by,
        at=verdict.at,
        comment=verdict.comment,
        via=verdict.via,
        verified=verdict.verified,
    )
    return decision.model_dump(mode="json", by_alias=True)


def get(tx: Transaction, task_id: str, key: str) -> Approval | None:
    """Return an approval."""
    row = tx.first(_ONE, {"task_id": task_id, "key": key})
    return None if row is None else build(Approval, row)


def of_run(tx: Transaction, uid: str) -> list[Approval]:
    """Return a run's approvals, oldest first."""
    return [build(Approval, row) for row in tx.all(_OF_RUN, {"uid": uid})]


def pending(tx: Transaction, cluster: str, *, namespace: str, limit: int) -> list[Approval]:
    """Return what waits for a decision, oldest first."""
    query = _APPROVAL.where(approvals.c.cluster == cluster, approvals.c.state == ApprovalState.PENDING)
    if namespace:
        query = query.where(approvals.c.namespace == namespace)
    return [build(Approval, row) for row in tx.all(query.order_by(*_IN_ORDER).limit(limit))]
