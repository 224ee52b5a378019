"""What calls of models cost, summed by whatever one wants to know it by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import reduce
from typing import Any, Final

from fairlead.core.profile import definition_path
from fairlead.errors import InvalidObject
from fairlead.services.outcomes import dollars
from fairlead.storage.base import CostRow, NodeRecord, Run, Storage

BY: Final = ("workflow", "namespace", "agent", "model", "day")
NODE: Final = "node"
MAX_RUNS: Final = 1000


@dataclass(frozen=True, slots=True)
class CostQuery:
    """Which costs are asked for."""

    by: tuple[str, ...]
    """Of `BY`, or `NODE` alone."""
    namespace: str = ""
    """Empty: all of them."""
    workflow: str = ""
    since: datetime | None = None
    until: datetime | None = None


class Costing:
    """Sums costs of one cluster."""

    def __init__(self, storage: Storage, *, cluster: str) -> None:
        self._storage = storage
        self._cluster = cluster

    async def costs(self, asked: CostQuery) -> dict[str, Any]:
        """Return sums as JSON, the dearest first.

        Raises:
            InvalidObject: it cannot be summed by that.
        """
        if asked.by == (NODE,):
            return await self._by_node(asked)
        unknown = [name for name in asked.by if name not in BY]
        if unknown or not asked.by:
            known = ", ".join((*BY, NODE))
            raise InvalidObject(
                f'costs are summed by {known}: not by "{", ".join(unknown)}"', field="by", reason="InvalidRequest"
            )
        rows = await self._storage.costs(
            self._cluster,
            by=asked.by,
            namespace=asked.namespace,
            since=asked.since,
            until=asked.until,
            workflow=asked.workflow,
        )
        return _show(asked.by, rows)

    async def of_run(self, run: Run) -> dict[str, Any]:
        """Return what each node of a run cost."""
        return _show_nodes([run], [await self._storage.nodes_of_run(run.uid)])

    async def _by_node(self, asked: CostQuery) -> dict[str, Any]:
        """Sum over the nodes of a workflow's latest finished runs."""
        if not asked.workflow or not asked.namespace:
            raise InvalidObject(
                "the costs of nodes are those of one workflow: name it", field="workflow", reason="InvalidRequest"
            )
        runs = await self._storage.finished_runs(
            self._cluster, namespace=asked.namespace, workflow=asked.workflow, since=asked.since, limit=MAX_RUNS
        )
        shown = _show_nodes(runs, [await self._storage.nodes_of_run(run.uid) for run in runs])
        return {**shown, "runs": len(runs), "truncated": len(runs) == MAX_RUNS}


_NOTHING: Final = CostRow({}, 0, 0, 0, 0, 0, 0)


def _plus(row: CostRow, other: CostRow) -> CostRow:
    return CostRow(
        row.key,
        row.calls + other.calls,
        row.input_tokens + other.input_tokens,
        row.output_tokens + other.output_tokens,
        row.cost + other.cost,
        row.unpriced_calls + other.unpriced_calls,
        row.scripted_calls + other.scripted_calls,
    )


def _show(by: tuple[str, ...], rows: Sequence[CostRow]) -> dict[str, Any]:
    total = reduce(_plus, rows, _NOTHING)
    items = [{**{str(name): str(value) for name, value in row.key.items()}, **_show_row(row)} for row in rows]
    return {"by": list(by), "currency": "USD", "items": items, "total": _show_row(total)}


def _show_nodes(runs: Sequence[Run], nodes: Sequence[Sequence[NodeRecord]]) -> dict[str, Any]:
    """Show sums by nodes' places in the definition; how many calls a node made is not kept, how often it ran is.

    The record of a node that runs a workflow has what its nodes cost, which are shown themselves.
    """
    sums: dict[str, CostRow] = {}
    every = [one for of_run in nodes for one in of_run if not one.item]
    around = {definition_path(scope) for one in every if (scope := one.node.rpartition("/")[0])}
    for node in (one for one in every if definition_path(one.node) not in around):
        if node.input_tokens or node.output_tokens or node.cost or node.unpriced_calls:
            path = definition_path(node.node)
            own = CostRow(
                {}, 1, node.input_tokens, node.output_tokens, node.cost, node.unpriced_calls, scripted_calls=0
            )
            sums[path] = _plus(sums.get(path, replace(_NOTHING, key={NODE: path})), own)
    shown = _show((NODE,), sorted(sums.values(), key=lambda row: (-row.cost, row.key[NODE])))
    for row in (*shown["items"], shown["total"]):
        row["executions"] = row.pop("calls")
    shown["total"]["scriptedCalls"] = sum(run.scripted_calls for run in runs)
    return shown


def _show_row(row: CostRow) -> dict[str, Any]:
    """Return a sum; its cost is null while the price of a call is unknown, and `known` is the rest."""
    known = dollars(row.cost)
    return {
        "calls": row.calls,
        "usage": {"inputTokens": row.input_tokens, "outputTokens": row.output_tokens},
        "cost": None if row.unpriced_calls else known,
        "known": known,
        "unpricedCalls": row.unpriced_calls,
        "scriptedCalls": row.scripted_calls,
    }
