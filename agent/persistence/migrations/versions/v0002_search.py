"""Full-text search over messages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agent.persistence import full_text

revision = "0002"
down_revision = "0001"

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the texts, their index, and the mark of how far it goes."""
    op.add_column("threads", sa.Column("indexed_at", _KEY))
    op.create_table(
        "message_texts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("thread_id", _KEY, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_index("message_texts_thread", "message_texts", ["thread_id"])
    for statement in full_text.DDL[op.get_bind().dialect.name]:
        op.execute(statement)
