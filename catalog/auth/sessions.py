"""Sessions: begun by a log-in, kept up by refresh tokens, ended by a log-out or by a theft.

Refresh tokens may be rotated: each has one successor, and a superseded one that comes back late
was stolen, by whoever sends it or by whoever superseded it (RFC 9700, section 4.14.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from secrets import token_hex
from typing import Any, NamedTuple

from sqlalchemy import CursorResult, Update, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth import queries
from catalog.auth.models import MAX_ADDRESS, MAX_AGENT, LoginSession, Role, SupersededToken
from catalog.auth.tokens import Bearer, successor_id
from catalog.db.columns import database_now
from catalog.db.statements import affected_rows
from catalog.errors import AccountUnavailable, NotFound, SessionEnded, TokenReused

GRACE = timedelta(seconds=30)
"""How long a superseded token still yields its successor: for lost answers and for races."""

LAST_USED_PRECISION = timedelta(minutes=1)
"""How old ``last_used_at`` may be; without it every refresh would be a write."""


@dataclass(frozen=True, slots=True)
class SessionLifetimes:
    """How long sessions and their tokens live.

    Attributes:
        refresh: a refresh token, from its issue.
        session: a session at most, from its log-in, however often its token is rotated.
    """

    refresh: timedelta
    session: timedelta

    def expiry(self, *, issued_at: datetime, created_at: datetime) -> datetime:
        """When a refresh token expires, and with it its session unless it is rotated before."""
        return min(issued_at + self.refresh, created_at + self.session)


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """What a new session is begun with.

    Attributes:
        address: where from.
        agent: with what, as it calls itself.
        lives: for how long.
        limit: live sessions that the account may have, this one included.
    """

    address: str
    agent: str
    lives: SessionLifetimes
    limit: int


class TokenGrant(NamedTuple):
    """What the tokens of a session are made of."""

    user_id: int
    session_id: int
    role: Role
    token_id: str
    issued_at: datetime
    expires_at: datetime


class Resumed(NamedTuple):
    """What a session that goes on is.

    Attributes:
        role: what its account may do.
        expires_at: when it ends.
        is_due: whether ``last_used_at`` is to be written (``touch``).
    """

    role: Role
    expires_at: datetime
    is_due: bool


class _State(NamedTuple):
    """A live session, its account and one of its tokens, as of one instant."""

    user_id: int
    refresh_hash: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    revoked_at: None
    role: str
    disabled: bool
    superseded_at: datetime | None
    now: datetime


async def begin(
    session: AsyncSession, *, user_id: int, role: Role, opening: SessionRequest
) -> TokenGrant:
    """Begin a session; where an account has too many, the least recently used ones end."""
    mine = {"user_id": user_id}
    live, issued_at = (await session.execute(queries.LIVE_SESSION_COUNT, mine)).one()
    if live >= opening.limit:
        surplus = {**mine, "surplus": live - opening.limit + 1}
        await _revoke(session, (await session.scalars(queries.SURPLUS_SESSIONS, surplus)).all())
    expires_at = opening.lives.expiry(issued_at=issued_at, created_at=issued_at)
    token_id = token_hex(16)
    row = {
        "user_id": user_id,
        "refresh_hash": hash_of(token_id),
        "created_at": issued_at,
        "last_used_at": issued_at,
        "expires_at": expires_at,
        "address": opening.address[:MAX_ADDRESS],
        "agent": opening.agent[:MAX_AGENT],
    }
    # Not as an entity: half of what a log-in costs here would be the unit of work.
    connection = await session.connection()
    result = await connection.execute(insert(LoginSession), row)
    assert isinstance(result, CursorResult)  # noqa: S101 (what an INSERT returns; tells mypy)
    assert result.inserted_primary_key is not None  # noqa: S101 (the same)
    session_id = result.inserted_primary_key[0]
    return TokenGrant(user_id, session_id, role, token_id, issued_at, expires_at)


async def resume(connection: AsyncConnection | AsyncSession, *, bearer: Bearer) -> Resumed:
    """Let the holder of a refresh token go on.

    Raises:
        SessionEnded, AccountUnavailable, TokenReused: it may not go on.
    """
    state = await _look(connection, bearer)
    is_due = state.now - state.last_used_at > LAST_USED_PRECISION
    return Resumed(Role(state.role), state.expires_at, is_due)


async def touch(session: AsyncSession, *, session_id: int) -> None:
    """Note that a session is in use."""
    mine = LoginSession.id == session_id
    await affected_rows(
        session, update(LoginSession).where(mine).values(last_used_at=database_now())
    )


async def rotate(session: AsyncSession, *, bearer: Bearer, lives: SessionLifetimes) -> TokenGrant:
    """Supersede a refresh token by its successor.

    Of any number of requests with the same token, at the same time or within ``GRACE``, all get
    the same successor.

    Args:
        session: the transaction.
        bearer: who holds the token.
        lives: for how long it is granted.

    Raises:
        SessionEnded, AccountUnavailable: there is nothing to go on with.
        TokenReused: it was superseded longer ago: end the session, in a transaction that this
            refusal does not roll back.
    """
    presented, successor = hash_of(bearer.token_id), successor_id(bearer.token_id)
    state = await _look(session, bearer)
    while state.superseded_at is None:
        expires_at = lives.expiry(issued_at=state.now, created_at=state.created_at)
        # One statement decides: the others find another hash, once this one has committed.
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
            state = await _look(session, bearer)
    # Whoever it was, the times are those of the one rotation there is.
    issued_at = state.superseded_at
    return TokenGrant(
        user_id=bearer.user_id,
        session_id=bearer.session_id,
        role=Role(state.role),
        token_id=successor,
        issued_at=issued_at,
        expires_at=lives.expiry(issued_at=issued_at, created_at=state.created_at),
    )


async def _look(connection: AsyncConnection | AsyncSession, bearer: Bearer) -> _State:
    """The session of a refresh token that may go on; ``superseded_at`` is null for a current one.

    Raises:
        SessionEnded, AccountUnavailable, TokenReused: it may not.
    """
    token_hash = hash_of(bearer.token_id)
    values = {"session_id": bearer.session_id, "token_hash": token_hash}
    row = (await connection.execute(queries.SESSION_STATE, values)).one_or_none()
    if row is None or row.revoked_at is not None or row.expires_at <= row.now:
        raise SessionEnded
    if row.user_id != bearer.user_id or row.disabled or row.role is None:
        raise AccountUnavailable
    if row.refresh_hash != token_hash:
        superseded_at = row.superseded_at
        if superseded_at is None or row.now - superseded_at > GRACE:
            raise TokenReused
    return _State._make(row)


async def end(session: AsyncSession, *, session_id: int, user_id: int | None = None) -> None:
    """End one session; one that has ended already stays as it is.

    Args:
        session: the transaction.
        session_id: which one.
        user_id: whose it must be.

    Raises:
        NotFound: that account has no such session, or not any more.
    """
    ending = _ending().where(LoginSession.id == session_id)
    if user_id is not None:
        ending = ending.where(LoginSession.user_id == user_id)
    if await affected_rows(session, ending) == 0 and user_id is not None:
        raise NotFound(f"You have no session {session_id}.")


async def end_all(session: AsyncSession, *, user_id: int, but: int | None = None) -> list[int]:
    """End the sessions of an account, all or all but one.

    Returns:
        the ids of those that were live.
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
        how many were live.
    """
    return await affected_rows(session, _ending())


async def forget_origins(session: AsyncSession, *, user_id: int) -> None:
    """Forget where an account's sessions came from; what is left of them are numbers and times."""
    mine = LoginSession.user_id == user_id
    await affected_rows(session, update(LoginSession).where(mine).values(address="", agent=""))


async def _revoke(session: AsyncSession, ids: Sequence[int]) -> None:
    if ids:
        await affected_rows(session, _ending().where(LoginSession.id.in_(ids)))


def _ending() -> Update:
    live = LoginSession.revoked_at.is_(None)
    return update(LoginSession).where(live).values(revoked_at=database_now())


async def list_live(connection: AsyncConnection, *, user_id: int) -> list[dict[str, Any]]:
    """An account's live sessions, the last used one first."""
    rows = await connection.execute(queries.LIVE_SESSION_LIST, {"user_id": user_id})
    return [dict(row._mapping) for row in rows]


async def sweep(session: AsyncSession, *, kept_ended: timedelta, limit: int) -> int:
    """Delete sessions and superseded tokens that nobody can use any more.

    Args:
        session: the transaction.
        kept_ended: how long those that have ended stay, because processes still ask for them.
        limit: rows of each kind at most, so that no lock is held for long.

    Returns:
        how many rows are gone.
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


def hash_of(token_id: str) -> str:
    """What the database keeps of a token's id; it is random, so that a plain hash hides it."""
    return sha256(token_id.encode()).hexdigest()
