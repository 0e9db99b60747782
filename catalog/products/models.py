"""Products, the log of their changes, and what makes a repeated request the same one."""

import secrets
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Self

from sqlalchemy import DDL, CheckConstraint, Float, ForeignKey, Index, event
from sqlalchemy.orm import Mapped, mapped_column

from catalog.auth.models import User
from catalog.db.columns import Base, ExactString, ExactText, Id, Timestamp, now
from catalog.db.fulltext import FTS5, Tokens

MAX_NAME = 512
MAX_DESCRIPTION = 16_383
"""Characters; four bytes each at most, so that it fits the servers' TEXT of 65,535 bytes."""
MAX_PRICE = 1e12

TOKEN_LENGTH = 10
"""Hexadecimal digits of a token: 40 bits, so that two histories have the same one at the same
position once in 10^12 times."""


def new_token() -> str:
    """Draw a token; a transaction that changes products takes one with its positions."""
    return secrets.token_hex(TOKEN_LENGTH // 2)


class Product(Base):
    """Something its owner offers.

    ``price`` is a double, so that it comes back as the JSON number it was sent as; the service
    never adds prices up.
    """

    __tablename__ = "products"
    __table_args__ = (
        # Serves GET /api/products/my in page order without a sort.
        Index(None, "user_id", "id"),
        # The orders of the lists, each in both directions; ids break ties.
        Index(None, "name", "id"),
        Index(None, "price", "id"),
        Index(None, "created_at", "id"),
        CheckConstraint(f"price >= 0 AND price <= {MAX_PRICE:.0f}", name="price"),
        # The servers refuse what does not fit the column; SQLite stores it.
        CheckConstraint("typeof(price) = 'real'", name="price_type").ddl_if("sqlite"),
        CheckConstraint(f"length(name) <= {MAX_NAME}", name="name").ddl_if("sqlite"),
        CheckConstraint(f"length(description) <= {MAX_DESCRIPTION}", name="description").ddl_if(
            "sqlite"
        ),
        # Without AUTOINCREMENT, SQLite would give the id of a deleted product to the next one.
        {
            "sqlite_autoincrement": True,
            "mysql_engine": "InnoDB",
            "mysql_charset": "utf8mb4",
        },
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(ExactString(MAX_NAME))
    description: Mapped[str | None] = mapped_column(ExactText)
    # Not a bare Float: MySQL would make it single precision and lose cents from 131,072.00 on.
    price: Mapped[float] = mapped_column(Float(53))
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    # Counts the product's changes from 1.
    version: Mapped[int] = mapped_column(Id, default=1)
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
    updated_at: Mapped[datetime] = mapped_column(Timestamp, default=now)


class ProductWords(Base):
    """The words of a product's name and description, to be searched; see ``words.py``.

    A table of its own, so that products stay small and SQLite, which has full-text indexes only as
    tables, can have one. It keeps no foreign keys in those, so there a trigger deletes the row.
    """

    __tablename__ = "product_words"
    __table_args__ = (
        Index(None, "words", mysql_prefix="FULLTEXT").ddl_if("mysql"),
        {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "info": {FTS5: ["words"]}},
    )

    # SQLite's name for the number of a row in such a table, and it takes no other.
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
    """A product that no database has numbered yet.

    Attributes:
        created_at: when it was offered; None for now.
        words: its words, as ``words.text_of`` finds them, if somebody has done it already.
    """

    name: str
    description: str | None
    price: float
    owner_id: int
    created_at: datetime | None = None
    words: str | None = None


class ChangeType(StrEnum):
    """What has happened to a product."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"


class ChangeId(NamedTuple):
    """The name of a change in its history: ``8.5f0c29a1be``.

    A position alone does not name a change: a database that was restored from a backup comes to
    the same one again by other changes. The token tells them apart.

    Attributes:
        position: 1, 2, 3, … in commit order; 0 before the first change.
        token: of the transaction that made it; empty where there is none, as in names from before
            there were tokens, and of position 0, which is the same in all histories.
    """

    position: int
    token: str = ""

    def __str__(self) -> str:
        """Write it as the API does."""
        return f"{self.position}.{self.token}" if self.token else str(self.position)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` has written, or a bare position; the caller knows that it is one."""
        position, _, token = text.partition(".")
        return cls(int(position), token if int(position) else "")

    def may_be(self, other: "ChangeId") -> bool:
        """Tell whether both can name the same change; a bare position can name any there."""
        is_told = self.token and other.token
        return self.position == other.position and (not is_told or self.token == other.token)


class ProductChange(Base):
    """One committed change; outlives its product, and is deleted after the retention."""

    __tablename__ = "product_changes"
    __table_args__ = (
        CheckConstraint("type IN ('created', 'updated', 'deleted')", name="type"),
        {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"},
    )

    # Counted by ChangeCounter and not by the engine, whose own numbers are given out before the
    # commit: a reader who has seen 8 could find 7 afterwards.
    position: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=False)
    type: Mapped[str] = mapped_column(ExactString(7))
    product_id: Mapped[int] = mapped_column(Id)
    version: Mapped[int] = mapped_column(Id)
    at: Mapped[datetime] = mapped_column(Timestamp)
    # Empty in the rows of a release from before there were tokens.
    token: Mapped[str] = mapped_column(ExactString(TOKEN_LENGTH), server_default="")


class ChangeCounter(Base):
    """The last change's position and token: one row, whose lock puts the commits in order."""

    __tablename__ = "change_counter"
    __table_args__ = (
        CheckConstraint("id = 1", name="single"),
        {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"},
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(Id)
    # A release from before there were tokens leaves it as it is.
    token: Mapped[str] = mapped_column(ExactString(TOKEN_LENGTH), server_default="")


class IdempotencyKey(Base):
    """A create that was done under a key of the client's, so that a repeat finds its answer.

    The answer is not kept: the repeat brings the same content, and the rest is here.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = ({"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"},)

    user_id: Mapped[int] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), primary_key=True)
    # SHA-256, in hexadecimal: of the key, and of the content that came with it.
    key_hash: Mapped[str] = mapped_column(ExactString(64), primary_key=True)
    content_hash: Mapped[str] = mapped_column(ExactString(64))
    product_id: Mapped[int] = mapped_column(Id)
    position: Mapped[int] = mapped_column(Id)
    created_at: Mapped[datetime] = mapped_column(Timestamp, index=True)
    token: Mapped[str] = mapped_column(ExactString(TOKEN_LENGTH), server_default="")
