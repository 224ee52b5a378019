"""The tables. Columns are named like the fields they hold. A change here needs a migration; a test compares the two."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Identity, Index, Integer, MetaData, Table, Text

from fairlead.storage.base import ApprovalState, CallState, RunState, TaskState
from fairlead.storage.sql.types import Instant, Json, JsonTuple, PaymentsJson, Prose, ReservationJson, Serial, Word

HEAD = "0005"
"""The revision that these tables are."""
VERSION_TABLE = "fairlead_version"
metadata = MetaData()


def _serial(name: str) -> Column[Any]:
    return Column(name, Serial, Identity(), primary_key=True)


def _text(name: str, **options: Any) -> Column[Any]:
    return Column(name, Text, nullable=False, **options)


def _number(name: str) -> Column[Any]:
    return Column(name, BigInteger, nullable=False, default=0)


def _run_uid(**options: Any) -> Column[Any]:
    return Column("run_uid", Text, ForeignKey("runs.uid", ondelete="CASCADE"), nullable=False, **options)


def _task_id() -> Column[Any]:
    return Column("task_id", Text, ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True)


revisions = Table(
    "revisions", metadata, Column("digest", Text, primary_key=True), Column("document", Json, nullable=False)
)

runs = Table(
    "runs",
    metadata,
    _serial("seq"),
    _text("uid", unique=True),
    _text("cluster"),
    _text("namespace"),
    _text("name"),
    _text("workflow"),
    Column("revision", Text, ForeignKey("revisions.digest"), nullable=False, index=True),
    Column("inputs", Json, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("state", Word(RunState), nullable=False),
    _text("reason"),
    Column("message", Prose, nullable=False),
    Column("output", Json),
    _text("cancel_reason"),
    Column("cancel_message", Prose, nullable=False, default=""),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    Column("done", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    Column("current", JsonTuple, nullable=False),
    Column("attempt", Integer, nullable=False),
    _text("pod"),
    _number("input_tokens"),
    _number("output_tokens"),
    _number("cost"),
    _number("unpriced_calls"),
    _number("scripted_calls"),
    Column("priority", Integer, nullable=False, default=0),
    Column("suspended", Boolean, nullable=False, default=False),
    _text("parked", default=""),
    Column("pending_approvals", Integer, nullable=False, default=0),
    Column("budget", Json),
    _text("rerun_of", default=""),
    _text("rerun_from", default=""),
    Column("reused", Integer, nullable=False, default=0),
    Column("exported", Boolean, nullable=False, default=False),
    Column("handlers", Boolean, nullable=False, default=False),  # cancelled, but a pod has to run its handlers
    Index("ix_runs_export", "exported", "finished_at"),
    Index("ix_runs_finished", "cluster", "namespace", "workflow", "finished_at"),
    Index("ix_runs_name", "cluster", "namespace", "name", "seq"),
    Index("ix_runs_state", "cluster", "state", "seq"),
    Index("ix_runs_seq", "cluster", "seq"),
)

tasks = Table(
    "tasks",
    metadata,
    _serial("seq"),
    _text("id", unique=True),
    _run_uid(index=True),
    _text("cluster"),
    _text("pool"),
    Column("rank", Integer, nullable=False),  # the priority negated, so that one index gives the order of claims
    Column("deadline", Instant),
    Column("state", Word(TaskState), nullable=False),
    Column("attempt", Integer, nullable=False, default=0),
    Column("released", Integer, nullable=False, default=0),  # attempts that were given back: they do not count
    Column("idle", Integer, nullable=False, default=0),  # attempts in a row that added nothing to the journal
    _text("pod_uid", default=""),
    _text("session", default=""),
    Column("journal_length", Integer, nullable=False, default=0),
    Column("claimed_length", Integer, nullable=False, default=0),  # the journal's length when it was claimed
    Column("journal_bytes", BigInteger, nullable=False, default=0),
    Column("logged", Integer, nullable=False, default=0),  # lines that the present attempt has sent
    Column("available_at", Instant, nullable=False),
    _text("kind", default="run"),
    _text("parent", default=""),
    _text("key", default=""),
    Column("request", Json, nullable=False, default={}),
    Column("wake_at", Instant),
    Column("waits_for", JsonTuple, nullable=False, default=()),  # of a parked task: the keys that wake it
    _text("parked", default=""),  # why it is parked
    Column("held", Boolean, nullable=False, default=False),  # its run is suspended: nothing queues it
    Index("ix_tasks_claim", "pool", "state", "rank", "seq"),
    Index("ix_tasks_depth", "cluster", "state", "pool"),
    Index("ix_tasks_parent", "parent", "key"),
    Index("ix_tasks_pod", "pod_uid", "state"),
    Index("ix_tasks_wake", "state", "held", "wake_at"),
)

journal = Table(
    "journal",
    metadata,
    _task_id(),
    Column("seq", Integer, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("at", Instant, nullable=False),
    Column("entry", Json, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    _run_uid(primary_key=True),
    Column("node", Text, primary_key=True),
    Column("item", Text, primary_key=True),
    Column("iteration", Integer, primary_key=True),
    _text("state"),
    _text("reason"),
    Column("message", Prose, nullable=False),
    Column("output", Json),
    Column("tries", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    _text("reused", default=""),
    _number("input_tokens"),
    _number("output_tokens"),
    _number("cost"),
    _number("unpriced_calls"),
)

spans = Table(
    "spans",
    metadata,
    _run_uid(primary_key=True),
    Column("span_id", Text, primary_key=True),
    _text("parent_id"),
    _text("name"),
    _text("kind"),
    Column("started_at", Instant, nullable=False),
    Column("finished_at", Instant),
    _text("status"),
    Column("attributes", Json, nullable=False),
)

calls = Table(
    "calls",
    metadata,
    _task_id(),
    Column("key", Text, primary_key=True),
    _run_uid(),
    _text("digest"),
    _text("action"),
    _text("node"),
    _text("item"),
    _text("gateway"),
    _text("target"),
    Column("request", Json, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("state", Word(CallState), nullable=False),
    Column("repeats", Integer, nullable=False, default=0),
    Column("reply", Json),
    Column("finished_at", Instant),
    _number("input_tokens"),
    _number("output_tokens"),
    Column("cost", BigInteger),
    Column("priced", Boolean, nullable=False, default=True),
    _text("agent", default=""),
    _text("model", default=""),
    Column("paid", PaymentsJson, nullable=False, default=()),
    Column("reservation", ReservationJson),
    Column("granted_output_tokens", BigInteger),
    Column("charged", Boolean, nullable=False, default=False),  # its task is over: the reservation counts as spent
    Index("ix_calls_run", "run_uid", "state"),
)

signals = Table(
    "signals",
    metadata,
    _task_id(),
    Column("key", Text, primary_key=True),
    Column("value", Json, nullable=False),
    Column("at", Instant, nullable=False),
)

approvals = Table(
    "approvals",
    metadata,
    _task_id(),
    Column("key", Text, primary_key=True),
    _run_uid(),
    _text("cluster"),
    _text("namespace"),
    _text("run_name"),
    _text("node"),
    _text("item"),
    Column("message", Prose, nullable=False),
    Column("requested_at", Instant, nullable=False),
    Column("deadline", Instant, nullable=False),
    _text("on_timeout"),
    Column("approvers", JsonTuple, nullable=False),
    Column("tool", Json),
    Column("state", Word(ApprovalState), nullable=False),
    _text("decided_by"),
    Column("decided_at", Instant),
    Column("comment", Prose, nullable=False),
    _text("via"),
    Column("verified", Boolean, nullable=False),
    Index("ix_approvals_deadline", "state", "deadline"),
    Index("ix_approvals_pending", "cluster", "state", "namespace", "requested_at"),
    Index("ix_approvals_run", "run_uid", "requested_at"),
)

cache = Table(
    "cache",
    metadata,
    Column("cluster", Text, primary_key=True),
    Column("namespace", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("output", Json),
    _text("run_uid"),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False, index=True),
)

budgets = Table(
    "budgets",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("period", Text, primary_key=True),
    Column(
        "run_uid", Text, ForeignKey("runs.uid", ondelete="CASCADE"), index=True
    ),  # of a line of one run: goes with it
    _number("cost"),
    _number("tokens"),
    _number("reserved_cost"),
    _number("reserved_tokens"),
)

costs = Table(
    "costs",
    metadata,
    Column("cluster", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    Column("namespace", Text, primary_key=True),
    Column("workflow", Text, primary_key=True),
    Column("agent", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    _number("calls"),
    _number("input_tokens"),
    _number("output_tokens"),
    _number("cost"),
    _number("unpriced_calls"),
    _number("scripted_calls"),
)

gateways = Table(
    "gateways", metadata, Column("gateway", Text, primary_key=True), Column("seen_at", Instant, nullable=False)
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    _text("token_digest", unique=True),
    _text("cluster"),
    _text("namespace"),
    _text("pod"),
    _text("pod_uid", index=True),
    _text("pool"),
    Column("concurrency", Integer, nullable=False),
    _text("version"),
    Column("capabilities", JsonTuple, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("revoked", Boolean, nullable=False),
    Index("ix_sessions_live", "cluster", "revoked"),
)

logs = Table(
    "logs",
    metadata,
    _serial("id"),
    _run_uid(),
    Column("at", Instant, nullable=False),
    _text("level"),
    _text("node"),
    Column("attempt", Integer, nullable=False),
    Column("text", Prose, nullable=False),
    Index("ix_logs_run", "run_uid", "id"),
)

outbox = Table(  # SQLite only: how processes tell each other what changed
    "outbox", metadata, _serial("id"), _text("origin"), _text("topic"), _text("key"), info={"only": "sqlite"}
)
