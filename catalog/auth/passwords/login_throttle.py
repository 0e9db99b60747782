"""Log-in throttle: wrong passwords per account and address, counted in the database.

The count is shared by all instances. A password counts only once it has proved wrong, so that any
number of right ones may be checked concurrently. Of wrong passwords checked concurrently, only as
many as the limit are reported as wrong.
"""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from math import ceil

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth import queries
from catalog.auth.models import WrongGuesses
from catalog.db.columns import database_now
from catalog.db.statements import affected_rows
from catalog.errors import LoginThrottled

LIMIT = 10
"""Wrong passwords per account and address within ``WINDOW``."""

WINDOW = timedelta(minutes=5)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def subject_of(account: int | str, network: str) -> str:
    """Return the key under which wrong passwords are counted.

    Args:
        account: the account's id or, if there is none, the folded name that was tried.
        network: the client's IPv4 address or IPv6 /64.
    """
    return sha256(f"{type(account).__name__} {account}\0{network}".encode()).hexdigest()


async def check(connection: AsyncConnection | AsyncSession, *, subject: str) -> None:
    """Refuse to check a password after too many wrong ones.

    Raises:
        LoginThrottled: the limit is reached; gives the seconds until the next attempt.
    """
    times, now = (
        await connection.execute(queries.WRONG_PASSWORD_TIMES, {"subject": subject})
    ).one()
    refuse_beyond_limit(times, now)


def refuse_beyond_limit(times: str | None, now: datetime) -> None:
    """Refuse if as many recent passwords as the limit were wrong.

    Raises:
        LoginThrottled: the limit is reached; gives the seconds until the next attempt.
    """
    recent = _recent(times or "", now)
    if len(recent) >= LIMIT:
        wait = recent[0] + WINDOW - now
        raise LoginThrottled(retry_after_seconds=max(1, ceil(wait.total_seconds())))


async def count(session: AsyncSession, *, subject: str) -> None:
    """Count a wrong password.

    Raises:
        LoginThrottled: concurrent attempts have used up the limit; nothing is counted.
    """
    mine = WrongGuesses.subject == subject
    # The lock serializes attempts. SQLite ignores it, and has a single writer anyway.
    reading = select(WrongGuesses.times, database_now()).where(mine).with_for_update()
    row = (await session.execute(reading)).one_or_none()
    if row is None:
        now: datetime = (await session.execute(select(database_now()))).scalar_one()
        values = {"subject": subject, "times": _text([now]), "expires_at": now + WINDOW}
        try:
            await session.execute(insert(WrongGuesses).values(values))
        except IntegrityError:
            # A concurrent attempt inserted the row first; now there is a row to lock.
            await session.rollback()
            await count(session, subject=subject)
        return
    times, now = row
    refuse_beyond_limit(times, now)
    changes = {"times": _text([*_recent(times, now), now]), "expires_at": now + WINDOW}
    await affected_rows(session, update(WrongGuesses).where(mine).values(changes))


def _recent(text: str, now: datetime) -> list[datetime]:
    times = (_EPOCH + timedelta(microseconds=int(each)) for each in text.split())
    return [each for each in times if each > now - WINDOW]


def _text(times: list[datetime]) -> str:
    return " ".join(str((each - _EPOCH) // timedelta(microseconds=1)) for each in times)


async def sweep(session: AsyncSession, *, limit: int) -> int:
    """Delete expired counts, at most ``limit`` rows.

    Returns:
        the number of deleted rows.
    """
    outdated = select(WrongGuesses.subject).where(WrongGuesses.expires_at < database_now())
    subjects = (await session.scalars(outdated.limit(limit))).all()
    if not subjects:
        return 0
    # A row may have been updated since it was selected.
    removal = delete(WrongGuesses).where(
        WrongGuesses.subject.in_(subjects), WrongGuesses.expires_at < database_now()
    )
    return await affected_rows(session, removal)
