"""Operations on accounts for administrators."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth.accounts import (
    PUBLIC_COLUMNS,
    AccountRow,
    Ended,
    end_access,
    keep_an_admin,
    require_account,
)
from catalog.auth.models import Role, User
from catalog.auth.tokens import sessions
from catalog.db.columns import database_now
from catalog.db.statements import affected_rows
from catalog.errors import Forbidden, NotFound


class Page(NamedTuple):
    """Page of accounts, and the id after which the next page begins; None on the last page."""

    users: list[AccountRow]
    last: tuple[int] | None


async def list_users(connection: AsyncConnection, *, limit: int, before_id: int | None) -> Page:
    """Return one page of all accounts, newest first."""
    statement = select(*PUBLIC_COLUMNS).order_by(User.id.desc()).limit(limit + 1)
    if before_id is not None:
        statement = statement.where(User.id < before_id)
    rows: Sequence[Any] = (await connection.execute(statement)).all()
    users = [dict(row._mapping) for row in rows[:limit]]
    return Page(users, (users[-1]["id"],) if len(rows) > limit else None)


async def read_user(connection: AsyncConnection | AsyncSession, *, user_id: int) -> AccountRow:
    """Return one account.

    Raises:
        NotFound: no account has this id.
    """
    row = (
        await connection.execute(select(*PUBLIC_COLUMNS).where(User.id == user_id))
    ).one_or_none()
    if row is None:
        raise NotFound(f"Account {user_id} does not exist.")
    return dict(row._mapping)


class Change(NamedTuple):
    """Result of a change to an account.

    Attributes:
        before: the account before the change.
        after: the account after the change.
        ended: the account's sessions and API keys, if it was disabled.
    """

    before: AccountRow
    after: AccountRow
    ended: Ended


async def change_user(
    session: AsyncSession,
    *,
    user_id: int,
    caller_id: int,
    role: Role | None = None,
    disabled: bool | None = None,
) -> Change:
    """Change an account's role or disabled state; None leaves the value as it is.

    Disabling an account ends its sessions and revokes its API keys.

    Raises:
        AccountUnavailable, Forbidden: the caller is no longer an administrator.
        NotFound: no account has this id.
        LastAdmin: the change would leave no administrator who can sign in.
    """
    await _require_admin(session, caller_id)
    if disabled or role is Role.USER:
        # First, so that transactions that lock several accounts lock them in the same order.
        await keep_an_admin(session, without=user_id)
        # The caller may have lost the role while this transaction waited for the lock.
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
    ended = await end_access(session, user_id=user_id) if disabled else Ended([], [])
    return Change(before, await read_user(session, user_id=user_id), ended)


async def end_sessions(session: AsyncSession, *, user_id: int, caller_id: int) -> list[int]:
    """End all sessions of an account.

    Returns:
        the ids of the ended sessions.

    Raises:
        AccountUnavailable, Forbidden: the caller is no longer an administrator.
        NotFound: no account has this id.
    """
    await _require_admin(session, caller_id)
    await read_user(session, user_id=user_id)
    return await sessions.end_all(session, user_id=user_id)


async def _require_admin(session: AsyncSession, caller_id: int) -> None:
    if await require_account(session, user_id=caller_id) is not Role.ADMIN:
        raise Forbidden("Only an administrator may do this.")
