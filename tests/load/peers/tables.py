"""The service's tables of products, changes and accounts, as a peer would declare them.

The service's own models need packages that peers do not have.
"""

from datetime import UTC, datetime

from sqlalchemy import BigInteger, Double, String, Text
from sqlalchemy.dialects.mysql import DATETIME
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Common base of the models."""


def now() -> datetime:
    """Return the time as the table stores it: UTC, without a time zone."""
    return datetime.now(UTC).replace(tzinfo=None)


class User(Base):
    """An account."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    username: Mapped[str] = mapped_column(String(80))
    email: Mapped[str] = mapped_column(String(120))
    role: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(DATETIME(fsp=6))


class Product(Base):
    """A product, which belongs to one account."""

    __tablename__ = "products"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    name: Mapped[str] = mapped_column(String(512))
    description: Mapped[str | None] = mapped_column(Text)
    price: Mapped[float] = mapped_column(Double)
    user_id: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(BigInteger, default=1)
    created_at: Mapped[datetime] = mapped_column(DATETIME(fsp=6), default=now)
    updated_at: Mapped[datetime] = mapped_column(DATETIME(fsp=6), default=now)


class Change(Base):
    """An entry of the service's change log; peers read it, and write none."""

    __tablename__ = "product_changes"

    position: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    type: Mapped[str] = mapped_column(String(7))
    product_id: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[datetime] = mapped_column(DATETIME(fsp=6))
