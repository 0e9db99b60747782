"""Sessions: begun by a log-in, extended by refresh tokens, ended by a log-out or a token theft.

Refresh tokens may be rotated: each has one successor. A superseded token that is sent again late
was stolen, either by its sender or by the client that rotated it (RFC 9700, section 4.14.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from secrets import token_hex
from typing import Any, NamedTuple

from sqlalchemy import CursorResult, Update, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth import queries
from catalog.auth.models import MAX_ADDRESS, MAX_AGENT, LoginSession, Role, SupersededToken
from catalog.auth.tokens.jwt import Bearer, successor_id
from catalog.auth.tokens.session_state import GRACE, hash_of, read_usable
from catalog.db.columns import database_now
from catalog.db.statements import affected_rows
from catalog.errors import NotFound

SESSIONS_PER_ACCOUNT = 100
"""Live sessions of an account; one more ends the least recently used one.

Far more than a person's devices, and few enough to be listed and ended in one request.
"""

SESSION_FACTOR = 3
"""Longest life of a session in lifetimes of a refresh token, however often it is rotated: a user
who never signs out gives the password every 90 days, unless refresh tokens live shorter."""


@dataclass(frozen=True, slots=True)
class SessionLifetimes:
    """Lifetimes of sessions and their tokens.

    Attributes:
        refresh: lifetime of a refresh token, from its issue.
        session: maximum lifetime of a session, from its log-in, however often its token is
            rotated.
    """

    refresh: timedelta
    session: timedelta

    def expiry(self, *, issued_at: datetime, created_at: datetime) -> datetime:
        """Return when a refresh token expires, and its session unless it is rotated before."""
        return min(issued_at + self.refresh, created_at + self.session)


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """Parameters of a new session.

    Attributes:
        address: the client's address.
        agent: the client's ``User-Agent``.
        lifetimes: the lifetimes of the session and its tokens.
        limit: live sessions that the account may have, this one included.
    """

    address: str
    agent: str
    lifetimes: SessionLifetimes
    limit: int = SESSIONS_PER_ACCOUNT


class TokenGrant(NamedTuple):
    """Data from which the tokens of a session are issued."""

    user_id: int
    session_id: int
    role: Role
    token_id: str
    issued_at: datetime
    expires_at: datetime


async def begin(
    session: AsyncSession, *, user_id: int, role: Role, session_request: SessionRequest
) -> TokenGrant:
    """Begin a session; beyond the account's limit, its least recently used sessions end."""
    mine = {"user_id": user_id}
    live, issued_at = (await session.execute(queries.LIVE_SESSION_COUNT, mine)).one()
    if live >= session_request.limit:
        surplus = {**mine, "surplus": live - session_request.limit + 1}
        await _revoke(session, (await session.scalars(queries.SURPLUS_SESSIONS, surplus)).all())
    expires_at = session_request.lifetimes.expiry(issued_at=issued_at, created_at=issued_at)
    token_id = token_hex(16)
    row = {
        "user_id": user_id,
        "refresh_hash": hash_of(token_id),
        "created_at": issued_at,
        "last_used_at": issued_at,
        "expires_at": expires_at,
        "address": session_request.address[:MAX_ADDRESS],
        "agent": session_request.agent[:MAX_AGENT],
    }
    # Not as an entity: the ORM's unit of work would be half of a log-in's cost here.
    connection = await session.connection()
    result = await connection.execute(insert(LoginSession), row)
    assert isinstance(result, CursorResult)  # noqa: S101 (what an INSERT returns; tells mypy)
    assert result.inserted_primary_key is not None  # noqa: S101 (the same)
    session_id = result.inserted_primary_key[0]
    return TokenGrant(user_id, session_id, role, token_id, issued_at, expires_at)


async def touch(session: AsyncSession, *, session_id: int) -> None:
    """Set a session's ``last_used_at`` to now."""
    mine = LoginSession.id == session_id
    await affected_rows(
        session, update(LoginSession).where(mine).values(last_used_at=database_now())
    )


async def rotate(
    session: AsyncSession, *, bearer: Bearer, lifetimes: SessionLifetimes
) -> TokenGrant:
    """Supersede a refresh token by its successor.

    All requests with the same token, concurrent or within ``GRACE``, get the same successor.

    Args:
        session: the transaction.
        bearer: the bearer of the token to rotate.
        lifetimes: the lifetimes of the successor and its session.

    Raises:
        SessionEnded, AccountUnavailable: the session has ended, or its account is unusable.
        TokenReused: the token was superseded longer than ``GRACE`` ago; the caller must end the
            session, in a transaction that this refusal does not roll back.
    """
    presented, successor = hash_of(bearer.token_id), successor_id(bearer.token_id)
    state = await read_usable(session, bearer)
    while state.superseded_at is None:
        expires_at = lifetimes.expiry(issued_at=state.now, created_at=state.created_at)
        # Compare-and-swap: concurrent rotations find another hash once this one has committed.
        rotation = (
            update(LoginSession)
            .where(LoginSession.id == bearer.session_id, LoginSession.refresh_hash == presented)
            .where(LoginSession.revoked_at.is_(None))
            .values(refresh_hash=hash_of(successor), last_used_at=state.now, expires_at=expires_at)
        )
        if await affected_rows(session, rotation) == 1:
            state = state._replace(superseded_at=state.now)
            row = {"token_hash": presented, "superseded_at": state.now}
            await session.execute(insert(SupersededToken).values(row))
        else:
            state = await read_usable(session, bearer)
    # Whichever request rotated the token, the times are those of this single rotation.
    issued_at = state.superseded_at
    return TokenGrant(
        user_id=bearer.user_id,
        session_id=bearer.session_id,
        role=Role(state.role),
        token_id=successor,
        issued_at=issued_at,
        expires_at=lifetimes.expiry(issued_at=issued_at, created_at=state.created_at),
    )


async def end(session: AsyncSession, *, session_id: int, user_id: int | None = None) -> None:
    """End one session; one that has ended already stays as it is.

    Args:
        session: the transaction.
        session_id: the session to end.
        user_id: the account that it must belong to; None for any.

    Raises:
        NotFound: the given account has no such live session.
    """
    ending = _ending().where(LoginSession.id == session_id)
    if user_id is not None:
        ending = ending.where(LoginSession.user_id == user_id)
    if await affected_rows(session, ending) == 0 and user_id is not None:
        raise NotFound(f"You have no session {session_id}.")


async def end_all(session: AsyncSession, *, user_id: int, but: int | None = None) -> list[int]:
    """End the sessions of an account, all or all but one.

    Returns:
        the ids of the ended sessions.
    """
    live = select(LoginSession.id).where(
        LoginSession.user_id == user_id, LoginSession.revoked_at.is_(None)
    )
    ids = [each for each in await session.scalars(live) if each != but]
    await _revoke(session, ids)
    return ids


async def end_everyone(session: AsyncSession) -> int:
    """End every session of every account.

    Returns:
        the number of ended sessions.
    """
    return await affected_rows(session, _ending())


async def forget_origins(session: AsyncSession, *, user_id: int) -> None:
    """Erase where an account's sessions came from; only numbers and times remain."""
    mine = LoginSession.user_id == user_id
    await affected_rows(session, update(LoginSession).where(mine).values(address="", agent=""))


async def _revoke(session: AsyncSession, ids: Sequence[int]) -> None:
    if ids:
        await affected_rows(session, _ending().where(LoginSession.id.in_(ids)))


def _ending() -> Update:
    live = LoginSession.revoked_at.is_(None)
    return update(LoginSession).where(live).values(revoked_at=database_now())


async def list_live(connection: AsyncConnection, *, user_id: int) -> list[dict[str, Any]]:
    """Return an account's live sessions, most recently used first."""
    rows = await connection.execute(queries.LIVE_SESSION_LIST, {"user_id": user_id})
    return [dict(row._mapping) for row in rows]


async def sweep(session: AsyncSession, *, kept_ended: timedelta, limit: int) -> int:
    """Delete sessions and superseded tokens that are no longer usable.

    Args:
        session: the transaction.
        kept_ended: how long ended sessions stay, because processes still poll for them.
        limit: maximum rows of each kind, so that no lock is held for long.

    Returns:
        the number of deleted rows.
    """
    now: datetime = (await session.execute(select(database_now()))).scalar_one()
    gone = 0
    for key, condition in (
        (LoginSession.id, LoginSession.expires_at < now - kept_ended),
        (LoginSession.id, LoginSession.revoked_at < now - kept_ended),
        (SupersededToken.token_hash, SupersededToken.superseded_at < now - 2 * GRACE),
    ):
        keys = (await session.scalars(select(key).where(condition).limit(limit))).all()
        if keys:
            gone += await affected_rows(session, delete(key.class_).where(key.in_(keys)))
    return gone
