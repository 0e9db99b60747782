"""Add tokens that distinguish histories of changes, as a restored backup begins a new one.

During a rolling upgrade the previous release still writes, without tokens, so the columns have a
default. They are added without copying the table, however long the log is. As in the first
migration, each step is idempotent.
"""

import secrets

import sqlalchemy as sa
from alembic import context, op

from catalog.db.columns import ExactString

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = ("product_changes", "change_counter", "idempotency_keys")


def upgrade() -> None:
    """Add the columns, and give the last change a token; earlier ones have none."""
    for table in TABLES:
        if _is_missing(table):
            op.add_column(
                table, sa.Column("token", ExactString(10), server_default="", nullable=False)
            )
    token = secrets.token_hex(5)
    op.execute(
        f"UPDATE change_counter SET token = '{token}' WHERE token = '' AND position > 0"  # noqa: S608 (hexadecimal digits)
    )
    op.execute(
        "UPDATE product_changes SET token = (SELECT token FROM change_counter)"
        " WHERE position = (SELECT position FROM change_counter)"
    )


def downgrade() -> None:
    """Drop the columns."""
    for table in TABLES:
        op.drop_column(table, "token")


def _is_missing(table: str) -> bool:
    if context.is_offline_mode():
        return True
    columns = sa.inspect(op.get_bind()).get_columns(table)
    return all(each["name"] != "token" for each in columns)
