"""What calls cost, summed when they are answered: for the run, the node and its item, and the day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, func, select, update

from fairlead.errors import InvalidObject
from fairlead.storage.base import EMPTY_ITEM, CallAnswer, CostRow, Payment
from fairlead.storage.sql.rows import values
from fairlead.storage.sql.tables import costs, nodes, runs
from fairlead.storage.sql.transaction import Transaction
from fairlead_agent.graph import paths
from fairlead_agent.protocol import iteration_of

_OF_NODE = ("input_tokens", "output_tokens", "cost", "unpriced_calls")
_OF_RUN = (*_OF_NODE, "scripted_calls")
_OF_DAY = ("calls", *_OF_RUN)
_KEYS = ("day", "namespace", "workflow", "agent", "model")
_PAID_FOR = frozenset({"llm", "agent"})
"""Actions that cost by themselves."""
_CHARGE_RUN = (
    update(runs)
    .where(runs.c.uid == bindparam("of_run"))
    .values({name: runs.c[name] + bindparam(f"more_{name}") for name in _OF_RUN})
    .returning(runs.c.cluster, runs.c.namespace, runs.c.workflow)
)


@dataclass(frozen=True, slots=True)
class Sums:
    """What is added."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    unpriced_calls: int = 0
    scripted_calls: int = 0
    calls: int = 0


def payments(answer: CallAnswer) -> tuple[Payment, ...]:
    """Return what each Model took of an answered call."""
    cost = None if answer.priced and answer.cost is None else answer.cost or 0
    return answer.paid or (Payment(answer.model, answer.input_tokens, answer.output_tokens, cost),)


def of_answer(call: Any, answer: CallAnswer, paid: Sequence[Payment]) -> dict[str, Sums]:
    """Return what an answered call adds, by Model. It is a call of the Model that answered, whoever else was paid."""
    answered = answer.model or call.target
    sums = {
        each.model or answered: Sums(
            each.input_tokens, each.output_tokens, each.cost or 0, unpriced_calls=int(each.cost is None)
        )
        for each in paid
    }
    scripted = int(bool(answer.reply.get("scripted")))
    return sums | {answered: replace(sums.get(answered, Sums()), calls=1, scripted_calls=scripted)}


def of_lost(call: Any) -> dict[str, Sums]:
    """Return what a call adds that was lost: its worst case, as far as that is known. Tools and code cost nothing."""
    if call.action not in _PAID_FOR:
        return {}
    if call.reservation is None or not call.reservation.priced:
        return {call.target: Sums(unpriced_calls=1, calls=1)}
    granted = call.granted_output_tokens or 0
    worst = call.reservation.worst(granted)[0]
    return {call.target: Sums(call.reservation.input_tokens, granted, worst, calls=1)}


def charge(tx: Transaction, call: Any, sums: Mapping[str, Sums], *, at: datetime) -> None:
    """Add what a call cost each Model to everything that it is a part of."""
    total = {name: sum(getattr(of_model, name) for of_model in sums.values()) for name in _OF_RUN}
    if call.action not in _PAID_FOR and not any(total.values()):
        return
    total["unpriced_calls"] = min(total["unpriced_calls"], 1)  # it is one call
    run = tx.first(_CHARGE_RUN, {f"more_{name}": total[name] for name in _OF_RUN} | {"of_run": call.run_uid})
    if run is None:
        return
    _charge_nodes(tx, call, total)
    if call.action not in _PAID_FOR:
        return
    of_day = dict(run._mapping) | {"day": at.date().isoformat(), "agent": call.agent}  # noqa: SLF001 - a public name
    for paid in sorted(sums):  # a Model, or the external agent that was asked
        whom = {"model": paid} if call.action == "llm" else {"model": "", "agent": paid}
        tx.add_up(costs, of_day | values(sums[paid]) | whom, _OF_DAY)


def _charge_nodes(tx: Transaction, call: Any, added: Mapping[str, int]) -> None:
    """Add to the records of the node, its item, and what they lie in. A record that is not there yet is begun."""
    begun = {"state": "Running", "reason": "", "message": "", "tries": 1, "attempt": 1}
    row = begun | {"run_uid": call.run_uid} | {name: added[name] for name in _OF_NODE}
    for node, item, iteration in sorted(_records(call)):
        tx.add_up(nodes, row | {"node": node, "item": item, "iteration": iteration}, _OF_NODE)


def _records(call: Any) -> set[tuple[str, str, int]]:
    """Return the keys of the records that a call is a part of: its node's, and those of the sub-workflows around it."""
    iteration = iteration_of(call.key)
    found = {(call.node, "", iteration), (call.node, call.item, iteration)}
    around = paths.parent(call.node)
    while around is not None:
        node, item, iteration = around
        found |= {(node, "", iteration), (node, "" if item is None else item or EMPTY_ITEM, iteration)}
        around = paths.parent(node)
    return found


def query(
    tx: Transaction,
    cluster: str,
    *,
    by: Sequence[str],
    namespace: str,
    workflow: str,
    between: tuple[datetime | None, datetime | None],
) -> list[CostRow]:
    """Return sums of whole days, highest cost first; the end of *between* is no part of it."""
    unknown = set(by) - set(_KEYS)
    if unknown:
        raise InvalidObject(f"costs cannot be told by {min(unknown)!r}: give any of {', '.join(_KEYS)}", field="by")
    keys = [costs.c[name] for name in dict.fromkeys(by)]
    sums = [func.sum(costs.c[name]).label(name) for name in _OF_DAY]
    found = select(*keys, *sums).where(costs.c.cluster == cluster).group_by(*keys)
    found = found.having(func.count() > 0).order_by(func.sum(costs.c.cost).desc(), *keys)
    if namespace:
        found = found.where(costs.c.namespace == namespace)
    if workflow:
        found = found.where(costs.c.workflow == workflow)
    since, until = between
    if since is not None:
        found = found.where(costs.c.day >= since.date().isoformat())
    if until is not None:
        found = found.where(costs.c.day <= (until - timedelta(microseconds=1)).date().isoformat())
    return [_row(row, len(keys)) for row in tx.all(found)]


def _row(row: Any, width: int) -> CostRow:
    key = dict(zip(row._fields[:width], row[:width], strict=True))
    return CostRow(key, *(int(number) for number in row[width:]))
