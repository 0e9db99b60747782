"""Products."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Float, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from catalog.auth.models import User
from catalog.db.columns import Base, ExactString, ExactText, Id, Timestamp, now

MAX_NAME = 512
MAX_DESCRIPTION = 16_383
"""Characters; four bytes each at most, so that it fits the servers' TEXT of 65,535 bytes."""
MAX_PRICE = 1e12


class Product(Base):
    """Something its owner offers.

    ``price`` is a double, so that it comes back as the JSON number it was sent as; the service
    never adds prices up.
    """

    __tablename__ = "products"
    __table_args__ = (
        # Serves GET /api/products/my in page order without a sort.
        Index(None, "user_id", "id"),
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
