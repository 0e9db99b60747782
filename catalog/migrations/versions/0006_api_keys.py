"""Create API keys.

As in the first migration, each step is idempotent.
"""

import sqlalchemy as sa
from alembic import context, op

from catalog.db.columns import ExactString, Id, Timestamp

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

INDEXES = (["user_id", "revoked_at"], ["expires_at"], ["revoked_at"])


def upgrade() -> None:
    """Create the table and its indexes."""
    op.create_table(
        "api_keys",
        sa.Column("id", Id, nullable=False),
        sa.Column("user_id", Id, nullable=True),
        sa.Column("name", ExactString(100), nullable=False),
        sa.Column("prefix", ExactString(9), nullable=False),
        sa.Column("key_hash", ExactString(64), nullable=False),
        sa.Column("scope", ExactString(16), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("last_used_at", Timestamp(), nullable=True),
        sa.Column("expires_at", Timestamp(), nullable=True),
        sa.Column("revoked_at", Timestamp(), nullable=True),
        sa.CheckConstraint("scope IN ('read', 'write')", name="scope"),
        sa.CheckConstraint("length(name) <= 100", name="name").ddl_if("sqlite"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="SET NULL"),
        sa.UniqueConstraint("key_hash"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        if_not_exists=True,
    )
    for columns in INDEXES:
        if _is_missing(f"ix_api_keys_{'_'.join(columns)}"):
            op.create_index(None, "api_keys", columns)


def downgrade() -> None:
    """Drop the table; every program must sign in with a password again."""
    op.drop_table("api_keys")


def _is_missing(index: str) -> bool:
    if context.is_offline_mode():
        return True
    return all(each["name"] != index for each in sa.inspect(op.get_bind()).get_indexes("api_keys"))
