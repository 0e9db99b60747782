"""Accounts."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import Boolean, CheckConstraint
from sqlalchemy.orm import Mapped, mapped_column

from catalog.db.columns import Base, ExactString, ExactText, Id, Timestamp, now

MAX_USERNAME = 80
MAX_EMAIL = 120
MAX_PASSWORD = 128
"""Characters of a password, which only its hash outlives; bounds what a stranger can make us do."""


class Role(StrEnum):
    """What an account may do."""

    USER = "user"
    ADMIN = "admin"


class User(Base):
    """Someone who can sign in.

    ``username_key`` and ``email_key`` hold the names folded (``auth/names.py``), so that one
    unique index decides alike on every engine what counts as the same name.
    """

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("role IN ('user', 'admin')", name="role"),
        # The servers refuse what is longer than the column; SQLite stores it.
        CheckConstraint(f"length(username) <= {MAX_USERNAME}", name="username").ddl_if("sqlite"),
        CheckConstraint(f"length(email) <= {MAX_EMAIL}", name="email").ddl_if("sqlite"),
        # Without AUTOINCREMENT, SQLite would give the id of a deleted account to the next one.
        {
            "sqlite_autoincrement": True,
            "mysql_engine": "InnoDB",
            "mysql_charset": "utf8mb4",
        },
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    username: Mapped[str] = mapped_column(ExactString(MAX_USERNAME), unique=True)
    username_key: Mapped[str] = mapped_column(ExactString(MAX_USERNAME), unique=True)
    email: Mapped[str] = mapped_column(ExactString(MAX_EMAIL), unique=True)
    email_key: Mapped[str] = mapped_column(ExactString(MAX_EMAIL), unique=True)
    password_hash: Mapped[str] = mapped_column(ExactText)
    role: Mapped[str] = mapped_column(ExactString(16), default=Role.USER)
    disabled: Mapped[bool] = mapped_column(Boolean, default=False)
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
