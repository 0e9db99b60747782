"""Add keys of products: names that clients give them, unique per owner.

During a rolling upgrade the previous release still inserts products, without keys. The column is
added without copying the table. As in the first migration, each step is idempotent.
"""

import sqlalchemy as sa
from alembic import context, op

from catalog.db.columns import ExactString

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

INDEX = "ix_products_client_key_user_id"


def upgrade() -> None:
    """Add the column and its index."""
    inspector = None if context.is_offline_mode() else sa.inspect(op.get_bind())
    columns = inspector.get_columns("products") if inspector else []
    if all(each["name"] != "client_key" for each in columns):
        op.add_column("products", sa.Column("client_key", ExactString(255), nullable=True))
    indexes = inspector.get_indexes("products") if inspector else []
    if all(each["name"] != INDEX for each in indexes):
        op.create_index(None, "products", ["client_key", "user_id"], unique=True)


def downgrade() -> None:
    """Drop the index and the column."""
    op.drop_index(INDEX, "products")
    op.drop_column("products", "client_key")
