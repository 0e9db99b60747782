"""The two ways into the database: ``transaction()`` to write and ``reading()`` to read."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from contextvars import ContextVar
from functools import partial
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec, Protocol, TypeVar

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
)

from catalog.db.engines import DriverThreads, Purpose, create_engine, dispose_of
from catalog.db.error_translation import code_of, is_lost, refusals, was_never_sent, worth_a_retry
from catalog.errors import DatabaseBusy
from catalog.settings import Settings

T = TypeVar("T")
P = ParamSpec("P")

MAX_ATTEMPTS = 4
"""How often a transaction is tried that keeps losing to deadlocks or lock waits."""

BULK_PATIENCE = 240.0
"""Seconds that a bulk transaction waits for its turn. A proxy in front should wait longer for an
answer: the configuration for nginx has 300 s."""

_DEADLINE = "catalog.deadline"

PoolName = Literal["read", "write"]


class Observer(Protocol):
    """Hears what others may want to count."""

    def waited(self, pool: PoolName, seconds: float) -> None:
        """A unit of work has its turn, after that long."""

    def timed_out(self, pool: PoolName) -> None:
        """A unit of work has given up waiting for its turn."""

    def retried(self, code: str) -> None:
        """A transaction is run again: the engine's number for the reason, or ``lost``."""


class _Nobody:
    """Counts nothing."""

    def waited(self, pool: PoolName, seconds: float) -> None:
        """As ``Observer``."""

    def timed_out(self, pool: PoolName) -> None:
        """As ``Observer``."""

    def retried(self, code: str) -> None:
        """As ``Observer``."""


class PoolState(NamedTuple):
    """A pool, how many may use it at a time, how many do, and how many wait."""

    name: PoolName
    size: int
    in_use: int
    waiting: int


class FairSemaphore:
    """Lets as many have a connection as there are, the others in the order of their arrival.

    The pool itself lets newcomers pass those who wait, some of them until they give up.
    """

    def __init__(self, name: PoolName, size: int, patience: float, observer: Observer) -> None:
        self._name = name
        self._size = size
        self._patience = patience
        self._observer = observer
        self._free = asyncio.Semaphore(size)
        self._in_use = self._waiting = 0

    @property
    def state(self) -> PoolState:
        return PoolState(self._name, self._size, self._in_use, self._waiting)

    @asynccontextmanager
    async def turn(self, patience: float | None = None) -> AsyncIterator[None]:
        """Wait for a connection, and have it.

        Args:
            patience: seconds to wait; None for those of the pool.

        Raises:
            PoolTimeout: none came free in time.
        """
        if self._free.locked():
            await self._wait(self._patience if patience is None else patience)
        else:
            # There is one: it takes no time, and no timer.
            await self._free.acquire()
            self._observer.waited(self._name, 0.0)
        self._in_use += 1
        try:
            yield
        finally:
            self._in_use -= 1
            self._free.release()

    async def _wait(self, patience: float) -> None:
        began = time.monotonic()
        self._waiting += 1
        try:
            async with asyncio.timeout(patience):
                await self._free.acquire()
        except TimeoutError:
            self._observer.timed_out(self._name)
            raise PoolTimeout from None
        finally:
            self._waiting -= 1
        self._observer.waited(self._name, time.monotonic() - began)


_ENDS_AT: ContextVar[float | None] = ContextVar("catalog.database.ends_at", default=None)


def bound_together(seconds: float) -> None:
    """Let all that this context does in the database end in time, however many units it is made of.

    Args:
        seconds: from now on; each unit has its own deadline besides.
    """
    _ENDS_AT.set(asyncio.get_running_loop().time() + seconds)


def _deadline(seconds: float) -> asyncio.Timeout:
    when = asyncio.get_running_loop().time() + seconds
    ends_at = _ENDS_AT.get()
    return asyncio.timeout_at(when if ends_at is None else min(when, ends_at))


def renew_deadline(session: AsyncSession) -> None:
    """Give a transaction of many steps its whole time once more, for the next of them."""
    limit, seconds = session.info[_DEADLINE]
    limit.reschedule(asyncio.get_running_loop().time() + seconds)


@contextmanager
def suspended_deadline(session: AsyncSession) -> Iterator[None]:
    """Suspend a transaction's deadline inside, for a wait that is bounded elsewhere.

    The time starts anew afterwards.
    """
    limit, _ = session.info[_DEADLINE]
    limit.reschedule(None)
    yield
    renew_deadline(session)


class RetryTransaction(Exception):
    """Raised by work that finds that what it has read does not hold any more.

    Everything is rolled back and the work run again, as after a deadlock.
    """


class _LostBeforeCommit(Exception):
    """The connection was lost in the middle of a transaction, which therefore never was."""

    def __init__(self, error: SQLAlchemyError) -> None:
        super().__init__(str(error))
        self.error = error


class Database:
    """The running service's connections; one per process, closed at its end.

    Args:
        settings: where the database is, and for how long to wait for it.
        observer: hears of waits and retries.

    Attributes:
        max_readers: reads that can run at the same time.
        max_writers: transactions that can.
        max_bulk_writers: of these, the bulk transactions; at most half, but at least one.
        patience: seconds that either waits for a connection.
        read_limit: seconds that a read takes at most.
        write_limit: seconds that a transaction does.
    """

    def __init__(self, settings: Settings, observer: Observer | None = None) -> None:
        self.max_readers = settings.database_pool_size
        self.max_writers = 1 if settings.embedded else settings.database_pool_size
        self.max_bulk_writers = max(1, self.max_writers // 2)
        self.read_limit = settings.read_deadline
        self.write_limit = settings.database_timeout
        self._threads = DriverThreads()
        self._read_engine = create_engine(settings, Purpose.READING, self._threads)
        self._write_engine = create_engine(settings, Purpose.WRITING, self._threads)
        # A connection of its own, so that a busy pool does not make the service look dead.
        self._probe_engine = create_engine(settings, Purpose.PROBING, self._threads)
        # And one that health checks, however many there are, leave alone.
        self._watch_engine = create_engine(settings, Purpose.PROBING, self._threads)
        self._writes = async_sessionmaker(self._write_engine, expire_on_commit=False)
        self._observer = observer or _Nobody()
        self.patience = settings.database_pool_timeout
        self._reads = FairSemaphore("read", self.max_readers, self.patience, self._observer)
        self._write_turns = FairSemaphore("write", self.max_writers, self.patience, self._observer)
        # Its waits are part of those for the pool, which are observed there.
        self._bulk_turns = FairSemaphore("write", self.max_bulk_writers, BULK_PATIENCE, _Nobody())
        self._unfinished: set[asyncio.Task[Any]] = set()

    @property
    def pools(self) -> tuple[PoolState, PoolState]:
        """How much the connections are in use now."""
        return self._reads.state, self._write_turns.state

    @property
    def engines(self) -> tuple[AsyncEngine, AsyncEngine]:
        """Those that requests use, for who wants to see their statements."""
        return self._read_engine, self._write_engine

    async def transaction(
        self,
        work: Callable[Concatenate[AsyncSession, P], Awaitable[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run ``work(session, ...)`` in a transaction and commit it.

        A deadlock or a lock wait that times out rolls everything back and runs ``work`` again,
        so it must leave nothing behind but what it does through the session. In a cluster that
        several write to, the COMMIT itself may lose; that counts as a deadlock. A caller who is
        cancelled, because the client hung up, does not take the transaction along: it would be
        undefined whether a COMMIT under way took effect.

        Raises:
            Conflict: a unique or foreign key refused it, and ``work`` did not say which.
            DatabaseBusy: no connection, or no lock, came free in time.
            DatabaseUnavailable: the database is away or did not answer within the deadline; in
                the second case the transaction may have been committed.
        """
        attempts = self._attempts(partial(_call, work, args, kwargs), self._write_turns.turn)
        return await self._finished(attempts)

    async def bulk_transaction(
        self,
        work: Callable[Concatenate[AsyncSession, P], Awaitable[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a transaction of ``transaction``'s kind that writes much and whose caller can wait.

        At most ``max_bulk_writers`` run at a time, in the order of their calls, so that other
        writes always find a connection, or wait for one bulk transaction where the engine has a
        single writer. The wait does not count against the deadline. Neither a full pool nor a lock
        held elsewhere breaks it off before ``BULK_PATIENCE``.

        A later call whose work waits for an earlier one cannot block it: the earlier one keeps its
        place among the bulk transactions until it ends, and those never fill a pool of several.

        Raises:
            Conflict, DatabaseUnavailable: as ``transaction``.
            DatabaseBusy: its turn did not come, or locks were held, for ``BULK_PATIENCE`` seconds.
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
            task.exception()  # Seen, should nobody be waiting any more.

    async def _bulk_attempts(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        clock = asyncio.get_running_loop().time
        ends_at = clock() + BULK_PATIENCE
        with refusals():
            async with self._bulk_turns.turn():
                while True:
                    try:
                        async with self._write_turns.turn(BULK_PATIENCE):
                            return await self._attempts(work, nullcontext)
                    except DatabaseBusy:
                        # Rolled back after several attempts, between which others had the locks.
                        if clock() > ends_at:
                            raise

    async def _attempts(
        self,
        work: Callable[[AsyncSession], Awaitable[T]],
        turn: Callable[[], AbstractAsyncContextManager[None]],
    ) -> T:
        contention: DBAPIError | None = None
        with refusals():
            try:
                async with _deadline(self.write_limit) as limit:
                    for attempt in range(1, MAX_ATTEMPTS):
                        try:
                            return await self._attempt(work, turn, limit)
                        except _LostBeforeCommit:
                            # Nothing of it was kept. Most likely the connection was lost while it
                            # lay in the pool, and a new one will do.
                            self._observer.retried("lost")
                            continue
                        except RetryTransaction:
                            self._observer.retried("outdated")
                        except DBAPIError as error:
                            if not worth_a_retry(error):
                                raise
                            contention = error
                            self._observer.retried(str(code_of(error)))
                        # Jitter, so that those who collided do not collide again.
                        await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 (not a secret)
                    return await self._attempt(work, turn, limit)
            except _LostBeforeCommit as lost:
                raise lost.error from None
            except RetryTransaction as error:
                raise DatabaseBusy from error
            except TimeoutError:
                if contention is None:
                    raise
                # Whoever spent the time waiting for locks found the database busy and not away.
                raise contention from None

    async def _attempt(
        self,
        work: Callable[[AsyncSession], Awaitable[T]],
        turn: Callable[[], AbstractAsyncContextManager[None]],
        limit: asyncio.Timeout,
    ) -> T:
        info = {_DEADLINE: (limit, self.write_limit)}
        # Not begin(): work may roll back and look why it was refused, before it refuses.
        async with turn(), self._writes(info=info) as session:
            try:
                result = await work(session)
                # With COMMIT it could not be told whether the loss came before or after it.
                if session.new or session.dirty or session.deleted:
                    await session.flush()
            except SQLAlchemyError as error:
                if is_lost(error):
                    raise _LostBeforeCommit(error) from error
                raise
            try:
                await session.commit()
            except DBAPIError as error:
                if was_never_sent(error):
                    raise _LostBeforeCommit(error) from error
                raise
            return result

    async def reading(
        self,
        work: Callable[Concatenate[AsyncConnection, P], Awaitable[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run ``work(connection, ...)``, which only reads; each statement sees the latest commit.

        It gets a connection and not a session because pages are made of rows, not of entities.

        Raises:
            DatabaseBusy: no connection came free in time.
            DatabaseUnavailable: the database is away or did not answer within the deadline.
        """
        with refusals():
            async with _deadline(self.read_limit), self._reads.turn():
                try:
                    async with self._read_engine.connect() as connection:
                        return await work(connection, *args, **kwargs)
                except SQLAlchemyError as error:
                    # Lost, most likely while it lay in the pool; a read may be done again. The pool
                    # gives none of its other connections for it, which may be lost as well.
                    if not is_lost(error):
                        raise
                async with self._read_engine.connect() as connection:
                    return await work(connection, *args, **kwargs)

    async def probe(self, work: Callable[[AsyncConnection], Awaitable[T]], *, within: float) -> T:
        """Run a health check beside the pools.

        Args:
            work: what to ask.
            within: seconds it may take, a new connection included.

        Raises:
            DatabaseUnavailable, DatabaseBusy: as ``reading``.
        """
        return await _beside_the_pools(self._probe_engine, work, within)

    async def watch(self, work: Callable[[AsyncConnection], Awaitable[T]], *, within: float) -> T:
        """Ask what others have changed, as a background task does again and again.

        Args:
            work: what to ask.
            within: seconds it may take, a new connection included.

        Raises:
            DatabaseUnavailable, DatabaseBusy: as ``reading``.
        """
        return await _beside_the_pools(self._watch_engine, work, within)

    async def close(self) -> None:
        """Let transactions under way finish, then close every connection."""
        if self._unfinished:
            _, late = await asyncio.wait(self._unfinished, timeout=self.write_limit)
            for task in late:
                # Most likely it waits for its turn, which would come after the end.
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=self.write_limit)
        for engine in (
            self._read_engine,
            self._write_engine,
            self._probe_engine,
            self._watch_engine,
        ):
            await dispose_of(engine)
        await self._threads.end(within=self.write_limit)


async def _beside_the_pools(
    engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[T]], within: float
) -> T:
    with refusals():
        async with asyncio.timeout(within), engine.connect() as connection:
            return await work(connection)


async def _call(
    work: Callable[..., Awaitable[T]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    session: AsyncSession,
) -> T:
    return await work(session, *args, **kwargs)
