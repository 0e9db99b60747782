"""Units of work: ``Database.transaction()`` to write and ``Database.connection()`` to read."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec, Protocol, TypeVar

from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
)

from catalog.concurrency.fair_semaphore import FairSemaphore
from catalog.db.deadlines import DEADLINES, Deadlines, deadline
from catalog.db.engines import DriverThreads, Purpose, create_engine, dispose_of
from catalog.db.error_translation import translated_errors, waited_too_long
from catalog.db.read_connection import ReadConnection
from catalog.db.transactions import Transactions
from catalog.errors import DatabaseBusy
from catalog.settings import Settings

T = TypeVar("T")
P = ParamSpec("P")

BULK_WAIT_SECONDS = 240.0
"""Seconds that a bulk transaction waits for a connection. A proxy's read time-out should be longer:
the nginx configuration has 300 s."""

PoolName = Literal["read", "write"]


class Observer(Protocol):
    """Receiver of the database's events, for metrics."""

    def waited(self, pool: PoolName, seconds: float) -> None:
        """Record that a unit of work got a connection after a wait."""

    def timed_out(self, pool: PoolName) -> None:
        """Record that a unit of work timed out waiting for a connection."""

    def expired(self) -> None:
        """Record that a read has waited too long for its batch."""

    def retried(self, code: str) -> None:
        """Record a retry of a transaction.

        Args:
            code: the engine's error number, ``lost`` or ``outdated``.
        """


class _NullObserver:
    """Observer that ignores all events."""

    def waited(self, pool: PoolName, seconds: float) -> None:
        """Ignore the event."""

    def timed_out(self, pool: PoolName) -> None:
        """Ignore the event."""

    def expired(self) -> None:
        """Ignore the event."""

    def retried(self, code: str) -> None:
        """Ignore the event."""


class PoolState(NamedTuple):
    """State of a pool: its size, connections in use, and waiters."""

    name: PoolName
    size: int
    in_use: int
    waiting: int

    @classmethod
    def of(cls, name: PoolName, permits: FairSemaphore) -> "PoolState":
        """Return the state of the pool that a semaphore guards."""
        return cls(name, permits.size, permits.in_use, permits.waiting)


class Database:
    """Connection pools and units of work; one per process, closed at its end.

    Args:
        settings: the database's URL, its TLS, the size of the pools and the deadline of reads.
        observer: receives waits, time-outs and retries.
        deadlines: the time limits.

    Attributes:
        max_readers: concurrent reads.
        max_writers: concurrent transactions.
        max_bulk_writers: concurrent bulk transactions among these; at most half, but at least one.
        deadlines: the time limits.
    """

    def __init__(
        self,
        settings: Settings,
        observer: Observer | None = None,
        *,
        deadlines: Deadlines = DEADLINES,
    ) -> None:
        self.max_readers = settings.database_pool_size
        self.max_writers = 1 if settings.embedded else settings.database_pool_size
        self.max_bulk_writers = max(1, self.max_writers // 2)
        self.deadlines = deadlines
        self._threads = DriverThreads()
        engine = partial(create_engine, settings, threads=self._threads, deadlines=deadlines)
        self._read_engine = engine(Purpose.READING)
        self._write_engine = engine(Purpose.WRITING)
        # Health checks have a connection of their own, so that a busy pool does not fail them.
        self._probe_engine = engine(Purpose.PROBING)
        # Background tasks have another one, so that health checks cannot starve them.
        self._watch_engine = engine(Purpose.WATCHING)
        self._observer = observer or _NullObserver()
        self._writes = Transactions(
            async_sessionmaker(self._write_engine, expire_on_commit=False),
            deadline_seconds=self.deadlines.write,
            on_retry=self._observer.retried,
        )
        # The pools' own queues let newcomers overtake waiters, some of them until they time out.
        self._read_permits = self._permits("read", self.max_readers)
        self._write_permits = self._permits("write", self.max_writers)
        # Not observed: only waits for the pool itself are.
        self._bulk_permits = FairSemaphore(
            self.max_bulk_writers, wait_seconds=BULK_WAIT_SECONDS, expired=PoolTimeout
        )
        self._unfinished: set[asyncio.Task[Any]] = set()

    def _permits(self, name: PoolName, size: int) -> FairSemaphore:
        def expired() -> Exception:
            self._observer.timed_out(name)
            return PoolTimeout()

        return FairSemaphore(
            size,
            wait_seconds=self.deadlines.checkout,
            expired=expired,
            on_wait=partial(self._observer.waited, name),
        )

    @property
    def pools(self) -> tuple[PoolState, PoolState]:
        """Current state of the read and the write pool."""
        return PoolState.of("read", self._read_permits), PoolState.of("write", self._write_permits)

    @property
    def engines(self) -> tuple[AsyncEngine, AsyncEngine]:
        """Read and write engine, whose statements can be traced."""
        return self._read_engine, self._write_engine

    def read_expired(self) -> Exception:
        """Return the error of a read that has waited too long for its batch, and record it."""
        self._observer.expired()
        return waited_too_long()

    async def transaction(
        self,
        work: Callable[Concatenate[AsyncSession, P], Awaitable[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run ``work(session, ...)`` in a transaction and commit it.

        A deadlock or a lock wait that times out is rolled back and ``work`` run again, so its only
        side effects must be those through the session. In a cluster with several writers the COMMIT
        itself may fail; that counts as a deadlock. Cancelling the caller, as when the client
        disconnects, does not cancel the transaction: it would be undefined whether a COMMIT in
        progress took effect.

        Raises:
            Conflict: a unique or foreign key was violated, and ``work`` did not handle it.
            DatabaseBusy: no connection, or no lock, came free in time.
            DatabaseUnavailable: the database is unreachable or did not answer within the deadline;
                in the second case the transaction may have been committed.
        """
        called = partial(_call, work, args, kwargs)
        return await self._finished(self._writes.run(called, self._write_permits.permit))

    async def bulk_transaction(
        self,
        work: Callable[Concatenate[AsyncSession, P], Awaitable[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a large transaction, as ``transaction`` does, whose caller can wait.

        At most ``max_bulk_writers`` run at a time, in the order of their calls, so that other
        writes always find a connection, or wait for one bulk transaction where the engine has a
        single writer. The wait does not count against the deadline. Neither a full pool nor a lock
        held elsewhere fails it before ``BULK_WAIT_SECONDS``.

        A later call whose work waits for an earlier one cannot deadlock with it: the earlier one
        keeps its bulk permit until it ends, and bulk transactions never fill a pool of several.

        Raises:
            Conflict, DatabaseUnavailable: as ``transaction``.
            DatabaseBusy: no connection or lock came free within ``BULK_WAIT_SECONDS``.
        """
        return await self._finished(self._bulk_attempts(partial(_call, work, args, kwargs)))

    async def _finished(self, attempts: Coroutine[Any, Any, T]) -> T:
        """Run a transaction to its end, even if the caller is cancelled."""
        task = asyncio.create_task(attempts)
        self._unfinished.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._unfinished.discard(task)
        if not task.cancelled():
            task.exception()  # Retrieved, so that asyncio does not log it if no caller waits.

    async def _bulk_attempts(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        clock = asyncio.get_running_loop().time
        ends_at = clock() + BULK_WAIT_SECONDS
        with translated_errors():
            async with self._bulk_permits.permit():
                while True:
                    try:
                        async with self._write_permits.permit(BULK_WAIT_SECONDS):
                            return await self._writes.run(work, nullcontext)
                    except DatabaseBusy:
                        # Rolled back after MAX_ATTEMPTS; others may have taken the locks meanwhile.
                        if clock() > ends_at:
                            raise

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[ReadConnection]:
        """Provide a read-only connection; each statement sees the latest commit.

        A statement whose connection was lost is repeated once on a new one (``ReadConnection``).
        It is a connection and not a session because pages are made of rows, not of entities.

        Raises:
            DatabaseBusy: no connection came free in time.
            DatabaseUnavailable: the database is unreachable, or the context took longer than
                ``deadlines.read``.
        """
        with translated_errors():
            connection = ReadConnection(self._read_engine)
            async with deadline(self.deadlines.read), self._read_permits.permit(), connection:
                yield connection

    def probe(self, *, within: float) -> AbstractAsyncContextManager[AsyncConnection]:
        """Provide a connection for health checks, outside the pools.

        Args:
            within: seconds that the context may take, a new connection included.

        Raises:
            DatabaseUnavailable, DatabaseBusy: as ``connection``.
        """
        return _outside_pools(self._probe_engine, within)

    def watch(self, *, within: float) -> AbstractAsyncContextManager[AsyncConnection]:
        """Provide a connection for background tasks, outside the pools; otherwise as ``probe``."""
        return _outside_pools(self._watch_engine, within)

    async def close(self) -> None:
        """Wait for transactions in progress, then close every connection."""
        if self._unfinished:
            _, late = await asyncio.wait(self._unfinished, timeout=self.deadlines.write)
            for task in late:
                # Most likely still waiting for a connection, with nothing done yet.
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=self.deadlines.write)
        for engine in (
            self._read_engine,
            self._write_engine,
            self._probe_engine,
            self._watch_engine,
        ):
            await dispose_of(engine)
        await self._threads.end(within=self.deadlines.write)


@asynccontextmanager
async def _outside_pools(engine: AsyncEngine, within: float) -> AsyncIterator[AsyncConnection]:
    with translated_errors():
        async with asyncio.timeout(within), engine.connect() as connection:
            yield connection


async def _call(
    work: Callable[..., Awaitable[T]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    session: AsyncSession,
) -> T:
    return await work(session, *args, **kwargs)
