"""Account rules: changes by the owner or the operator, and continued access."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row, bindparam, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth import queries
from catalog.auth.models import Role, User
from catalog.auth.normalization import fold
from catalog.auth.passwords import login_throttle
from catalog.auth.tokens import api_keys, sessions
from catalog.db.columns import Id
from catalog.db.statements import affected_rows
from catalog.errors import (
    AccountUnavailable,
    DuplicateValue,
    FieldError,
    LastAdmin,
    NotFound,
    WrongPassword,
)

PUBLIC_COLUMNS = (
    User.id,
    User.username,
    User.email,
    User.role,
    User.disabled,
    User.created_at,
)
"""Columns of an account that its owner and administrators may see."""

AccountRow = dict[str, Any]
"""Values of ``PUBLIC_COLUMNS``, by their names."""

_USABLE_ACCOUNTS = select(*PUBLIC_COLUMNS).where(
    User.id.in_(bindparam("user_ids", type_=Id, expanding=True)), User.disabled.is_(False)
)


class Account(NamedTuple):
    """Account data that sign-in needs."""

    id: int
    username: str
    email: str
    role: str
    disabled: bool
    password_hash: str


class Ended(NamedTuple):
    """Ids of the sessions that have ended and of the API keys that were revoked."""

    sessions: list[int]
    keys: list[int]


async def end_access(session: AsyncSession, *, user_id: int) -> Ended:
    """End all sessions of an account and revoke its API keys."""
    return Ended(
        await sessions.end_all(session, user_id=user_id),
        await api_keys.revoke_all(session, user_id=user_id),
    )


async def find_named(connection: AsyncConnection | AsyncSession, key: str) -> Account | None:
    """Find the account of a folded username or e-mail address."""
    by_name = queries.ACCOUNT_BY_EMAIL if "@" in key else queries.ACCOUNT_BY_USERNAME
    return account_of((await connection.execute(by_name, {"key": key})).one_or_none())


def account_of(row: Row[Any] | None) -> Account | None:
    """Return the account of a row, if there is one."""
    return None if row is None else Account._make(row)


async def replace_hash(
    session: AsyncSession, *, user_id: int, old_hash: str, new_hash: str
) -> bool:
    """Replace a password's hash, unless the password has changed or the account is disabled."""
    mine = (User.id == user_id, User.password_hash == old_hash, User.disabled.is_(False))
    change = update(User).where(*mine).values(password_hash=new_hash)
    return await affected_rows(session, change) == 1


async def change_password(
    session: AsyncSession, *, subject: str, account: Account, new_hash: str, session_id: int
) -> list[int]:
    """Change an account's password and end its sessions except the caller's.

    Args:
        session: the transaction.
        subject: the subject under which its wrong passwords are counted.
        account: the account as it was when the current password was verified; of two concurrent
            changes one wins.
        new_hash: the hash of the new password.
        session_id: the session that stays live.

    Returns:
        the ids of the ended sessions.

    Raises:
        LoginThrottled: as ``service.log_in``.
        WrongPassword: the password has changed meanwhile.
    """
    await login_throttle.check(session, subject=subject)
    if not await replace_hash(
        session, user_id=account.id, old_hash=account.password_hash, new_hash=new_hash
    ):
        raise WrongPassword
    return await sessions.end_all(session, user_id=account.id, but=session_id)


async def read_usable(
    connection: AsyncConnection | AsyncSession, user_ids: Sequence[int]
) -> list[AccountRow | None]:
    """Return accounts in the order of the ids; None for those that are disabled or deleted."""
    rows = await connection.execute(_USABLE_ACCOUNTS, {"user_ids": user_ids})
    found = {row["id"]: dict(row) for row in rows.mappings()}
    return [found.get(user_id) for user_id in user_ids]


async def read_own(connection: AsyncConnection | AsyncSession, *, user_id: int) -> AccountRow:
    """Return the caller's own account.

    Raises:
        AccountUnavailable: it is disabled or deleted.
    """
    (account,) = await read_usable(connection, [user_id])
    return require_usable(account)


def require_usable(account: AccountRow | None) -> AccountRow:
    """Return an account of ``read_usable``.

    Raises:
        AccountUnavailable: it is disabled or deleted.
    """
    if account is None:
        raise AccountUnavailable
    return account


async def reset_password(
    session: AsyncSession, *, login: str, password_hash: str
) -> tuple[str, Ended]:
    """Replace an account's password, without checking the old one, and end all access to it.

    Returns:
        its username, its sessions and its API keys.

    Raises:
        NotFound: no account has this username or e-mail address.
    """
    account = await _require_named(session, login)
    change = update(User).where(User.id == account.id).values(password_hash=password_hash)
    await affected_rows(session, change)
    return account.username, await end_access(session, user_id=account.id)


async def end_sessions(session: AsyncSession, *, login: str) -> int:
    """End all sessions of an account.

    Returns:
        the number of ended sessions.

    Raises:
        NotFound: no account has this username or e-mail address.
    """
    account = await _require_named(session, login)
    return len(await sessions.end_all(session, user_id=account.id))


async def account_id(session: AsyncSession, *, login: str) -> int:
    """Return the id of the account with this username or e-mail address.

    Raises:
        NotFound: no account has it.
    """
    return (await _require_named(session, login)).id


async def _require_named(session: AsyncSession, login: str) -> Account:
    account = await find_named(session, fold(login))
    if account is None:
        raise NotFound(f"There is no account {login!r}.")
    return account


async def change_email(session: AsyncSession, *, user_id: int, email: str) -> AccountRow:
    """Change an account's e-mail address.

    Returns:
        the changed account.

    Raises:
        AccountUnavailable: the account is disabled or deleted.
        DuplicateValue: another account has this address.
    """
    await require_account(session, user_id=user_id)
    change = update(User).where(User.id == user_id).values(email=email, email_key=fold(email))
    try:
        await affected_rows(session, change)
    except IntegrityError as error:
        await session.rollback()
        held = await session.scalar(select(User.id).where(User.email_key == fold(email)))
        if held is None:
            raise
        raise DuplicateValue(errors=[FieldError("pointer", "/email", "is taken")]) from error
    return await read_own(session, user_id=user_id)


async def delete_account(
    session: AsyncSession,
    *,
    subject: str,
    account: Account,
    on_account_delete: Callable[[AsyncSession, int], Awaitable[bool]],
) -> Ended | None:
    """Delete an account, end its sessions and revoke its API keys.

    Args:
        session: the transaction.
        subject: the subject under which its wrong passwords are counted.
        account: the account as it was when its password was verified.
        on_account_delete: deletes the account's other data, or a part of it if it is much, and
            tells whether it was all; called while its row is locked, so that nothing is added
            meanwhile.

    Returns:
        its sessions and its API keys; None if other data are left, so that the account stays until
        the next call.

    Raises:
        LoginThrottled: as ``service.log_in``.
        WrongPassword: the password has changed meanwhile.
        LastAdmin: no administrator who can sign in would remain.
    """
    await login_throttle.check(session, subject=subject)
    user_id = account.id
    await keep_an_admin(session, without=user_id)
    mine = select(User.id).where(User.id == user_id, User.password_hash == account.password_hash)
    if await session.scalar(mine.with_for_update()) is None:
        raise WrongPassword
    if not await on_account_delete(session, user_id):
        return None
    ended = await end_access(session, user_id=user_id)
    await sessions.forget_origins(session, user_id=user_id)
    await api_keys.forget_names(session, user_id=user_id)
    await affected_rows(session, delete(User).where(User.id == user_id))
    return ended


async def require_account(session: AsyncSession | AsyncConnection, *, user_id: int) -> Role:
    """Return the role of an account that is still usable.

    Raises:
        AccountUnavailable: it was disabled or deleted after its token was issued.
    """
    row = (await session.execute(queries.RIGHTS, {"user_id": user_id})).one_or_none()
    if row is None or row.disabled:
        raise AccountUnavailable
    return Role(row.role)


async def usable_roles(session: AsyncSession, *, user_ids: Iterable[int]) -> dict[int, Role]:
    """Return the roles of those accounts that are still usable, by their ids."""
    connection = await session.connection()
    rows = await connection.execute(queries.USABLE, {"user_ids": sorted(user_ids)})
    return {user_id: Role(role) for user_id, role in rows}


async def keep_an_admin(session: AsyncSession, *, without: int) -> None:
    """Ensure that an administrator who can sign in remains without that account.

    The rows are locked until the transaction ends: of two administrators who demote each other
    concurrently, the second one is refused.

    Raises:
        LastAdmin: the account is the only one.
    """
    admins = select(User.id).where(User.role == Role.ADMIN, User.disabled.is_(False))
    ids = set(await session.scalars(admins.order_by(User.id).with_for_update()))
    if ids == {without}:
        raise LastAdmin


async def has_admin(session: AsyncSession) -> bool:
    """Return whether any account is an administrator's."""
    return await session.scalar(select(User.id).where(User.role == Role.ADMIN).limit(1)) is not None
