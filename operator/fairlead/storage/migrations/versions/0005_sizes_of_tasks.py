"""Count the lines of logs that an attempt has sent, as it may send them again, and the bytes of a task's journal."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("logged", sa.Integer, nullable=False, server_default="0"))
    op.add_column("tasks", sa.Column("journal_bytes", sa.BigInteger, nullable=False, server_default="0"))
