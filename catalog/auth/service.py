"""Account rules: sign-up and sign-in."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from sqlalchemy import ColumnElement, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth import queries
from catalog.auth.accounts import Account, account_of, find_named
from catalog.auth.models import Role, User
from catalog.auth.normalization import checked_email, checked_username, fold
from catalog.auth.passwords import login_throttle
from catalog.auth.passwords.hashing import Passwords
from catalog.auth.passwords.policy import check_choice
from catalog.auth.tokens import sessions
from catalog.auth.tokens.sessions import SessionRequest, TokenGrant
from catalog.errors import (
    AccountUnavailable,
    DuplicateValue,
    FieldError,
    InvalidRequest,
    LoginThrottled,
    OperatorError,
    WrongCredentials,
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
        error = FieldError("pointer", pointer, str(fault))
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
    session: AsyncSession,
    *,
    username: str,
    email: str,
    password_hash: str,
    session_request: SessionRequest,
) -> tuple[User, TokenGrant]:
    """Create an account and begin its first session.

    Raises:
        DuplicateValue: as ``sign_up``.
    """
    user = await sign_up(session, username=username, email=email, password_hash=password_hash)
    grant = await sessions.begin(
        session, user_id=user.id, role=Role(user.role), session_request=session_request
    )
    return user, grant


async def _taken_fields(session: AsyncSession, *, username: str, email: str) -> list[FieldError]:
    async def exists(condition: ColumnElement[bool]) -> bool:
        return await session.scalar(select(User.id).where(condition)) is not None

    taken = []
    if await exists(User.username_key == fold(username)):
        taken.append(FieldError("pointer", "/username", "is taken"))
    if await exists(User.email_key == fold(email)):
        taken.append(FieldError("pointer", "/email", "is taken"))
    return taken


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
    account = await find_named(connection, key)
    # Unknown names are counted too: otherwise the throttle would reveal that they are unknown.
    subject = login_throttle.subject_of(account.id if account else key, network)
    return await _attempt(connection, account, subject)


async def find_own_attempt(connection: AsyncConnection, *, user_id: int, network: str) -> Attempt:
    """Find the caller's own account.

    Raises:
        AccountUnavailable: it is disabled or deleted.
    """
    row = (await connection.execute(queries.ACCOUNT_BY_ID, {"user_id": user_id})).one_or_none()
    account = account_of(row)
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
    session: AsyncSession, *, account: Account, subject: str, session_request: SessionRequest
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
    return await sessions.begin(
        session, user_id=account.id, role=Role(row.role), session_request=session_request
    )


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
