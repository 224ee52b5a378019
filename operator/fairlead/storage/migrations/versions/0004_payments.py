"""Keep what each Model took of what a call cost: a fallback answers, and who was asked before it may be paid, too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("calls", sa.Column("paid", sa.Text, nullable=False, server_default="[]"))
