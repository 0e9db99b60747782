"""Attempts at a transaction: which failures are retried, and how often."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from catalog.db.deadlines import deadline, session_info
from catalog.db.error_translation import (
    code_of,
    is_lost,
    translated_errors,
    was_never_sent,
    worth_a_retry,
)
from catalog.errors import DatabaseBusy

T = TypeVar("T")

MAX_ATTEMPTS = 4
"""Attempts at a transaction that keeps failing on deadlocks or lock waits."""


class RetryTransaction(Exception):
    """Signal of work whose reads are outdated: retry the transaction.

    The transaction is rolled back and the work run again, as after a deadlock.
    """


class _LostBeforeCommit(Exception):
    """The connection was lost before COMMIT, so nothing of the transaction took effect."""

    def __init__(self, error: SQLAlchemyError) -> None:
        super().__init__(str(error))
        self.error = error


class Transactions:
    """Runs work in transactions that are retried where that is safe.

    Args:
        sessions: makes the sessions.
        deadline_seconds: deadline of a transaction with all its attempts.
        on_retry: called with the reason of each retry: the engine's error number, ``lost`` or
            ``outdated``.
    """

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        *,
        deadline_seconds: float,
        on_retry: Callable[[str], object],
    ) -> None:
        self._sessions = sessions
        self._deadline_seconds = deadline_seconds
        self._on_retry = on_retry

    async def run(
        self,
        work: Callable[[AsyncSession], Awaitable[T]],
        permit: Callable[[], AbstractAsyncContextManager[None]],
    ) -> T:
        """Run work in a transaction and commit it, in up to ``MAX_ATTEMPTS`` attempts.

        Args:
            work: the work.
            permit: waits for a permit to use a connection, for each attempt.

        Raises:
            Conflict, DatabaseBusy, DatabaseUnavailable: as ``Database.transaction``.
        """
        contention: DBAPIError | None = None

        def note_commit() -> None:
            # A commit that does not answer has an unknown outcome, whatever failed before it.
            nonlocal contention
            contention = None

        with translated_errors():
            try:
                async with deadline(self._deadline_seconds) as expiry:
                    for attempt in range(1, MAX_ATTEMPTS):
                        try:
                            return await self._attempt(work, permit, expiry, note_commit)
                        except _LostBeforeCommit:
                            # Nothing was committed. Most likely the connection was lost while idle
                            # in the pool, and a new one will work.
                            self._on_retry("lost")
                            continue
                        except RetryTransaction:
                            self._on_retry("outdated")
                        except DBAPIError as error:
                            if not worth_a_retry(error):
                                raise
                            contention = error
                            self._on_retry(str(code_of(error)))
                        # Jitter, so that transactions that collided do not collide again.
                        await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 (not a secret)
                    return await self._attempt(work, permit, expiry, note_commit)
            except _LostBeforeCommit as lost:
                raise lost.error from None
            except RetryTransaction as error:
                raise DatabaseBusy from error
            except TimeoutError:
                if contention is None:
                    raise
                # The time was spent waiting for locks: the database is busy, not unavailable.
                raise contention from None

    async def _attempt(
        self,
        work: Callable[[AsyncSession], Awaitable[T]],
        permit: Callable[[], AbstractAsyncContextManager[None]],
        expiry: asyncio.Timeout,
        note_commit: Callable[[], None],
    ) -> T:
        info = session_info(expiry, self._deadline_seconds)
        # Not begin(): work may roll back and find the reason of a conflict before it raises.
        async with permit(), self._sessions(info=info) as session:
            try:
                result = await work(session)
                # Flushed before COMMIT, so that a loss here is known to precede it.
                if session.new or session.dirty or session.deleted:
                    await session.flush()
            except SQLAlchemyError as error:
                if is_lost(error):
                    raise _LostBeforeCommit(error) from error
                raise
            note_commit()
            try:
                await session.commit()
            except DBAPIError as error:
                if was_never_sent(error):
                    raise _LostBeforeCommit(error) from error
                raise
            return result
