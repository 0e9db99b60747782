"""Accounts, and the sessions that they sign in to."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import Boolean, CheckConstraint, ForeignKey, Index
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

    ``username_key`` and ``email_key`` hold the names folded (``auth/normalization.py``), so that
    one unique index decides alike on every engine what counts as the same name.
    """

    __tablename__ = "users"
    __table_args__ = (
        # The few administrators among the many, to see that one stays.
        Index(None, "role"),
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
    # Tokens carry the role; by this one every process learns of a role newer than its token.
    role_changed_at: Mapped[datetime | None] = mapped_column(Timestamp, index=True)


MAX_ADDRESS = 45
"""Characters of an IPv6 address with an IPv4 address at its end."""

MAX_AGENT = 255
"""Characters of a ``User-Agent`` that are kept; it may say anything at any length."""

HASH_LENGTH = 64
"""Hexadecimal digits of SHA-256."""


class LoginSession(Base):
    """One log-in and all refresh tokens that descend from it: their family.

    At most one of these tokens is current. Its id is kept as a hash, so that reading the database
    gives nobody what a token is made of. The row outlives its account, so that every process
    learns that the session has ended.
    """

    __tablename__ = "sessions"
    __table_args__ = (
        # An account's live sessions, to list and to end them.
        Index(None, "user_id", "revoked_at"),
        CheckConstraint(f"length(agent) <= {MAX_AGENT}", name="agent").ddl_if("sqlite"),
        # An id must never come back: processes hold the ids of those that have ended.
        {
            "sqlite_autoincrement": True,
            "mysql_engine": "InnoDB",
            "mysql_charset": "utf8mb4",
        },
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey(User.id, ondelete="SET NULL"))
    refresh_hash: Mapped[str] = mapped_column(ExactString(HASH_LENGTH))
    created_at: Mapped[datetime] = mapped_column(Timestamp)
    last_used_at: Mapped[datetime] = mapped_column(Timestamp)
    # For the sweep that deletes what nobody can use any more.
    expires_at: Mapped[datetime] = mapped_column(Timestamp, index=True)
    address: Mapped[str] = mapped_column(ExactString(MAX_ADDRESS))
    agent: Mapped[str] = mapped_column(ExactString(MAX_AGENT))
    # What every process asks for again and again: the sessions that ended a moment ago.
    revoked_at: Mapped[datetime | None] = mapped_column(Timestamp, index=True)


class SupersededToken(Base):
    """A refresh token that was rotated; of interest while it may still be sent again."""

    __tablename__ = "superseded_tokens"
    __table_args__ = ({"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"},)

    token_hash: Mapped[str] = mapped_column(ExactString(HASH_LENGTH), primary_key=True)
    superseded_at: Mapped[datetime] = mapped_column(Timestamp, index=True)


class WrongGuesses(Base):
    """The latest wrong passwords for one account from one address, in one row.

    ``subject`` is a hash of both. ``times`` are those of the database's clock, in microseconds
    since 1970, separated by spaces, oldest first; there are never more than the limit.
    """

    __tablename__ = "wrong_guesses"
    __table_args__ = ({"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"},)

    subject: Mapped[str] = mapped_column(ExactString(HASH_LENGTH), primary_key=True)
    times: Mapped[str] = mapped_column(ExactString(255))
    expires_at: Mapped[datetime] = mapped_column(Timestamp, index=True)
