"""What tasks wait for, turns of agents, approvals, budgets, sums of costs, and results that are used again."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

NO, NOTHING, EMPTY = sa.false(), "0", ""
SUMS = ("input_tokens", "output_tokens", "cost", "unpriced_calls")
DAY_SUMS = ("calls", *SUMS, "scripted_calls")


def text(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, nullable=False, **options)


def flag(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Boolean, nullable=False, server_default=NO)


def number(name: str, kind: Any = sa.BigInteger) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, server_default=NOTHING)


def time(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger, nullable=nullable)


def run_uid(**options: Any) -> sa.Column[Any]:
    return sa.Column("run_uid", sa.Text, sa.ForeignKey("runs.uid", ondelete="CASCADE"), **options)


def task_id() -> sa.Column[Any]:
    return sa.Column("task_id", sa.Text, sa.ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True)


def key(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, primary_key=True)


def add(table: str, *columns: sa.Column[Any]) -> None:
    for column in columns:
        op.add_column(table, column)


def change_runs() -> None:
    add("runs", number("priority", sa.Integer), flag("suspended"), text("parked", server_default=EMPTY))
    add("runs", number("pending_approvals", sa.Integer), sa.Column("budget", sa.Text))
    add("runs", text("rerun_of", server_default=EMPTY), text("rerun_from", server_default=EMPTY))
    add("runs", number("reused", sa.Integer), flag("exported"), flag("handlers"))
    op.create_index("ix_runs_export", "runs", ["exported", "finished_at"])
    op.create_index("ix_runs_finished", "runs", ["cluster", "namespace", "workflow", "finished_at"])


def change_tasks() -> None:
    add("tasks", text("kind", server_default="run"), text("parent", server_default=EMPTY))
    add("tasks", text("key", server_default=EMPTY), text("request", server_default="{}"))
    add("tasks", time("wake_at", nullable=True), text("waits_for", server_default="[]"))
    add("tasks", text("parked", server_default=EMPTY), flag("held"))
    op.create_index("ix_tasks_parent", "tasks", ["parent", "key"])
    op.create_index("ix_tasks_wake", "tasks", ["state", "held", "wake_at"])


def change_records() -> None:
    add("nodes", text("reused", server_default=EMPTY), *(number(name) for name in SUMS))
    add("calls", text("agent", server_default=EMPTY), text("model", server_default=EMPTY))
    add("calls", sa.Column("reservation", sa.Text))
    add("calls", sa.Column("granted_output_tokens", sa.BigInteger), flag("charged"))
    op.drop_index("ix_calls_run_uid", "calls")
    op.create_index("ix_calls_run", "calls", ["run_uid", "state"])


def create_signals() -> None:
    op.create_table("signals", task_id(), key("key"), text("value"), time("at"))


def create_approvals() -> None:
    op.create_table(
        "approvals",
        task_id(),
        key("key"),
        run_uid(nullable=False),
        *(text(name) for name in ("cluster", "namespace", "run_name", "node", "item", "message")),
        time("requested_at"),
        time("deadline"),
        *(text(name) for name in ("on_timeout", "approvers")),
        sa.Column("tool", sa.Text),
        *(text(name) for name in ("state", "decided_by")),
        time("decided_at", nullable=True),
        *(text(name) for name in ("comment", "via")),
        sa.Column("verified", sa.Boolean, nullable=False),
    )
    op.create_index("ix_approvals_deadline", "approvals", ["state", "deadline"])
    op.create_index("ix_approvals_pending", "approvals", ["cluster", "state", "namespace", "requested_at"])
    op.create_index("ix_approvals_run", "approvals", ["run_uid", "requested_at"])


def create_cache() -> None:
    op.create_table(
        "cache",
        *(key(name) for name in ("cluster", "namespace", "digest")),
        sa.Column("output", sa.Text),
        text("run_uid"),
        time("created_at"),
        time("expires_at"),
    )
    op.create_index("ix_cache_expires_at", "cache", ["expires_at"])


def create_budgets() -> None:
    sums = (number(name) for name in ("cost", "tokens", "reserved_cost", "reserved_tokens"))
    op.create_table("budgets", key("scope"), key("period"), run_uid(), *sums)
    op.create_index("ix_budgets_run_uid", "budgets", ["run_uid"])


def create_costs() -> None:
    keys = (key(name) for name in ("cluster", "day", "namespace", "workflow", "agent", "model"))
    op.create_table("costs", *keys, *(number(name) for name in DAY_SUMS))


def fill_in(connection: sa.Connection) -> None:
    """Give old runs what new ones have: their priority, and sums of what their calls cost."""
    rank = "SELECT -tasks.rank FROM tasks WHERE tasks.run_uid = runs.uid"
    connection.execute(sa.text(f"UPDATE runs SET priority = coalesce(({rank}), 0)"))  # noqa: S608 - a constant
    connection.execute(sa.text("UPDATE runs SET exported = true WHERE finished_at IS NOT NULL"))
    days, nodes = sums_of_calls(connection)
    insert_days(connection, days)
    update_nodes(connection, nodes)


def sums_of_calls(connection: sa.Connection) -> tuple[dict[Any, Counter[str]], dict[Any, Counter[str]]]:
    query = """
        SELECT runs.cluster, runs.namespace, runs.workflow, calls.run_uid, calls.key, calls.node, calls.item,
            calls.target, calls.finished_at, calls.input_tokens, calls.output_tokens, calls.cost, calls.priced,
            calls.reply
        FROM calls JOIN runs ON runs.uid = calls.run_uid WHERE calls.state = 'Done' AND calls.action = 'llm'
    """
    days: dict[Any, Counter[str]] = {}
    nodes: dict[Any, Counter[str]] = {}
    for call in connection.execute(sa.text(query)):
        sums = {
            "calls": 1,
            "input_tokens": call.input_tokens,
            "output_tokens": call.output_tokens,
            "cost": call.cost or 0,
            "unpriced_calls": int(bool(call.priced) and call.cost is None),
            "scripted_calls": int('"scripted":true' in call.reply),
        }
        day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=call.finished_at)).date().isoformat()
        place = (call.cluster, day, call.namespace, call.workflow, call.target)
        days.setdefault(place, Counter()).update(sums)
        iteration = int(call.key.rsplit("/", 3)[1])
        for item in {call.item, ""}:
            nodes.setdefault((call.run_uid, call.node, item, iteration), Counter()).update(sums)
    return days, nodes


def insert_days(connection: sa.Connection, days: dict[Any, Counter[str]]) -> None:
    names = ("cluster", "day", "namespace", "workflow", "model")
    statement = sa.text(
        f"INSERT INTO costs (agent, {', '.join((*names, *DAY_SUMS))}) "  # noqa: S608 - constants
        f"VALUES ('', {', '.join(f':{name}' for name in (*names, *DAY_SUMS))})"
    )
    for place, sums in days.items():
        connection.execute(statement, dict(zip(names, place, strict=True)) | {n: sums[n] for n in DAY_SUMS})


def update_nodes(connection: sa.Connection, nodes: dict[Any, Counter[str]]) -> None:
    names = ("run_uid", "node", "item", "iteration")
    statement = sa.text(
        f"UPDATE nodes SET {', '.join(f'{name} = :{name}' for name in SUMS)} "  # noqa: S608 - constants
        f"WHERE {' AND '.join(f'{name} = :{name}' for name in names)}"
    )
    for place, sums in nodes.items():
        connection.execute(statement, dict(zip(names, place, strict=True)) | {n: sums[n] for n in SUMS})


def upgrade() -> None:
    change_runs()
    change_tasks()
    change_records()
    create_signals()
    create_approvals()
    create_cache()
    create_budgets()
    create_costs()
    fill_in(op.get_bind())
