"""What people read of a run: nodes, spans, logs."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, insert, select

from fairlead.storage.base import LogRecord, NodeRecord, Span
from fairlead.storage.sql.rows import build, columns, values
from fairlead.storage.sql.tables import logs, nodes, runs, spans
from fairlead.storage.sql.transaction import Transaction

MAX_LINE = 16 * 1024

_NODES = (
    select(*columns(nodes, NodeRecord))
    .where(nodes.c.run_uid == bindparam("uid"))
    .order_by(nodes.c.started_at.is_(None), nodes.c.started_at, nodes.c.node, nodes.c.item, nodes.c.iteration)
)
_SPANS = (
    select(*columns(spans, Span))
    .where(spans.c.run_uid == bindparam("uid"))
    .order_by(spans.c.started_at, spans.c.span_id)
)
_LOGS = (
    select(*columns(logs, LogRecord))
    .where(logs.c.run_uid == bindparam("uid"), logs.c.id > bindparam("after"))
    .order_by(logs.c.id)
    .limit(bindparam("most"))
)
_ADD_LOG = insert(logs)
# One writer of a run's log at a time, so that ids become visible in their order and no reader passes one by.
_LOCK_RUN = select(runs.c.uid).where(runs.c.uid == bindparam("uid")).with_for_update(key_share=True)


def nodes_of_run(tx: Transaction, uid: str) -> list[NodeRecord]:
    """Return a run's nodes, by start; those that never started come last."""
    return [build(NodeRecord, row) for row in tx.all(_NODES, {"uid": uid})]


def spans_of_run(tx: Transaction, uid: str) -> list[Span]:
    """Return a run's spans."""
    return [build(Span, row) for row in tx.all(_SPANS, {"uid": uid})]


def add_logs(tx: Transaction, uid: str, records: Sequence[LogRecord]) -> None:
    """Add lines to a run's log."""
    tx.first(_LOCK_RUN, {"uid": uid})
    tx.run(_ADD_LOG, [_line(record) for record in records])
    tx.announce("log", uid)


def _line(record: LogRecord) -> dict[str, object]:
    row = values(record) | {"text": record.text[:MAX_LINE]}
    del row["id"]
    return row


def logs_of_run(tx: Transaction, uid: str, *, after: int, limit: int) -> list[LogRecord]:
    """Return lines, in order."""
    return [build(LogRecord, row) for row in tx.all(_LOGS, {"uid": uid, "after": after, "most": limit})]
