"""Accounts and their sessions."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import Boolean, CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from catalog.db.columns import Base, ExactString, ExactText, Id, Timestamp, now

MAX_USERNAME = 80
MAX_EMAIL = 120
MAX_PASSWORD = 128
"""Characters of a password, of which only a hash is stored; bounds the work of unknown clients."""


class Role(StrEnum):
    """Role of an account."""

    USER = "user"
    ADMIN = "admin"


class User(Base):
    """Account that can sign in.

    ``username_key`` and ``email_key`` hold the folded names (``auth/normalization.py``), so that a
    unique index decides equality in the same way on every engine.
    """

    __tablename__ = "users"
    __table_args__ = (
        # Finds the few administrators among many accounts, to ensure that one remains.
        Index(None, "role"),
        CheckConstraint("role IN ('user', 'admin')", name="role"),
        # The servers reject values longer than the column; SQLite stores them.
        CheckConstraint(f"length(username) <= {MAX_USERNAME}", name="username").ddl_if("sqlite"),
        CheckConstraint(f"length(email) <= {MAX_EMAIL}", name="email").ddl_if("sqlite"),
        # Without AUTOINCREMENT, SQLite would reuse the id of a deleted account.
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
    # Tokens carry the role; through this every process learns of roles newer than a token.
    role_changed_at: Mapped[datetime | None] = mapped_column(Timestamp, index=True)


MAX_ADDRESS = 45
"""Characters of an IPv6 address that ends in an IPv4 address."""

MAX_AGENT = 255
"""Characters of a ``User-Agent`` that are stored; the header is free text of any length."""

HASH_LENGTH = 64
"""Hexadecimal digits of SHA-256."""


class LoginSession(Base):
    """One log-in and its token family: all refresh tokens that descend from it.

    At most one of these tokens is current. Its id is stored as a hash, so that read access to the
    database does not reveal what a token is made of. The row outlives its account, so that every
    process learns that the session has ended.
    """

    __tablename__ = "sessions"
    __table_args__ = (
        # For listing and ending an account's live sessions.
        Index(None, "user_id", "revoked_at"),
        CheckConstraint(f"length(agent) <= {MAX_AGENT}", name="agent").ddl_if("sqlite"),
        # An id must never be reused: processes cache the ids of ended sessions.
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
    # For the sweep that deletes expired sessions.
    expires_at: Mapped[datetime] = mapped_column(Timestamp, index=True)
    address: Mapped[str] = mapped_column(ExactString(MAX_ADDRESS))
    agent: Mapped[str] = mapped_column(ExactString(MAX_AGENT))
    # Every process polls for the sessions that ended recently.
    revoked_at: Mapped[datetime | None] = mapped_column(Timestamp, index=True)


MAX_KEY_NAME = 100
"""Characters of the name that its owner gives an API key."""

KEY_PREFIX_LENGTH = 9
"""Characters at the beginning of an API key that are kept, so that its owner can recognize it."""


class Scope(StrEnum):
    """Operations on its owner's products that an API key is for."""

    READ = "read"
    WRITE = "write"


class ApiKey(Base):
    """Key with which a program signs in as an account.

    Only a hash is stored: a key has 256 random bits, so a plain hash hides it. The row outlives
    its account for a while, so that every process learns that the key was revoked.
    """

    __tablename__ = "api_keys"
    __table_args__ = (
        # For listing and revoking an account's keys.
        Index(None, "user_id", "revoked_at"),
        CheckConstraint("scope IN ('read', 'write')", name="scope"),
        CheckConstraint(f"length(name) <= {MAX_KEY_NAME}", name="name").ddl_if("sqlite"),
        # An id must never be reused: processes cache the ids of revoked keys.
        {
            "sqlite_autoincrement": True,
            "mysql_engine": "InnoDB",
            "mysql_charset": "utf8mb4",
        },
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey(User.id, ondelete="SET NULL"))
    name: Mapped[str] = mapped_column(ExactString(MAX_KEY_NAME))
    prefix: Mapped[str] = mapped_column(ExactString(KEY_PREFIX_LENGTH))
    key_hash: Mapped[str] = mapped_column(ExactString(HASH_LENGTH), unique=True)
    scope: Mapped[str] = mapped_column(ExactString(16))
    created_at: Mapped[datetime] = mapped_column(Timestamp)
    last_used_at: Mapped[datetime | None] = mapped_column(Timestamp)
    # For the sweep that deletes expired keys.
    expires_at: Mapped[datetime | None] = mapped_column(Timestamp, index=True)
    # Every process polls for the keys that were revoked recently.
    revoked_at: Mapped[datetime | None] = mapped_column(Timestamp, index=True)


class SupersededToken(Base):
    """Refresh token that was rotated; relevant while it may still be sent again."""

    __tablename__ = "superseded_tokens"
    __table_args__ = ({"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"},)

    token_hash: Mapped[str] = mapped_column(ExactString(HASH_LENGTH), primary_key=True)
    superseded_at: Mapped[datetime] = mapped_column(Timestamp, index=True)


class WrongGuesses(Base):
    """Latest wrong passwords for one account from one address, in one row.

    ``subject`` is a hash of both. ``times`` are from the database's clock, in microseconds since
    1970, separated by spaces, oldest first; never more than the limit.
    """

    __tablename__ = "wrong_guesses"
    __table_args__ = ({"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"},)

    subject: Mapped[str] = mapped_column(ExactString(HASH_LENGTH), primary_key=True)
    times: Mapped[str] = mapped_column(ExactString(255))
    expires_at: Mapped[datetime] = mapped_column(Timestamp, index=True)
