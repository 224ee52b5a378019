"""Calls to the world outside: the intent before it is sent, the answer before it is used."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import bindparam, select, update

from fairlead.storage.base import Begun, CallAnswer, CallIntent, CallRecord, CallState, Fence, Span, TaskState
from fairlead.storage.sql import budgets, costs, queue, tasks
from fairlead.storage.sql.rows import build_call, values
from fairlead.storage.sql.tables import calls, gateways, nodes, spans
from fairlead.storage.sql.tables import tasks as work
from fairlead.storage.sql.transaction import Transaction
from fairlead_agent.protocol import iteration_of

_ONE = select(calls).where(calls.c.task_id == bindparam("task_id"), calls.c.key == bindparam("key"))
_OF_RUN = select(calls).where(calls.c.run_uid == bindparam("uid")).order_by(calls.c.started_at, calls.c.key)
_OPEN = update(calls).where(
    calls.c.task_id == bindparam("of_task"), calls.c.key == bindparam("of_key"), calls.c.state == CallState.INTENT
)
_CHARGED = (
    calls.c.run_uid,
    calls.c.key,
    calls.c.action,
    calls.c.node,
    calls.c.item,
    calls.c.target,
    calls.c.agent,
    calls.c.reservation,
    calls.c.granted_output_tokens,
    calls.c.charged,
    calls.c.started_at,
)
_TAKE = _OPEN.where(calls.c.gateway == bindparam("lost")).values(gateway=bindparam("by"))
_TAKEN = _TAKE.returning(calls.c.key)
_REPEAT = _TAKE.values(repeats=calls.c.repeats + 1).returning(*_CHARGED)
_GRANT = (
    update(calls)
    .where(calls.c.task_id == bindparam("of_task"), calls.c.key == bindparam("of_key"))
    .values(granted_output_tokens=bindparam("granted"))
)
_FINISH = _OPEN.values(
    state=CallState.DONE,
    reply=bindparam("new_reply"),
    finished_at=bindparam("new_finished_at"),
    input_tokens=bindparam("new_input_tokens"),
    output_tokens=bindparam("new_output_tokens"),
    cost=bindparam("new_cost"),
    priced=bindparam("new_priced"),
    model=bindparam("new_model"),
    paid=bindparam("new_paid"),
).returning(*_CHARGED)
_LIVE_TASKS = select(work.c.id).where(work.c.id.in_(bindparam("ids", expanding=True)), work.c.state != TaskState.DONE)
_ENDED_NODES = select(nodes.c.run_uid, nodes.c.node, nodes.c.item, nodes.c.iteration).where(
    nodes.c.run_uid.in_(bindparam("runs", expanding=True)),
    nodes.c.node.in_(bindparam("names", expanding=True)),
    nodes.c.item.in_(bindparam("items", expanding=True)),
    nodes.c.finished_at.is_not(None),
)
_SEEN = select(gateways.c.seen_at).where(gateways.c.gateway == bindparam("gateway"))


def begin(tx: Transaction, fence: Fence, intent: CallIntent) -> Begun:
    """Commit an intent with its reservation, or return the record that is there."""
    tasks.hold(tx, fence)
    if not tx.add_if_new(calls, values(intent) | {"state": CallState.INTENT}):
        known = get(tx, intent.task_id, intent.key)
        return Begun(known, None if known is None else known.granted_output_tokens)
    if intent.reservation is None:
        return Begun(None)
    granted = budgets.reserve(tx, intent.reservation, run_uid=intent.run_uid)
    _grant(tx, intent, granted)
    return Begun(None, granted)


def _grant(tx: Transaction, intent: CallIntent, granted: int | None) -> None:
    tx.run(_GRANT, {"of_task": intent.task_id, "of_key": intent.key, "granted": granted})


def repeat(tx: Transaction, intent: CallIntent, *, lost: str) -> Begun | None:
    """Take an intent over from a gateway that died, charge what may have been paid for nothing, and reserve again.

    Raises:
        OverBudget: another one does not fit beside the lost one.
    """
    queue.only_lock(tx, intent.task_id)
    call = tx.first(_REPEAT, _takeover(intent, lost))
    if call is None:
        return None
    costs.charge(tx, call, costs.of_lost(call), at=call.started_at)
    granted = budgets.renew(tx, call)
    _grant(tx, intent, granted)
    tx.announce("run", call.run_uid)
    return Begun(None, granted)


def take(tx: Transaction, intent: CallIntent, *, lost: str) -> bool:
    """Take an intent over from a gateway that died, to end it. Nothing is charged before that."""
    queue.only_lock(tx, intent.task_id)
    return tx.first(_TAKEN, _takeover(intent, lost)) is not None


def _takeover(intent: CallIntent, lost: str) -> dict[str, str]:
    return {"of_task": intent.task_id, "of_key": intent.key, "lost": lost, "by": intent.gateway}


def finish(tx: Transaction, task_id: str, key: str, *, answer: CallAnswer, span: Span | None) -> None:
    """Commit an answer and charge it, once."""
    queue.only_lock(tx, task_id)
    row = {f"new_{name}": value for name, value in values(answer).items()}
    call = tx.first(_FINISH, row | {"of_task": task_id, "of_key": key})
    if call is None:
        return
    paid = costs.payments(answer)
    costs.charge(tx, call, costs.of_answer(call, answer, paid), at=answer.finished_at)
    if span is not None:
        tx.upsert(spans, [values(span)])
    budgets.settle(tx, call, paid)
    tx.announce("run", call.run_uid)


def get(tx: Transaction, task_id: str, key: str) -> CallRecord | None:
    """Return a call."""
    row = tx.first(_ONE, {"task_id": task_id, "key": key})
    return None if row is None else build_call(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name


def of_run(tx: Transaction, uid: str) -> list[CallRecord]:
    """Return a run's calls."""
    return [build_call(row._mapping) for row in tx.all(_OF_RUN, {"uid": uid})]  # noqa: SLF001


def unwanted(tx: Transaction, intents: Sequence[CallIntent]) -> set[tuple[str, str]]:
    """Return task and key of those that nobody waits for."""
    if not intents:
        return set()
    live = {row.id for row in tx.all(_LIVE_TASKS, {"ids": sorted({intent.task_id for intent in intents})})}
    whose = {
        "runs": sorted({intent.run_uid for intent in intents}),
        "names": sorted({intent.node for intent in intents}),
        "items": sorted({"", *(intent.item for intent in intents)}),
    }
    ended = {(row.run_uid, row.node, row.item, row.iteration) for row in tx.all(_ENDED_NODES, whose)}

    def is_wanted(intent: CallIntent) -> bool:
        at = iteration_of(intent.key)
        places = {(intent.run_uid, intent.node, item, at) for item in ("", intent.item)}
        return intent.task_id in live and places.isdisjoint(ended)

    return {(intent.task_id, intent.key) for intent in intents if not is_wanted(intent)}


def beat(tx: Transaction, gateway: str, *, at: datetime) -> None:
    """Say that a gateway lives."""
    tx.upsert(gateways, [{"gateway": gateway, "seen_at": at}])


def seen(tx: Transaction, gateway: str) -> datetime | None:
    """Return when a gateway last said that it lives."""
    row = tx.first(_SEEN, {"gateway": gateway})
    return None if row is None else row.seen_at
