"""API keys: how a program signs in without a password. Made and revoked by the account's owner.

A key is ``ck_``, 43 random letters and digits (256 bits) and a checksum of 6, as GitHub's tokens
have one: scanners of source code find keys and tell them from other text, and a key that was
mistyped or made up at random is refused without a query.
"""

import secrets
import string
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple
from zlib import crc32

from sqlalchemy import CursorResult, Update, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth import queries
from catalog.auth.models import KEY_PREFIX_LENGTH, ApiKey, Scope
from catalog.db.columns import database_now
from catalog.db.statements import affected_rows
from catalog.errors import AccountUnavailable, FieldError, InvalidRequest, NotFound, TooManyApiKeys

PREFIX = "ck_"

_ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits
_RANDOM_LENGTH = 43
_CHECKSUM_LENGTH = 6
_LENGTH = len(PREFIX) + _RANDOM_LENGTH + _CHECKSUM_LENGTH

KEYS_PER_ACCOUNT = 100
"""Live keys of an account; far more than its programs, and few enough to be listed at once."""

LAST_USED_PRECISION = timedelta(minutes=10)
"""Precision of ``last_used_at``; without it requests would be writes."""


class NewKey(NamedTuple):
    """A new key: the text that is shown once, and its row as displayed."""

    text: str
    row: dict[str, Any]


class FoundKey(NamedTuple):
    """A live key of a usable account, as of ``now`` by the database's clock."""

    key_hash: str
    key_id: int
    user_id: int
    scope: str
    expires_at: datetime | None
    last_used_at: datetime | None
    now: datetime

    @property
    def is_due(self) -> bool:
        """Whether ``last_used_at`` is due to be written (``touch``)."""
        return self.last_used_at is None or self.now - self.last_used_at > LAST_USED_PRECISION


def generate() -> str:
    """Return a new random key."""
    random = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))
    return PREFIX + random + _checksum(random)


def is_well_formed(text: str) -> bool:
    """Return whether a text has a key's form and the right checksum."""
    random = text[len(PREFIX) : -_CHECKSUM_LENGTH]
    return (
        len(text) == _LENGTH
        and text.startswith(PREFIX)
        and text.isascii()
        and text[-_CHECKSUM_LENGTH:] == _checksum(random)
    )


def _checksum(random: str) -> str:
    rest, digits = crc32(random.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        rest, digit = divmod(rest, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


def hash_of(text: str) -> str:
    """Return the hash under which a key is stored."""
    return sha256(text.encode()).hexdigest()


async def create(
    session: AsyncSession, *, user_id: int, name: str, scope: Scope, expires_at: datetime | None
) -> NewKey:
    """Make a key for an account.

    Raises:
        AccountUnavailable: the account is disabled or deleted.
        InvalidRequest: the key would have expired already.
        TooManyApiKeys: the account has ``KEYS_PER_ACCOUNT`` live keys.
    """
    mine = {"user_id": user_id}
    # The lock serializes creates, so that each counts the others' keys; and it holds off a
    # transaction that disables the account, which revokes this key too.
    rights = (await session.execute(queries.LOCKED_RIGHTS, mine)).one_or_none()
    if rights is None or rights.disabled:
        raise AccountUnavailable
    live, now = (await session.execute(queries.LIVE_KEY_COUNT, mine)).one()
    if expires_at is not None and expires_at <= now:
        raise InvalidRequest(errors=[FieldError("pointer", "/expires_at", "must be in the future")])
    if live >= KEYS_PER_ACCOUNT:
        raise TooManyApiKeys(f"An account may have {KEYS_PER_ACCOUNT} API keys; revoke one first.")
    text = generate()
    row = {
        "name": name,
        "prefix": text[:KEY_PREFIX_LENGTH],
        "scope": scope.value,
        "created_at": now,
        "last_used_at": None,
        "expires_at": expires_at,
    }
    connection = await session.connection()
    values = {**row, "user_id": user_id, "key_hash": hash_of(text)}
    result = await connection.execute(insert(ApiKey), values)
    assert isinstance(result, CursorResult)  # noqa: S101 (what an INSERT returns; tells mypy)
    assert result.inserted_primary_key is not None  # noqa: S101 (the same)
    return NewKey(text, {"id": result.inserted_primary_key[0], **row})


async def list_live(connection: AsyncConnection, *, user_id: int) -> list[dict[str, Any]]:
    """Return an account's live keys, newest first."""
    rows = await connection.execute(
        queries.LIVE_KEYS.order_by(ApiKey.id.desc()), {"user_id": user_id}
    )
    return [dict(row._mapping) for row in rows]


async def revoke(session: AsyncSession, *, key_id: int, user_id: int) -> None:
    """Revoke one of an account's keys.

    Raises:
        NotFound: the account has no such live key.
    """
    ending = _revoking().where(ApiKey.id == key_id, ApiKey.user_id == user_id)
    if await affected_rows(session, ending) == 0:
        raise NotFound(f"You have no API key {key_id}.")


async def revoke_all(session: AsyncSession, *, user_id: int) -> list[int]:
    """Revoke all keys of an account.

    Returns:
        the ids of the revoked keys.
    """
    live = select(ApiKey.id).where(ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None))
    ids = list(await session.scalars(live))
    if ids:
        await affected_rows(session, _revoking().where(ApiKey.id.in_(ids)))
    return ids


async def forget_names(session: AsyncSession, *, user_id: int) -> None:
    """Erase the names of an account's keys; only numbers and times remain."""
    mine = ApiKey.user_id == user_id
    await affected_rows(session, update(ApiKey).where(mine).values(name=""))


def _revoking() -> Update:
    return update(ApiKey).where(ApiKey.revoked_at.is_(None)).values(revoked_at=database_now())


async def find(connection: AsyncConnection, hashes: Sequence[str]) -> list[FoundKey | None]:
    """Return the live keys with these hashes, in their order; None for unknown ones."""
    rows = await connection.execute(queries.KEYS_BY_HASH, {"hashes": list(hashes)})
    found = {row.key_hash: FoundKey._make(row) for row in rows}
    return [found.get(each) for each in hashes]


async def touch(session: AsyncSession, *, key_ids: Sequence[int]) -> None:
    """Set ``last_used_at`` of keys to now, but for those that another process has just touched."""
    now: datetime = (await session.execute(select(database_now()))).scalar_one()
    is_old = ApiKey.last_used_at < now - LAST_USED_PRECISION
    due = ApiKey.id.in_(key_ids) & (ApiKey.last_used_at.is_(None) | is_old)
    await affected_rows(session, update(ApiKey).where(due).values(last_used_at=now))


async def sweep(session: AsyncSession, *, kept_revoked: timedelta, limit: int) -> int:
    """Delete keys that are no longer usable.

    Args:
        session: the transaction.
        kept_revoked: how long revoked keys stay, because processes still poll for them.
        limit: maximum rows of each kind, so that no lock is held for long.

    Returns:
        the number of deleted rows.
    """
    now: datetime = (await session.execute(select(database_now()))).scalar_one()
    gone = 0
    for condition in (ApiKey.expires_at < now, ApiKey.revoked_at < now - kept_revoked):
        ids = (await session.scalars(select(ApiKey.id).where(condition).limit(limit))).all()
        if ids:
            gone += await affected_rows(session, delete(ApiKey).where(ApiKey.id.in_(ids)))
    return gone
