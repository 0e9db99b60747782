"""What administrators may do to accounts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth import sessions
from catalog.auth.models import Role, User
from catalog.auth.service import PUBLIC_COLUMNS, keep_an_admin, require_account
from catalog.db.columns import database_now
from catalog.db.statements import affected_rows
from catalog.errors import Forbidden, NotFound


class Page(NamedTuple):
    """Accounts, and the id after which the next page begins, if there is one."""

    users: list[dict[str, Any]]
    last: tuple[int] | None


async def list_users(connection: AsyncConnection, *, limit: int, before_id: int | None) -> Page:
    """One page of all accounts, the newest first."""
    statement = select(*PUBLIC_COLUMNS).order_by(User.id.desc()).limit(limit + 1)
    if before_id is not None:
        statement = statement.where(User.id < before_id)
    rows: Sequence[Any] = (await connection.execute(statement)).all()
    users = [dict(row._mapping) for row in rows[:limit]]
    return Page(users, (users[-1]["id"],) if len(rows) > limit else None)


async def read_user(connection: AsyncConnection | AsyncSession, *, user_id: int) -> dict[str, Any]:
    """One account.

    Raises:
        NotFound: there is none of that id.
    """
    row = (
        await connection.execute(select(*PUBLIC_COLUMNS).where(User.id == user_id))
    ).one_or_none()
    if row is None:
        raise NotFound(f"Account {user_id} does not exist.")
    return dict(row._mapping)


class Change(NamedTuple):
    """What a change has led to.

    Attributes:
        before: the account as it was.
        after: the account as it is.
        ended: the sessions that have ended.
    """

    before: dict[str, Any]
    after: dict[str, Any]
    ended: list[int]


async def change_user(
    session: AsyncSession,
    *,
    user_id: int,
    caller_id: int,
    role: Role | None = None,
    disabled: bool | None = None,
) -> Change:
    """Change what an account may do; what is None stays as it is. A disabled one is signed out.

    Raises:
        AccountUnavailable, Forbidden: the caller is no administrator any more.
        NotFound: there is no such account.
        LastAdmin: nobody would be left to administer the service.
    """
    await _require_admin(session, caller_id)
    if disabled or role is Role.USER:
        # First, so that all who lock several accounts lock them in the same order.
        await keep_an_admin(session, without=user_id)
        # Who had to wait for the lock may be none any more.
        await _require_admin(session, caller_id)
    await session.execute(select(User.id).where(User.id == user_id).with_for_update())
    before = await read_user(session, user_id=user_id)
    values: dict[str, Any] = {}
    if role is not None and role != before["role"]:
        values |= {"role": role, "role_changed_at": database_now()}
    if disabled is not None:
        values["disabled"] = disabled
    if values:
        change = update(User).where(User.id == user_id).values(values)
        await affected_rows(session, change)
    ended = await sessions.end_all(session, user_id=user_id) if disabled else []
    return Change(before, await read_user(session, user_id=user_id), ended)


async def end_sessions(session: AsyncSession, *, user_id: int, caller_id: int) -> list[int]:
    """Sign an account out everywhere.

    Returns:
        the sessions that have ended.

    Raises:
        AccountUnavailable, Forbidden: the caller is no administrator any more.
        NotFound: there is no such account.
    """
    await _require_admin(session, caller_id)
    await read_user(session, user_id=user_id)
    return await sessions.end_all(session, user_id=user_id)


async def _require_admin(session: AsyncSession, caller_id: int) -> None:
    if await require_account(session, user_id=caller_id) is not Role.ADMIN:
        raise Forbidden("Only an administrator may do this.")
