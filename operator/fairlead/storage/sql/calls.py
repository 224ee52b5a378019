"""Calls to the world outside: the intent before it is sent, the answer before it is used."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import bindparam, select, update

from fairlead.storage.base import CallAnswer, CallIntent, CallRecord, CallState, Fence, Span
from fairlead.storage.sql import tasks
from fairlead.storage.sql.rows import build_call, values
from fairlead.storage.sql.tables import calls, gateways, runs, spans
from fairlead.storage.sql.transaction import Transaction

_ONE = select(calls).where(calls.c.task_id == bindparam("task_id"), calls.c.key == bindparam("key"))
_OF_RUN = select(calls).where(calls.c.run_uid == bindparam("uid")).order_by(calls.c.started_at, calls.c.key)
_OPEN = update(calls).where(
    calls.c.task_id == bindparam("of_task"), calls.c.key == bindparam("of_key"), calls.c.state == CallState.INTENT
)
_REPEAT = (
    _OPEN.where(calls.c.gateway == bindparam("lost"))
    .values(gateway=bindparam("by"), repeats=calls.c.repeats + 1)
    .returning(calls.c.run_uid)
)
_FINISH = _OPEN.values(
    state=CallState.DONE,
    reply=bindparam("new_reply"),
    finished_at=bindparam("new_finished_at"),
    input_tokens=bindparam("new_input_tokens"),
    output_tokens=bindparam("new_output_tokens"),
    cost=bindparam("new_cost"),
    priced=bindparam("new_priced"),
).returning(calls.c.run_uid)
_CHARGE = (
    update(runs)
    .where(runs.c.uid == bindparam("of_run"))
    .values(
        input_tokens=runs.c.input_tokens + bindparam("more_input"),
        output_tokens=runs.c.output_tokens + bindparam("more_output"),
        cost=runs.c.cost + bindparam("more_cost"),
        unpriced_calls=runs.c.unpriced_calls + bindparam("more_unpriced"),
        scripted_calls=runs.c.scripted_calls + bindparam("more_scripted"),
    )
)
_SEEN = select(gateways.c.seen_at).where(gateways.c.gateway == bindparam("gateway"))


def begin(tx: Transaction, fence: Fence, intent: CallIntent) -> CallRecord | None:
    """Commit an intent, or return the record that is there."""
    tasks.require(tx, fence)
    if tx.add_if_new(calls, values(intent) | {"state": CallState.INTENT}):
        return None
    return get(tx, intent.task_id, intent.key)


def repeat(tx: Transaction, intent: CallIntent, *, lost: str) -> bool:
    """Take an intent over from a gateway that died."""
    who = {"of_task": intent.task_id, "of_key": intent.key, "lost": lost, "by": intent.gateway}
    return tx.first(_REPEAT, who) is not None


def finish(tx: Transaction, task_id: str, key: str, *, answer: CallAnswer, span: Span | None) -> None:
    """Commit an answer and charge it, once."""
    row = {f"new_{name}": value for name, value in values(answer).items()}
    found = tx.first(_FINISH, row | {"of_task": task_id, "of_key": key})
    if found is None:
        return
    charge = {
        "of_run": found.run_uid,
        "more_input": answer.input_tokens,
        "more_output": answer.output_tokens,
        "more_cost": answer.cost or 0,
        "more_unpriced": int(answer.priced and answer.cost is None),
        "more_scripted": int(bool(answer.reply.get("scripted"))),
    }
    tx.run(_CHARGE, charge)
    if span is not None:
        tx.upsert(spans, [values(span)])
    tx.announce("run", found.run_uid)


def get(tx: Transaction, task_id: str, key: str) -> CallRecord | None:
    """Return a call."""
    row = tx.first(_ONE, {"task_id": task_id, "key": key})
    return None if row is None else build_call(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name


def of_run(tx: Transaction, uid: str) -> list[CallRecord]:
    """Return a run's calls."""
    return [build_call(row._mapping) for row in tx.all(_OF_RUN, {"uid": uid})]  # noqa: SLF001


def beat(tx: Transaction, gateway: str, *, at: datetime) -> None:
    """Say that a gateway lives."""
    tx.upsert(gateways, [{"gateway": gateway, "seen_at": at}])


def seen(tx: Transaction, gateway: str) -> datetime | None:
    """Return when a gateway last said that it lives."""
    row = tx.first(_SEEN, {"gateway": gateway})
    return None if row is None else row.seen_at
