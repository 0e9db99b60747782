"""The rules of accounts: who may be made, who may sign in, who may go on."""

from typing import NamedTuple

from sqlalchemy import ColumnElement, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth.models import MAX_PASSWORD, Role, User
from catalog.auth.names import checked_email, checked_username, composed, fold
from catalog.auth.passwords import Passwords
from catalog.errors import (
    AccountUnavailable,
    FieldError,
    InvalidRequest,
    OperatorError,
    Taken,
    WrongCredentials,
)


def check_password(password: str, *, min_length: int) -> None:
    """Refuse a new password that is too short.

    Raises:
        InvalidRequest: it has fewer characters than the operator asks for.
    """
    if len(composed(password)) < min_length:
        message = f"A password has at least {min_length} characters."
        raise InvalidRequest(errors=[FieldError("pointer", "/password", message)])


async def sign_up(
    session: AsyncSession,
    *,
    username: str,
    email: str,
    password_hash: str,
    role: Role = Role.USER,
) -> User:
    """Make an account.

    Raises:
        Taken: its name or address is someone's already; says which.
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
        # return to it would hide that the transaction is worth another try.
        await session.flush()
    except IntegrityError:
        # The index has decided; now find out for the caller what it objected to.
        await session.rollback()
        if taken := await _taken_fields(session, username=username, email=email):
            raise Taken(errors=taken) from None
        raise
    return user


async def _taken_fields(session: AsyncSession, *, username: str, email: str) -> list[FieldError]:
    async def exists(condition: ColumnElement[bool]) -> bool:
        return await session.scalar(select(User.id).where(condition)) is not None

    taken = []
    if await exists(User.username_key == fold(username)):
        taken.append(FieldError("pointer", "/username", "This name is taken."))
    if await exists(User.email_key == fold(email)):
        taken.append(FieldError("pointer", "/email", "This address is taken."))
    return taken


class Account(NamedTuple):
    """An account as sign-in needs it."""

    id: int
    username: str
    email: str
    role: str
    disabled: bool
    password_hash: str


async def find_account(connection: AsyncConnection, *, login: str) -> Account | None:
    """The account of a username or of an e-mail address; only the latter holds an ``@``."""
    key = fold(login)
    condition = User.email_key == key if "@" in key else User.username_key == key
    columns = [getattr(User, field) for field in Account._fields]
    row = (await connection.execute(select(*columns).where(condition))).one_or_none()
    return None if row is None else Account(*row)


async def log_in(account: Account | None, *, password: str, passwords: Passwords) -> Account:
    """Check a password against an account, or against none at the same price.

    Raises:
        WrongCredentials: wrong, unknown or disabled, in the same words for all three.
        Overloaded: too many passwords are waiting.
    """
    matches = await passwords.verify(account.password_hash if account else None, password)
    if account is None or not matches or account.disabled:
        raise WrongCredentials
    return account


async def require_account(session: AsyncSession | AsyncConnection, *, user_id: int) -> Role:
    """The role of an account that may go on calling.

    Raises:
        AccountUnavailable: it is disabled or gone since its token was issued.
    """
    row = (
        await session.execute(select(User.role, User.disabled).where(User.id == user_id))
    ).one_or_none()
    if row is None or row.disabled:
        raise AccountUnavailable
    return Role(row.role)


async def has_admin(session: AsyncSession) -> bool:
    """Whether any account is an administrator's."""
    return await session.scalar(select(User.id).where(User.role == Role.ADMIN).limit(1)) is not None


def check_admin(*, username: str, email: str, password: str, min_length: int) -> None:
    """Refuse an administrator whom sign-up would refuse too.

    Raises:
        OperatorError: name, address or password is not acceptable; says all that is wrong.
    """
    faults = []
    for check, value, label in (
        (checked_username, username, "username"),
        (checked_email, email, "e-mail address"),
    ):
        try:
            check(value)
        except ValueError as error:
            faults.append(f"The administrator's {label} {error}.")
    if not min_length <= len(composed(password)) <= MAX_PASSWORD:
        limits = f"{min_length} to {MAX_PASSWORD}"
        faults.append(f"The administrator's password must have {limits} characters.")
    if faults:
        raise OperatorError("\n".join(faults))
