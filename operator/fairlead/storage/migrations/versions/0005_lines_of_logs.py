"""Count the lines that an attempt has sent: one that got no answer sends the same again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("logged", sa.Integer, nullable=False, server_default="0"))
