"""The service's table of products, as a peer would have declared it.

The service's own models need packages that peers do not have.
"""

from datetime import UTC, datetime

from sqlalchemy import BigInteger, Double, String, Text
from sqlalchemy.dialects.mysql import DATETIME
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The models' common base."""


def now() -> datetime:
    """The time as the table has it: UTC, without saying so."""
    return datetime.now(UTC).replace(tzinfo=None)


class Product(Base):
    """Something its owner offers."""

    __tablename__ = "products"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    name: Mapped[str] = mapped_column(String(512))
    description: Mapped[str | None] = mapped_column(Text)
    price: Mapped[float] = mapped_column(Double)
    user_id: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(BigInteger, default=1)
    created_at: Mapped[datetime] = mapped_column(DATETIME(fsp=6), default=now)
    updated_at: Mapped[datetime] = mapped_column(DATETIME(fsp=6), default=now)
