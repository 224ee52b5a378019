"""The spans of nodes and their items: what their records say, as a trace has it. So they are kept once, as records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fairlead.storage.base import EMPTY_ITEM, NodeRecord, Span
from fairlead.tracing.attributes import attributes, bounded, failure
from fairlead.tracing.ids import node_span_id, span_id
from fairlead_agent.graph import paths
from fairlead_agent.protocol import State

SPAN_STATUS: Final = {State.SUCCEEDED: "ok", State.FAILED: "error"}
_SPAN_STATUS_OF: Final = {state.value: status for state, status in SPAN_STATUS.items()}
_BAD: Final = frozenset({"Failed", "Retrying", "Cancelled"})


def node_span(record: NodeRecord) -> Span | None:
    """Return the span of a node or an item; None if it has neither begun nor ended."""
    node, uid, iteration = record.node, record.run_uid, record.iteration
    item = "" if record.item == EMPTY_ITEM else record.item or None
    began = record.started_at or record.finished_at
    if began is None:
        return None
    return Span(
        run_uid=uid,
        span_id=node_span_id(uid, node, item, iteration),
        parent_id=_around(uid, node) if item is None else node_span_id(uid, node, None, iteration),
        name=bounded(node if item is None else f"{node}[{record.item[:64]}]", 256),
        kind="node" if item is None else "item",
        started_at=began,
        finished_at=record.finished_at,
        status=_SPAN_STATUS_OF.get(record.state, "unset"),
        attributes=_attributes(record, item),
    )


def _around(uid: str, path: str) -> str:
    """Return the span that a node lies in: the run's, or that of the node whose sub-workflow it is part of."""
    outer = paths.parent(path)
    return span_id(uid) if outer is None else node_span_id(uid, *outer)


def _attributes(record: NodeRecord, item: str | None) -> Mapping[str, Any]:
    known = attributes(
        fairlead__node=record.node,
        fairlead__item=item,
        fairlead__iteration=record.iteration if record.iteration > 1 else None,
        fairlead__tries=record.tries if record.tries > 1 else None,
        fairlead__attempt=record.attempt,
        fairlead__state=record.state,
        fairlead__reason=record.reason if record.state == "Skipped" or record.reused else None,
        fairlead__reused=record.reused,
    )
    return {**known, **(failure(record.reason, record.message) if record.state in _BAD else {})}
