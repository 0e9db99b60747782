"""Wrong passwords, counted by account and address in the database, for all instances.

They are counted when a password has turned out to be wrong and not before, so that any number of
right ones may be checked at the same time. Of wrong ones that were checked at the same time, only
as many as the limit are told that they were wrong.
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
"""Wrong passwords for one account from one address within ``WINDOW``."""

WINDOW = timedelta(minutes=5)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def subject_of(account: int | str, network: str) -> str:
    """What is counted under one number.

    Args:
        account: an account's id or, when there is none, the name that was tried, folded.
        network: where from: an IPv4 address or an IPv6 /64.
    """
    return sha256(f"{type(account).__name__} {account}\0{network}".encode()).hexdigest()


async def check(connection: AsyncConnection | AsyncSession, *, subject: str) -> None:
    """Refuse to look at a password when too many were wrong.

    Raises:
        LoginThrottled: says when the next one is looked at.
    """
    times, now = (await connection.execute(queries.GUESSES, {"subject": subject})).one()
    refuse_beyond_limit(times, now)


def refuse_beyond_limit(times: str | None, now: datetime) -> None:
    """Refuse when as many as the limit were wrong.

    Raises:
        LoginThrottled: says when the next one is looked at.
    """
    recent = _recent(times or "", now)
    if len(recent) >= LIMIT:
        wait = recent[0] + WINDOW - now
        raise LoginThrottled(retry_after_seconds=max(1, ceil(wait.total_seconds())))


async def count(session: AsyncSession, *, subject: str) -> None:
    """Count a wrong password.

    Raises:
        LoginThrottled: others came first and used up the limit; nothing is counted.
    """
    mine = WrongGuesses.subject == subject
    # The lock lets one in at a time. SQLite ignores it, and has one writer anyway.
    reading = select(WrongGuesses.times, database_now()).where(mine).with_for_update()
    row = (await session.execute(reading)).one_or_none()
    if row is None:
        now: datetime = (await session.execute(select(database_now()))).scalar_one()
        values = {"subject": subject, "times": _text([now]), "expires_at": now + WINDOW}
        try:
            await session.execute(insert(WrongGuesses).values(values))
        except IntegrityError:
            # Another one was the first; now there is a row to lock.
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
    """Delete what is too old to count; at most that many rows.

    Returns:
        how many rows are gone.
    """
    outdated = select(WrongGuesses.subject).where(WrongGuesses.expires_at < database_now())
    subjects = (await session.scalars(outdated.limit(limit))).all()
    if not subjects:
        return 0
    # One may have been used again since.
    removal = delete(WrongGuesses).where(
        WrongGuesses.subject.in_(subjects), WrongGuesses.expires_at < database_now()
    )
    return await affected_rows(session, removal)
