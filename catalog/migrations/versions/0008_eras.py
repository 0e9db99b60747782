"""Add what decides about the era of a change to the counter of changes.

During a rolling upgrade the previous release does not update these columns, so they have defaults.
As in the first migration, each step is idempotent.
"""

import sqlalchemy as sa
from alembic import context, op

from catalog.db.columns import Id

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

COUNTER = "change_counter"
NEW = ("highest_id", "taken_position")


def upgrade() -> None:
    """Add the columns, and set the highest id; the next change begins an era."""
    inspector = None if context.is_offline_mode() else sa.inspect(op.get_bind())
    there = [each["name"] for each in inspector.get_columns(COUNTER)] if inspector else []
    for name in NEW:
        if name not in there:
            op.add_column(COUNTER, sa.Column(name, Id, server_default="0", nullable=False))
    op.execute("UPDATE change_counter SET highest_id = (SELECT COALESCE(MAX(id), 0) FROM products)")


def downgrade() -> None:
    """Drop the columns."""
    for name in NEW:
        op.drop_column(COUNTER, name)
