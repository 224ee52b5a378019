"""Count the calls that a scripted model answered, so that nobody takes its answers for a model's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("runs", sa.Column("scripted_calls", sa.BigInteger, nullable=False, server_default="0"))
