"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def create_gateways() -> None:
    op.create_table(
        "gateways",
        sa.Column("gateway", sa.Text, primary_key=True),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
    )


def create_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", SERIAL, sa.Identity(), primary_key=True),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
    )


def create_revisions() -> None:
    op.create_table(
        "revisions",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
    )


def create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("token_digest", sa.Text, nullable=False, unique=True),
        sa.Column("cluster", sa.Text, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("pod", sa.Text, nullable=False),
        sa.Column("pod_uid", sa.Text, nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("concurrency", sa.Integer, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("capabilities", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("revoked", sa.Boolean, nullable=False),
    )
    op.create_index("ix_sessions_live", "sessions", ["cluster", "revoked"])
    op.create_index("ix_sessions_pod_uid", "sessions", ["pod_uid"])


def create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("seq", SERIAL, sa.Identity(), primary_key=True),
        sa.Column("uid", sa.Text, nullable=False, unique=True),
        sa.Column("cluster", sa.Text, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("workflow", sa.Text, nullable=False),
        sa.Column("revision", sa.Text, sa.ForeignKey("revisions.digest"), nullable=False),
        sa.Column("inputs", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("output", sa.Text, nullable=True),
        sa.Column("cancel_reason", sa.Text, nullable=False),
        sa.Column("cancel_message", sa.Text, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=True),
        sa.Column("finished_at", sa.BigInteger, nullable=True),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("current", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("pod", sa.Text, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("cost", sa.BigInteger, nullable=False),
        sa.Column("unpriced_calls", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_runs_name", "runs", ["cluster", "namespace", "name", "seq"])
    op.create_index("ix_runs_revision", "runs", ["revision"])
    op.create_index("ix_runs_seq", "runs", ["cluster", "seq"])
    op.create_index("ix_runs_state", "runs", ["cluster", "state", "seq"])


def create_logs() -> None:
    op.create_table(
        "logs",
        sa.Column("id", SERIAL, sa.Identity(), primary_key=True),
        sa.Column("run_uid", sa.Text, sa.ForeignKey("runs.uid", ondelete="CASCADE"), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("level", sa.Text, nullable=False),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_index("ix_logs_run", "logs", ["run_uid", "id"])


def create_nodes() -> None:
    op.create_table(
        "nodes",
        sa.Column("run_uid", sa.Text, sa.ForeignKey("runs.uid", ondelete="CASCADE"), primary_key=True),
        sa.Column("node", sa.Text, primary_key=True),
        sa.Column("item", sa.Text, primary_key=True),
        sa.Column("iteration", sa.Integer, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("output", sa.Text, nullable=True),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=True),
        sa.Column("finished_at", sa.BigInteger, nullable=True),
    )


def create_spans() -> None:
    op.create_table(
        "spans",
        sa.Column("run_uid", sa.Text, sa.ForeignKey("runs.uid", ondelete="CASCADE"), primary_key=True),
        sa.Column("span_id", sa.Text, primary_key=True),
        sa.Column("parent_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger, nullable=True),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attributes", sa.Text, nullable=False),
    )


def create_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("seq", SERIAL, sa.Identity(), primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("run_uid", sa.Text, sa.ForeignKey("runs.uid", ondelete="CASCADE"), nullable=False),
        sa.Column("cluster", sa.Text, nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("deadline", sa.BigInteger, nullable=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("released", sa.Integer, nullable=False),
        sa.Column("idle", sa.Integer, nullable=False),
        sa.Column("pod_uid", sa.Text, nullable=False),
        sa.Column("session", sa.Text, nullable=False),
        sa.Column("journal_length", sa.Integer, nullable=False),
        sa.Column("claimed_length", sa.Integer, nullable=False),
        sa.Column("available_at", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_tasks_claim", "tasks", ["pool", "state", "rank", "seq"])
    op.create_index("ix_tasks_depth", "tasks", ["cluster", "state", "pool"])
    op.create_index("ix_tasks_pod", "tasks", ["pod_uid", "state"])
    op.create_index("ix_tasks_run_uid", "tasks", ["run_uid"])


def create_calls() -> None:
    op.create_table(
        "calls",
        sa.Column("task_id", sa.Text, sa.ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("run_uid", sa.Text, sa.ForeignKey("runs.uid", ondelete="CASCADE"), nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("item", sa.Text, nullable=False),
        sa.Column("gateway", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("repeats", sa.Integer, nullable=False),
        sa.Column("reply", sa.Text, nullable=True),
        sa.Column("finished_at", sa.BigInteger, nullable=True),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("cost", sa.BigInteger, nullable=True),
        sa.Column("priced", sa.Boolean, nullable=False),
    )
    op.create_index("ix_calls_run_uid", "calls", ["run_uid"])


def create_journal() -> None:
    op.create_table(
        "journal",
        sa.Column("task_id", sa.Text, sa.ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("entry", sa.Text, nullable=False),
    )


def upgrade() -> None:
    create_gateways()
    if op.get_bind().dialect.name == "sqlite":
        create_outbox()
    create_revisions()
    create_sessions()
    create_runs()
    create_logs()
    create_nodes()
    create_spans()
    create_tasks()
    create_calls()
    create_journal()
