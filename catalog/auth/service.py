"""Account rules: sign-up, sign-in, changes and continued access."""

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth import login_throttle, queries, sessions
from catalog.auth.models import Role, User
from catalog.auth.normalization import checked_email, checked_username, fold
from catalog.auth.passwords import Passwords, check_choice
from catalog.auth.sessions import SessionRequest, TokenGrant
from catalog.db.statements import affected_rows
from catalog.errors import (
    AccountUnavailable,
    DuplicateValue,
    FieldError,
    InvalidRequest,
    LastAdmin,
    LoginThrottled,
    NotFound,
    OperatorError,
    WrongCredentials,
    WrongPassword,
)


def check_new_password(
    password: str,
    *,
    min_length: int,
    refuse_guessable: bool,
    username: str,
    email: str,
    pointer: str = "/password",
) -> None:
    """Refuse a password that the policy forbids (``passwords.check_choice``).

    Raises:
        InvalidRequest: the password is forbidden; the pointer names the field.
    """
    try:
        check_choice(
            password,
            min_length=min_length,
            refuse_guessable=refuse_guessable,
            username=username,
            email=email,
        )
    except ValueError as fault:
        error = FieldError("pointer", pointer, f"A password {fault}.")
        raise InvalidRequest(errors=[error]) from None


async def sign_up(
    session: AsyncSession,
    *,
    username: str,
    email: str,
    password_hash: str,
    role: Role = Role.USER,
) -> User:
    """Create an account.

    Raises:
        DuplicateValue: its username or e-mail address is taken; says which.
    """
    user = User(
        username=username,
        username_key=fold(username),
        email=email,
        email_key=fold(email),
        password_hash=password_hash,
        role=role,
    )
    session.add(user)
    try:
        # Not in a savepoint: the servers drop it when this loses a deadlock, and the failing
        # rollback to it would hide that the transaction is worth a retry.
        await session.flush()
    except IntegrityError:
        # The unique index has decided; find out for the caller which field violates it.
        await session.rollback()
        if taken := await _taken_fields(session, username=username, email=email):
            raise DuplicateValue(errors=taken) from None
        raise
    return user


async def sign_up_and_in(
    session: AsyncSession, *, username: str, email: str, password_hash: str, opening: SessionRequest
) -> tuple[User, TokenGrant]:
    """Create an account and begin its first session.

    Raises:
        DuplicateValue: as ``sign_up``.
    """
    user = await sign_up(session, username=username, email=email, password_hash=password_hash)
    grant = await sessions.begin(session, user_id=user.id, role=Role(user.role), opening=opening)
    return user, grant


async def _taken_fields(session: AsyncSession, *, username: str, email: str) -> list[FieldError]:
    async def exists(condition: ColumnElement[bool]) -> bool:
        return await session.scalar(select(User.id).where(condition)) is not None

    taken = []
    if await exists(User.username_key == fold(username)):
        taken.append(FieldError("pointer", "/username", "This name is taken."))
    if await exists(User.email_key == fold(email)):
        taken.append(FieldError("pointer", "/email", "This address is taken."))
    return taken


PUBLIC_COLUMNS = (
    User.id,
    User.username,
    User.email,
    User.role,
    User.disabled,
    User.created_at,
)
"""Columns of an account that its owner and administrators may see."""


class Account(NamedTuple):
    """Account data that sign-in needs."""

    id: int
    username: str
    email: str
    role: str
    disabled: bool
    password_hash: str


class Attempt(NamedTuple):
    """Attempt to give the password of an account.

    Attributes:
        account: the account, or None if it is unknown.
        subject: the subject under which a wrong password is counted.
        refusal: why the password is not checked, or None if it is.
    """

    account: Account | None
    subject: str
    refusal: LoginThrottled | None

    @property
    def user_id(self) -> int | None:
        """The account's id, or None if it is unknown."""
        return self.account.id if self.account else None


async def find_attempt(connection: AsyncConnection, *, login: str, network: str) -> Attempt:
    """Find the account of a username or of an e-mail address; only the latter holds an ``@``."""
    key = fold(login)
    account = await _find_named(connection, key)
    # Unknown names are counted too: otherwise the throttle would reveal that they are unknown.
    subject = login_throttle.subject_of(account.id if account else key, network)
    return await _attempt(connection, account, subject)


async def _find_named(connection: AsyncConnection | AsyncSession, key: str) -> Account | None:
    by_name = queries.ACCOUNT_BY_EMAIL if "@" in key else queries.ACCOUNT_BY_USERNAME
    return _account_of((await connection.execute(by_name, {"key": key})).one_or_none())


def _account_of(row: Row[Any] | None) -> Account | None:
    return None if row is None else Account._make(row)


async def find_own_attempt(connection: AsyncConnection, *, user_id: int, network: str) -> Attempt:
    """Find the caller's own account.

    Raises:
        AccountUnavailable: it is disabled or deleted.
    """
    row = (await connection.execute(queries.ACCOUNT_BY_ID, {"user_id": user_id})).one_or_none()
    account = _account_of(row)
    if account is None or account.disabled:
        raise AccountUnavailable
    return await _attempt(connection, account, login_throttle.subject_of(user_id, network))


async def _attempt(connection: AsyncConnection, account: Account | None, subject: str) -> Attempt:
    try:
        await login_throttle.check(connection, subject=subject)
    except LoginThrottled as refusal:
        return Attempt(account, subject, refusal)
    return Attempt(account, subject, None)


async def verify(attempt: Attempt, *, password: str, passwords: Passwords) -> Account:
    """Check an account's password, or none at the same cost if the account is unknown.

    Raises:
        LoginThrottled: too many were wrong, so the password is not checked.
        WrongCredentials: wrong, unknown or disabled, in the same words for all three.
        Overloaded: the password queue is full.
    """
    if attempt.refusal is not None:
        raise attempt.refusal
    account = attempt.account
    matches = await passwords.verify(account.password_hash if account else None, password)
    if account is None or not matches or account.disabled:
        raise WrongCredentials
    return account


async def log_in(
    session: AsyncSession, *, account: Account, subject: str, opening: SessionRequest
) -> TokenGrant | None:
    """Begin a session of an account whose password has just been verified.

    Returns:
        None if the caller must verify again: meanwhile the account was disabled or deleted, or its
        password was changed, or only rehashed by another log-in.

    Raises:
        LoginThrottled: wrong passwords, checked concurrently, have used up the limit.
    """
    # The lock holds off transactions that disable the account, or change its password, and then
    # end its sessions: they end this one too, or their change is visible here. It also serializes
    # log-ins, so that each sees the others' sessions when it enforces the limit.
    values = {"user_id": account.id, "subject": subject}
    row = (await session.execute(queries.LOCKED_ACCOUNT, values)).one_or_none()
    if row is None:
        return None
    login_throttle.refuse_beyond_limit(row.times, row.now)
    if row.disabled or row.password_hash != account.password_hash:
        return None
    return await sessions.begin(session, user_id=account.id, role=Role(row.role), opening=opening)


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
        LoginThrottled: as ``log_in``.
        WrongPassword: the password has changed meanwhile.
    """
    await login_throttle.check(session, subject=subject)
    if not await replace_hash(
        session, user_id=account.id, old_hash=account.password_hash, new_hash=new_hash
    ):
        raise WrongPassword
    return await sessions.end_all(session, user_id=account.id, but=session_id)


async def read_own(connection: AsyncConnection | AsyncSession, *, user_id: int) -> dict[str, Any]:
    """Return the caller's own account.

    Raises:
        AccountUnavailable: it is disabled or deleted.
    """
    statement = select(*PUBLIC_COLUMNS).where(User.id == user_id, User.disabled.is_(False))
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        raise AccountUnavailable
    return dict(row._mapping)


async def reset_password(
    session: AsyncSession, *, login: str, password_hash: str
) -> tuple[str, int]:
    """Replace an account's password, without checking the old one, and end its sessions.

    Returns:
        its username, and the number of ended sessions.

    Raises:
        NotFound: no account has this username or e-mail address.
    """
    account = await _require_named(session, login)
    change = update(User).where(User.id == account.id).values(password_hash=password_hash)
    await affected_rows(session, change)
    return account.username, len(await sessions.end_all(session, user_id=account.id))


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
    account = await _find_named(session, fold(login))
    if account is None:
        raise NotFound(f"There is no account {login!r}.")
    return account


async def change_email(session: AsyncSession, *, user_id: int, email: str) -> dict[str, Any]:
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
        raise DuplicateValue(
            errors=[FieldError("pointer", "/email", "This address is taken.")]
        ) from error
    return await read_own(session, user_id=user_id)


async def delete_account(
    session: AsyncSession,
    *,
    subject: str,
    account: Account,
    on_account_delete: Callable[[AsyncSession, int], Awaitable[None]],
) -> list[int]:
    """Delete an account and end its sessions.

    Args:
        session: the transaction.
        subject: the subject under which its wrong passwords are counted.
        account: the account as it was when its password was verified.
        on_account_delete: deletes the account's other data; called while its row is locked, so
            that nothing is added meanwhile.

    Returns:
        the ids of the ended sessions.

    Raises:
        LoginThrottled: as ``log_in``.
        WrongPassword: the password has changed meanwhile.
        LastAdmin: no administrator who can sign in would remain.
    """
    await login_throttle.check(session, subject=subject)
    user_id = account.id
    await keep_an_admin(session, without=user_id)
    mine = select(User.id).where(User.id == user_id, User.password_hash == account.password_hash)
    if await session.scalar(mine.with_for_update()) is None:
        raise WrongPassword
    ended = await sessions.end_all(session, user_id=user_id)
    await sessions.forget_origins(session, user_id=user_id)
    await on_account_delete(session, user_id)
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


async def usable_accounts(session: AsyncSession, *, user_ids: Iterable[int]) -> set[int]:
    """Return the ids of those accounts that are still usable."""
    connection = await session.connection()
    rows = await connection.execute(queries.USABLE, {"user_ids": sorted(user_ids)})
    return set(rows.scalars())


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


def check_admin(
    *, username: str, email: str, password: str, min_length: int, refuse_guessable: bool
) -> None:
    """Validate a new administrator as sign-up would.

    Raises:
        OperatorError: username, e-mail address or password is invalid; lists every fault.
    """
    faults = []
    may_have = partial(
        check_choice,
        min_length=min_length,
        refuse_guessable=refuse_guessable,
        username=username,
        email=email,
    )
    checks: tuple[tuple[Callable[[str], object], str, str], ...] = (
        (checked_username, username, "username"),
        (checked_email, email, "e-mail address"),
        (may_have, password, "password"),
    )
    for check, value, label in checks:
        try:
            check(value)
        except ValueError as error:
            faults.append(f"The administrator's {label} {error}.")
    if faults:
        raise OperatorError("\n".join(faults))
