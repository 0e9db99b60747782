"""Create indexes for sorted lists, and the full-text index of products.

As in the first migration, each step is idempotent.
"""

import sqlalchemy as sa
from alembic import context, op

from catalog.db.columns import Id
from catalog.db.fulltext import FTS5, Tokens
from catalog.products.search.tokenizer import text_of, tokens_of

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INDEXES = (["name", "id"], ["price", "id"], ["created_at", "id"])

CHUNK_ROWS = 500
"""Products tokenized at a time; takes 140 MB at worst, with the longest descriptions."""


def upgrade() -> None:
    """Create the indexes and the table, and index existing products."""
    for columns in INDEXES:
        if _is_missing("products", f"ix_products_{'_'.join(columns)}"):
            op.create_index(None, "products", columns)
    op.create_table(
        "product_words",
        sa.Column("rowid", Id, nullable=False, autoincrement=False),
        sa.Column("words", Tokens(), nullable=False),
        sa.ForeignKeyConstraint(["rowid"], ["products.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("rowid"),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        info={FTS5: ["words"]},
        if_not_exists=True,
    )
    if _on_sqlite():
        op.execute(
            "CREATE TRIGGER product_words_deletion AFTER DELETE ON products"
            " BEGIN DELETE FROM product_words WHERE rowid = OLD.id; END"
        )
    elif _is_missing("product_words", "ix_product_words_words"):
        op.create_index(None, "product_words", ["words"], mysql_prefix="FULLTEXT")
    if not context.is_offline_mode():
        _find_words()


def downgrade() -> None:
    """Drop the trigger, the table and the indexes."""
    if _on_sqlite():
        op.execute("DROP TRIGGER product_words_deletion")
    op.drop_table("product_words")
    for columns in INDEXES:
        op.drop_index(f"ix_products_{'_'.join(columns)}", "products")


def _find_words() -> None:
    """Index the products that are not in the table yet."""
    connection = op.get_bind()
    missing = sa.text(
        "SELECT id, name, description FROM products"
        " LEFT JOIN product_words ON product_words.rowid = products.id"
        " WHERE id > :last_id AND product_words.rowid IS NULL ORDER BY id LIMIT :limit"
    )
    found = sa.text("INSERT INTO product_words (rowid, words) VALUES (:id, :words)")
    last_id = 0
    while True:
        rows = connection.execute(missing, {"last_id": last_id, "limit": CHUNK_ROWS}).all()
        if not rows:
            return
        words = [
            {"id": row.id, "words": tokens_of(text_of(row.name, row.description), row.id)}
            for row in rows
        ]
        connection.execute(found, words)
        if not _on_sqlite():
            connection.commit()
        last_id = rows[-1].id


def _on_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"


def _is_missing(table: str, index: str) -> bool:
    if context.is_offline_mode():
        return True
    return all(each["name"] != index for each in sa.inspect(op.get_bind()).get_indexes(table))
