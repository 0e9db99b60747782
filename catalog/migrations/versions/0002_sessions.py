"""Create sessions, superseded refresh tokens and log-in failures; add when a role was changed.

As in the first migration, each step is idempotent.
"""

from typing import Any

import sqlalchemy as sa
from alembic import context, op

from catalog.db.columns import ExactString, Id, Timestamp

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLE_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "if_not_exists": True,
}

INDEXES = (
    ("users", ["role"]),
    ("users", ["role_changed_at"]),
    ("sessions", ["user_id", "revoked_at"]),
    ("sessions", ["expires_at"]),
    ("sessions", ["revoked_at"]),
    ("superseded_tokens", ["superseded_at"]),
    ("wrong_guesses", ["expires_at"]),
)


def upgrade() -> None:
    """Create the tables and indexes, and add the column."""
    if _is_missing("users", column="role_changed_at"):
        op.add_column("users", sa.Column("role_changed_at", Timestamp(), nullable=True))
    op.create_table(
        "sessions",
        sa.Column("id", Id, nullable=False),
        sa.Column("user_id", Id, nullable=True),
        sa.Column("refresh_hash", ExactString(64), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("last_used_at", Timestamp(), nullable=False),
        sa.Column("expires_at", Timestamp(), nullable=False),
        sa.Column("address", ExactString(45), nullable=False),
        sa.Column("agent", ExactString(255), nullable=False),
        sa.Column("revoked_at", Timestamp(), nullable=True),
        sa.CheckConstraint("length(agent) <= 255", name="agent").ddl_if("sqlite"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
        **TABLE_OPTIONS,
    )
    op.create_table(
        "superseded_tokens",
        sa.Column("token_hash", ExactString(64), nullable=False),
        sa.Column("superseded_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("token_hash"),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "wrong_guesses",
        sa.Column("subject", ExactString(64), nullable=False),
        sa.Column("times", ExactString(255), nullable=False),
        sa.Column("expires_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("subject"),
        **TABLE_OPTIONS,
    )
    for table, columns in INDEXES:
        if _is_missing(table, index=f"ix_{table}_{'_'.join(columns)}"):
            op.create_index(None, table, columns)


def downgrade() -> None:
    """Drop all of it; every user must sign in again."""
    for table in ("wrong_guesses", "superseded_tokens", "sessions"):
        op.drop_table(table)
    for name in ("ix_users_role_changed_at", "ix_users_role"):
        op.drop_index(name, "users")
    op.drop_column("users", "role_changed_at")


def _is_missing(table: str, *, column: str | None = None, index: str | None = None) -> bool:
    if context.is_offline_mode():
        return True
    inspector = sa.inspect(op.get_bind())
    found = inspector.get_columns(table) if column else inspector.get_indexes(table)
    return all(each["name"] != (column or index) for each in found)
