"""What is done about a wrong password, at log-in and wherever else one is asked for."""

from collections.abc import Iterator
from contextlib import contextmanager

from catalog.auth import login_throttle, service
from catalog.auth.audit import Audit, record
from catalog.auth.context import auth
from catalog.auth.service import Account, Attempt
from catalog.errors import LoginThrottled, WrongCredentials, WrongPassword
from catalog.http.context import database


async def verified(attempt: Attempt, password: str) -> Account:
    """The account that a password is right for; a wrong one is counted before it is told.

    Raises:
        LoginThrottled, WrongCredentials, Overloaded: as ``service.verify``.
    """
    try:
        return await service.verify(attempt, password=password, passwords=auth().passwords)
    except WrongCredentials:
        # In a transaction of its own, which the refusal does not roll back.
        await database().transaction(login_throttle.count, subject=attempt.subject)
        raise


@contextmanager
def recording(attempt: Attempt, *, failed: Audit, blocked: Audit) -> Iterator[None]:
    """Write down what becomes of an attempt that is refused."""
    try:
        yield
    except (WrongCredentials, WrongPassword):
        record(failed, user_id=attempt.user_id)
        raise
    except LoginThrottled:
        record(blocked, user_id=attempt.user_id)
        raise
