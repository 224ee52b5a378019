"""Budget lines: the worst case of a call is reserved in all of them or in none, and settled when its answer is there.

Lines are locked in the order of their keys, after tasks, calls and runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, select, update

from fairlead.storage.base import BudgetLine, CallState, OverBudget, Payment, Reservation, Spent
from fairlead.storage.sql.tables import budgets, calls
from fairlead.storage.sql.transaction import Transaction

_SUMS = (budgets.c.cost, budgets.c.tokens, budgets.c.reserved_cost, budgets.c.reserved_tokens)
_LINE = select(*_SUMS).where(budgets.c.scope == bindparam("of_scope"), budgets.c.period == bindparam("of_period"))
_LOCKED = _LINE.with_for_update(key_share=True)
_MOVE = (
    update(budgets)
    .where(budgets.c.scope == bindparam("of_scope"), budgets.c.period == bindparam("of_period"))
    .values({column.name: column + bindparam(f"more_{column.name}") for column in _SUMS})
)
_OPEN = (
    select(calls.c.task_id, calls.c.key, calls.c.reservation, calls.c.granted_output_tokens)
    .where(calls.c.state == CallState.INTENT, calls.c.charged.is_(False), calls.c.reservation.is_not(None))
    .order_by(calls.c.task_id, calls.c.key)
    .with_for_update(key_share=True)
)
_OPEN_OF_TASK = _OPEN.where(calls.c.task_id == bindparam("id"))
_OPEN_OF_RUN = _OPEN.where(calls.c.run_uid == bindparam("id"))
_SET_CHARGED = (
    update(calls)
    .where(calls.c.task_id == bindparam("of_task"), calls.c.key == bindparam("of_key"))
    .values(charged=True)
)


def reserve(tx: Transaction, reservation: Reservation, *, run_uid: str) -> int:
    """Reserve a call's worst case in every line and return how many tokens of output that allows.

    Raises:
        OverBudget: a line does not have room for the least that makes sense.
    """
    standing = [_standing(tx, line, run_uid) for line in sorted(reservation.lines, key=_key)]
    least = min(reservation.least_output_tokens, reservation.output_tokens)
    tight = [spent for spent in standing if _room(reservation, spent, reserved=True) < least]
    if tight:
        hopeless = [spent for spent in tight if _room(reservation, spent, reserved=False) < least]
        spent = (hopeless or tight)[0]
        message = f"the call does not fit into {spent.line.name or spent.line.scope}"
        raise OverBudget(message, spent=spent, later=not hopeless)
    granted = min((_room(reservation, spent, reserved=True) for spent in standing), default=reservation.output_tokens)
    cost, tokens = reservation.worst(granted)
    for line in _each(reservation):
        _move(tx, _key(line), reserved_cost=cost, reserved_tokens=tokens)
    return granted


def _room(reservation: Reservation, spent: Spent, *, reserved: bool) -> int:
    """Return how many tokens of output a line leaves; less than none: not even the input fits."""
    line, room = spent.line, reservation.output_tokens
    if line.max_tokens is not None:
        used = spent.tokens + (spent.reserved_tokens if reserved else 0)
        room = min(room, line.max_tokens - used - reservation.input_tokens)
    if line.max_cost is not None:
        left = line.max_cost - spent.cost - (spent.reserved_cost if reserved else 0) - reservation.input_cost
        if left < 0:
            return -1
        if reservation.output_token_cost:
            room = min(room, left // reservation.output_token_cost)
    return room


def settle(tx: Transaction, call: Any, paid: Sequence[Payment]) -> None:
    """Put what each Model really took in the place of a call's reservation; an unknown cost counts as the worst."""
    if call.reservation is None or not call.reservation.lines:
        return
    worst_cost, worst_tokens = call.reservation.worst(call.granted_output_tokens or 0)
    held = "" if call.charged else "reserved_"  # what ended with its task was counted as spent
    for line in _each(call.reservation):
        own = [payment for payment in paid if _pays(line, payment.model)]
        costs = [payment.cost for payment in own if payment.cost is not None]
        more = Counter(
            cost=sum(costs) if len(costs) == len(own) else max(worst_cost, sum(costs)),
            tokens=sum(payment.input_tokens + payment.output_tokens for payment in own),
        )
        more.subtract({f"{held}cost": worst_cost, f"{held}tokens": worst_tokens})
        _move(tx, _key(line), **more)
    tx.announce("budget", "")


def _pays(line: BudgetLine, model: str) -> bool:
    """Whether what *model* took counts: of the Models that might have been asked, only for its own lines.

    No *model*: nobody knows which one it was, so it counts for all.
    """
    return not model or not line.scope.startswith("model/") or line.scope.rpartition("/")[2].partition("@")[0] == model


def renew(tx: Transaction, call: Any) -> int | None:
    """Charge a call that was lost at its worst case, and reserve again for the one that is sent in its place.

    Raises:
        OverBudget: a line does not have room for both.
    """
    if call.reservation is None:
        return None
    granted = call.granted_output_tokens or 0
    cost, tokens = call.reservation.worst(granted)
    held = {} if call.charged else {"reserved_cost": -cost, "reserved_tokens": -tokens}
    for line in _each(call.reservation):
        _move(tx, _key(line), cost=cost, tokens=tokens, **held)
    # what ended with its task holds nothing, and is settled as what was spent
    return granted if call.charged else reserve(tx, call.reservation, run_uid=call.run_uid)


def lock_open(tx: Transaction, *, task_id: str = "", run_uid: str = "") -> Sequence[Any]:
    """Return the calls of a task or a run that hold a reservation, locked."""
    return tx.all(_OPEN_OF_TASK, {"id": task_id}) if task_id else tx.all(_OPEN_OF_RUN, {"id": run_uid})


def spend_open(tx: Transaction, open_calls: Sequence[Any]) -> None:
    """Count the reservations of calls as spent: nobody may be left to answer them. An answer sets it right."""
    more: dict[tuple[str, str], Counter[str]] = {}
    for call in open_calls:
        tx.run(_SET_CHARGED, {"of_task": call.task_id, "of_key": call.key})
        cost, tokens = call.reservation.worst(call.granted_output_tokens or 0)
        spending = {"cost": cost, "tokens": tokens, "reserved_cost": -cost, "reserved_tokens": -tokens}
        for line in _each(call.reservation):
            more.setdefault(_key(line), Counter()).update(spending)
    for key in sorted(more):
        _move(tx, key, **more[key])
    if more:
        tx.announce("budget", "")


def spent(tx: Transaction, lines: Sequence[BudgetLine]) -> list[Spent]:
    """Return how lines stand."""
    found = [tx.first(_LINE, {"of_scope": line.scope, "of_period": line.period}) for line in lines]
    return [Spent(line, *(row or (0, 0, 0, 0))) for line, row in zip(lines, found, strict=True)]


def _standing(tx: Transaction, line: BudgetLine, run_uid: str) -> Spent:
    where = {"of_scope": line.scope, "of_period": line.period}
    row = tx.first(_LOCKED, where)
    if row is None:
        of_run = line.scope == f"run/{run_uid}" or line.scope.endswith(f"@{run_uid}")
        new = {"scope": line.scope, "period": line.period, "run_uid": run_uid if of_run else None}
        tx.add_if_new(budgets, new | dict.fromkeys((column.name for column in _SUMS), 0))
        row = tx.first(_LOCKED, where)
    return Spent(line, *row)


def _key(line: BudgetLine) -> tuple[str, str]:
    return line.scope, line.period


def _each(reservation: Reservation) -> Sequence[BudgetLine]:
    """Return each line once, in the order of locks. Two limits of one scope and period are one line."""
    return sorted({_key(line): line for line in reservation.lines}.values(), key=_key)


def _move(tx: Transaction, key: tuple[str, str], **more: int) -> None:
    """Add to the sums of a line."""
    scope, period = key
    changes = {f"more_{column.name}": more.get(column.name, 0) for column in _SUMS}
    tx.run(_MOVE, changes | {"of_scope": scope, "of_period": period})
