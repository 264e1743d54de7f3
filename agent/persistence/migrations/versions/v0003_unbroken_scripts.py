"""Messages are indexed anew, so that words of scripts without blanks between them are found."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Forget how far the index goes; the next search fills it."""
    op.execute("UPDATE threads SET indexed_at = NULL")
