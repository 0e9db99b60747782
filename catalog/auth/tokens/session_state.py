"""State of a session as a refresh token finds it: live, ended, or not the token's any more."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth import queries
from catalog.auth.models import Role
from catalog.auth.tokens.jwt import Bearer
from catalog.errors import AccountUnavailable, SessionEnded, TokenReused

GRACE = timedelta(seconds=30)
"""How long a superseded token still yields its successor, for lost responses and races."""

LAST_USED_PRECISION = timedelta(minutes=1)
"""Precision of ``last_used_at``; without it every refresh would be a write."""


class Resumed(NamedTuple):
    """State of a session that was resumed.

    Attributes:
        role: the account's current role.
        expires_at: when the session expires.
        is_due: whether ``last_used_at`` is due to be written (``touch``).
    """

    role: Role
    expires_at: datetime
    is_due: bool


class SessionState(NamedTuple):
    """Session, its account and one of its tokens, as of one instant.

    Attributes:
        role: of the account; empty or None if the account is missing.
        superseded_at: when the token was superseded; None for a current or unknown one.
    """

    user_id: int
    refresh_hash: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    role: str
    disabled: bool
    now: datetime
    superseded_at: datetime | None = None


class TokenKey(NamedTuple):
    """Key of a refresh token in the database."""

    session_id: int
    token_hash: str

    @classmethod
    def of(cls, bearer: Bearer) -> "TokenKey":
        """Return the key of a token by its bearer."""
        return cls(bearer.session_id, hash_of(bearer.token_id))


async def read_states(
    connection: AsyncConnection, keys: Sequence[TokenKey]
) -> list[SessionState | None]:
    """Return the state of each token's session, None if it does not exist; mostly by one query."""
    ids = {"session_ids": list({key.session_id for key in keys})}
    states = {
        session_id: SessionState(*state)
        for session_id, *state in await connection.execute(queries.SESSION_STATES, ids)
    }
    # A token is superseded together with its session's hash, so a current one needs no second
    # query, and that of any other follows the commit that superseded it.
    others = [
        key.token_hash
        for key in keys
        if (state := states.get(key.session_id)) and state.refresh_hash != key.token_hash
    ]
    superseded: dict[str, datetime] = {}
    if others:
        rows = await connection.execute(queries.SUPERSEDED, {"hashes": others})
        superseded = {row.token_hash: row.superseded_at for row in rows}
    return [
        (state := states.get(key.session_id))
        and state._replace(superseded_at=superseded.get(key.token_hash))
        for key in keys
    ]


def resume(bearer: Bearer, found: SessionState | None) -> Resumed:
    """Resume the session of a refresh token.

    Args:
        bearer: the bearer of the token.
        found: the state of its session; None if it does not exist.

    Raises:
        SessionEnded, AccountUnavailable, TokenReused: the token is no longer usable.
    """
    state = usable(bearer, found)
    is_due = state.now - state.last_used_at > LAST_USED_PRECISION
    return Resumed(Role(state.role), state.expires_at, is_due)


async def read_usable(session: AsyncSession, bearer: Bearer) -> SessionState:
    """Return the state of a usable refresh token; ``superseded_at`` is None for a current one.

    Raises:
        SessionEnded, AccountUnavailable, TokenReused: the token is no longer usable.
    """
    key = TokenKey.of(bearer)
    row = (await session.execute(queries.SESSION_STATE, key._asdict())).one_or_none()
    return usable(bearer, None if row is None else SessionState._make(row))


def usable(bearer: Bearer, state: SessionState | None) -> SessionState:
    """Return the state of a usable refresh token; raises as ``read_usable``."""
    if state is None or state.revoked_at is not None or state.expires_at <= state.now:
        raise SessionEnded
    if state.user_id != bearer.user_id or state.disabled or not state.role:
        raise AccountUnavailable
    if state.refresh_hash != hash_of(bearer.token_id):
        superseded_at = state.superseded_at
        if superseded_at is None or state.now - superseded_at > GRACE:
            raise TokenReused
    return state


def hash_of(token_id: str) -> str:
    """Return the hash stored for a token's id; the id is random, so that a plain hash hides it."""
    return sha256(token_id.encode()).hexdigest()
