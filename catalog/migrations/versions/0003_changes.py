"""Create the change log of products with its counter, and idempotency keys.

As in the first migration, each step is idempotent.
"""

from typing import Any

import sqlalchemy as sa
from alembic import context, op

from catalog.db.columns import ExactString, Id, Timestamp

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLE_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "if_not_exists": True,
}


def upgrade() -> None:
    """Create the tables; existing products are logged as created in the order of their ids."""
    op.create_table(
        "product_changes",
        sa.Column("position", Id, nullable=False, autoincrement=False),
        sa.Column("type", ExactString(7), nullable=False),
        sa.Column("product_id", Id, nullable=False),
        sa.Column("version", Id, nullable=False),
        sa.Column("at", Timestamp(), nullable=False),
        sa.CheckConstraint("type IN ('created', 'updated', 'deleted')", name="type"),
        sa.PrimaryKeyConstraint("position"),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "change_counter",
        sa.Column("id", Id, nullable=False, autoincrement=False),
        sa.Column("position", Id, nullable=False),
        sa.CheckConstraint("id = 1", name="single"),
        sa.PrimaryKeyConstraint("id"),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", Id, nullable=False),
        sa.Column("key_hash", ExactString(64), nullable=False),
        sa.Column("content_hash", ExactString(64), nullable=False),
        sa.Column("product_id", Id, nullable=False),
        sa.Column("position", Id, nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "key_hash"),
        **TABLE_OPTIONS,
    )
    if context.is_offline_mode() or not _has_index("idempotency_keys"):
        op.create_index(None, "idempotency_keys", ["created_at"])
    _log_what_is_there()


def downgrade() -> None:
    """Drop the tables; clients that follow the changes must start over."""
    for table in ("idempotency_keys", "product_changes", "change_counter"):
        op.drop_table(table)


def _log_what_is_there() -> None:
    """Log existing products, then create the counter, whose row marks completion."""
    op.execute(
        "INSERT INTO product_changes (position, type, product_id, version, at)"
        " SELECT ROW_NUMBER() OVER (ORDER BY id), 'created', id, version, updated_at FROM products"
        " WHERE NOT EXISTS (SELECT 1 FROM product_changes)"
        " AND NOT EXISTS (SELECT 1 FROM change_counter)"
    )
    op.execute(
        "INSERT INTO change_counter (id, position)"
        " SELECT 1, (SELECT COALESCE(MAX(position), 0) FROM product_changes)"
        " WHERE NOT EXISTS (SELECT 1 FROM change_counter)"
    )


def _has_index(table: str) -> bool:
    return bool(sa.inspect(op.get_bind()).get_indexes(table))
