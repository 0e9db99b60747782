"""Handling of wrong passwords, at log-in and wherever else a password is required."""

from collections.abc import Iterator
from contextlib import contextmanager

from catalog.auth import service
from catalog.auth.accounts import Account
from catalog.auth.audit import Audit, record
from catalog.auth.context import auth
from catalog.auth.passwords import login_throttle
from catalog.auth.service import Attempt
from catalog.errors import LoginThrottled, WrongCredentials, WrongPassword
from catalog.http.context import database


async def verified(attempt: Attempt, password: str) -> Account:
    """Return the account if the password is right; count a wrong one before refusing it.

    Raises:
        LoginThrottled, WrongCredentials, Overloaded: as ``service.verify``.
    """
    try:
        return await service.verify(attempt, password=password, passwords=auth().passwords)
    except WrongCredentials:
        # In a separate transaction, which the refusal does not roll back.
        await database().transaction(login_throttle.count, subject=attempt.subject)
        raise


@contextmanager
def recording(attempt: Attempt, *, failed: Audit, blocked: Audit) -> Iterator[None]:
    """Record a refused attempt in the audit log."""
    try:
        yield
    except (WrongCredentials, WrongPassword):
        record(failed, user_id=attempt.user_id)
        raise
    except LoginThrottled:
        record(blocked, user_id=attempt.user_id)
        raise
