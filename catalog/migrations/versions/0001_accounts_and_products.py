"""Create accounts and products.

The servers commit after each statement, so a migration must be idempotent in case it is killed
half-way: it creates only tables that are missing.
"""

from typing import Any

import sqlalchemy as sa
from alembic import context, op

from catalog.db.columns import ExactString, ExactText, Id, Timestamp

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLE_OPTIONS: dict[str, Any] = {
    "sqlite_autoincrement": True,
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "if_not_exists": True,
}


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "users",
        sa.Column("id", Id, nullable=False),
        sa.Column("username", ExactString(80), nullable=False),
        sa.Column("username_key", ExactString(80), nullable=False),
        sa.Column("email", ExactString(120), nullable=False),
        sa.Column("email_key", ExactString(120), nullable=False),
        sa.Column("password_hash", ExactText(), nullable=False),
        sa.Column("role", ExactString(16), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.CheckConstraint("role IN ('user', 'admin')", name="role"),
        sa.CheckConstraint("length(username) <= 80", name="username").ddl_if("sqlite"),
        sa.CheckConstraint("length(email) <= 120", name="email").ddl_if("sqlite"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("username"),
        sa.UniqueConstraint("username_key"),
        sa.UniqueConstraint("email"),
        sa.UniqueConstraint("email_key"),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "products",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", ExactString(512), nullable=False),
        sa.Column("description", ExactText(), nullable=True),
        sa.Column("price", sa.Float(53), nullable=False),
        sa.Column("user_id", Id, nullable=False),
        sa.Column("version", Id, nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.CheckConstraint("price >= 0 AND price <= 1000000000000", name="price"),
        sa.CheckConstraint("typeof(price) = 'real'", name="price_type").ddl_if("sqlite"),
        sa.CheckConstraint("length(name) <= 512", name="name").ddl_if("sqlite"),
        sa.CheckConstraint("length(description) <= 16383", name="description").ddl_if("sqlite"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        **TABLE_OPTIONS,
    )
    if context.is_offline_mode() or not _has_index("products", "ix_products_user_id_id"):
        op.create_index(None, "products", ["user_id", "id"])


def downgrade() -> None:
    """Drop both tables with their data."""
    op.drop_table("products")
    op.drop_table("users")


def _has_index(table: str, name: str) -> bool:
    indexes = sa.inspect(op.get_bind()).get_indexes(table)
    return any(index["name"] == name for index in indexes)
