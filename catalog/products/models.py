"""Tables of products, their search words, the change log, and idempotency keys."""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import DDL, CheckConstraint, Float, ForeignKey, Index, event
from sqlalchemy.orm import Mapped, mapped_column

from catalog.auth.models import User
from catalog.db.columns import Base, ExactString, ExactText, Id, Timestamp, now
from catalog.db.fulltext import FTS5, Tokens

MAX_NAME = 512
MAX_DESCRIPTION = 16_383
"""Characters, of four bytes each at most, so that it fits the servers' TEXT of 65,535 bytes."""
MAX_PRICE = 1e12
MAX_KEY = 255
"""Characters of a product's key."""

TOKEN_LENGTH = 10
"""Letters and digits of a token. Of 62 kinds each, so that the second half of two tokens is equal
once in 10^9 times, and so is the era of two changes that do not share it."""


class Product(Base):
    """Product, which belongs to one account.

    ``price`` is a double, so that it is returned as the same JSON number that was sent; the service
    never adds prices up.
    """

    __tablename__ = "products"
    __table_args__ = (
        # Serves GET /api/products/my in page order without a sort.
        Index(None, "user_id", "id"),
        # Sort orders of the lists, each scanned in both directions; ids break ties.
        Index(None, "name", "id"),
        Index(None, "price", "id"),
        Index(None, "created_at", "id"),
        # Keys are unique per owner. The key comes first, so that it is found without an owner.
        Index(None, "client_key", "user_id", unique=True),
        CheckConstraint(f"price >= 0 AND price <= {MAX_PRICE:.0f}", name="price"),
        # The servers reject values that do not fit the column; SQLite stores them.
        CheckConstraint("typeof(price) = 'real'", name="price_type").ddl_if("sqlite"),
        CheckConstraint(f"length(name) <= {MAX_NAME}", name="name").ddl_if("sqlite"),
        CheckConstraint(f"length(description) <= {MAX_DESCRIPTION}", name="description").ddl_if(
            "sqlite"
        ),
        # Without AUTOINCREMENT, SQLite would reuse the id of a deleted product for the next one.
        {
            "sqlite_autoincrement": True,
            "mysql_engine": "InnoDB",
            "mysql_charset": "utf8mb4",
        },
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(ExactString(MAX_NAME))
    description: Mapped[str | None] = mapped_column(ExactText)
    # A bare Float is single precision on MySQL, and would lose cents from 131,072.00 on.
    price: Mapped[float] = mapped_column(Float(53))
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    # Number of the product's changes; 1 after the create.
    version: Mapped[int] = mapped_column(Id, default=1)
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
    updated_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
    # The client's own name of the product, such as the number of an article. The column is not
    # called key, which is a keyword of SQL.
    key: Mapped[str | None] = mapped_column("client_key", ExactString(MAX_KEY))


class ProductWords(Base):
    """Full-text tokens of a product's name and description; see ``search/tokenizer.py``.

    A separate table keeps the products' rows small, and SQLite has full-text indexes only as
    tables. Those enforce no foreign keys, so on SQLite a trigger deletes the row.
    """

    __tablename__ = "product_words"
    __table_args__ = (
        Index(None, "words", mysql_prefix="FULLTEXT").ddl_if("mysql"),
        {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "info": {FTS5: ["words"]}},
    )

    # SQLite full-text tables accept no other name for the key column.
    product_id: Mapped[int] = mapped_column(
        "rowid", Id, ForeignKey(Product.id, ondelete="CASCADE"), primary_key=True
    )
    words: Mapped[str] = mapped_column(Tokens)


_delete_words = DDL(  # type: ignore[no-untyped-call]  # its arguments are untyped
    "CREATE TRIGGER product_words_deletion AFTER DELETE ON products"
    " BEGIN DELETE FROM product_words WHERE rowid = OLD.id; END"
)
event.listen(ProductWords.__table__, "after_create", _delete_words.execute_if("sqlite"))


class NewProduct(NamedTuple):
    """Product to be created, without an id.

    Attributes:
        created_at: None for the time of the insert.
        words: the result of ``tokenizer.text_of``, if it was computed before; otherwise None.
        key: the client's own name of the product, if it has one.
    """

    name: str
    description: str | None
    price: float
    owner_id: int
    created_at: datetime | None = None
    words: str | None = None
    key: str | None = None


class ChangeType(StrEnum):
    """Kind of a change to a product."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"


class ProductChange(Base):
    """One committed change; outlives its product, and is deleted after the retention period."""

    __tablename__ = "product_changes"
    __table_args__ = (
        CheckConstraint("type IN ('created', 'updated', 'deleted')", name="type"),
        {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"},
    )

    # Assigned from ChangeCounter: an engine's AUTO_INCREMENT assigns numbers before the commit, so
    # that 7 could become visible after a reader has seen 8.
    position: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=False)
    type: Mapped[str] = mapped_column(ExactString(7))
    product_id: Mapped[int] = mapped_column(Id)
    version: Mapped[int] = mapped_column(Id)
    at: Mapped[datetime] = mapped_column(Timestamp)
    # Empty in rows written by a release without tokens.
    token: Mapped[str] = mapped_column(ExactString(TOKEN_LENGTH), server_default="")


class ChangeCounter(Base):
    """Position and token of the last change: a single row, whose lock orders the commits.

    Attributes:
        highest_id: the highest id of all products that there have been.
        taken_position: the position that the service took last. Another ``position`` was set by
            hand, or by a release without eras, and nothing is known of what it changed.
    """

    __tablename__ = "change_counter"
    __table_args__ = (
        CheckConstraint("id = 1", name="single"),
        {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"},
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(Id)
    # Not updated by a release without tokens.
    token: Mapped[str] = mapped_column(ExactString(TOKEN_LENGTH), server_default="")
    highest_id: Mapped[int] = mapped_column(Id, server_default="0")
    taken_position: Mapped[int] = mapped_column(Id, server_default="0")


class IdempotencyKey(Base):
    """Record of a create under a client's idempotency key, for replaying its response.

    The response itself is not stored: the repeated request carries the same content, and this row
    has the rest.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = ({"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"},)

    user_id: Mapped[int] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), primary_key=True)
    # SHA-256 in hexadecimal: of the key, and of the content that was sent with it.
    key_hash: Mapped[str] = mapped_column(ExactString(64), primary_key=True)
    content_hash: Mapped[str] = mapped_column(ExactString(64))
    product_id: Mapped[int] = mapped_column(Id)
    position: Mapped[int] = mapped_column(Id)
    created_at: Mapped[datetime] = mapped_column(Timestamp, index=True)
    token: Mapped[str] = mapped_column(ExactString(TOKEN_LENGTH), server_default="")
