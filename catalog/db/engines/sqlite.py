"""SQLite engine, and the fence around its driver, aiosqlite."""

import asyncio
import sqlite3
import time
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any

import aiosqlite
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from catalog.db.deadlines import Deadlines
from catalog.db.engines.purpose import Purpose, time_limit
from catalog.settings import Settings


class DriverThreads:
    """Registry of the threads in which SQLite's driver runs its connections, one each.

    Cancelling a task does not end its thread: the thread finishes its statement, closes its
    connection and notifies the event loop, which must not be closed by then.
    """

    def __init__(self) -> None:
        self._threads: list[Thread] = []

    def add(self, thread: Thread) -> None:
        """Register a thread that is about to start, and forget those that have ended."""
        self._threads = [*filter(Thread.is_alive, self._threads), thread]

    async def end(self, *, within: float) -> None:
        """Wait at most ``within`` seconds until all threads have ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while any(map(Thread.is_alive, self._threads)):  # noqa: ASYNC110 (they set no event)
                    await asyncio.sleep(0.001)


class _SqliteConnection(sqlite3.Connection):
    """SQLite connection that interrupts slow statements and releases its locks when it is closed.

    A statement runs in a thread, so a caller's time-out does not end it. And an unfinished
    statement would keep a closed connection's locks until it is garbage-collected.

    Args:
        limit: seconds that one statement may take.
    """

    def __init__(self, limit: float, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limit = limit
        self._deadline = float("inf")
        # Every 20,000 instructions of SQLite's virtual machine: about every millisecond.
        self.set_progress_handler(lambda: time.monotonic() > self._deadline, 20_000)

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """Return a cursor and start the deadline; each statement has a cursor of its own."""
        self._deadline = time.monotonic() + self._limit
        return super().cursor(*args, **kwargs)

    def close(self) -> None:
        """Roll back and close; idempotent."""
        try:
            with suppress(sqlite3.ProgrammingError):  # It is closed already.
                self.rollback()
        finally:
            super().close()

    def __del__(self) -> None:
        """Close a connection that the driver opened for a caller cancelled meanwhile."""
        with suppress(sqlite3.Error):
            self.close()


class _SqliteDriver(aiosqlite.Connection):
    """Driver connection whose ``stop()`` is idempotent.

    SQLAlchemy calls ``stop()`` when a task is cancelled again while it closes its connection, and
    closing calls it too. The driver's second call would wait for ever for a thread that has ended.
    """

    _stopped: "asyncio.Future[Any] | None" = None

    def stop(self) -> "asyncio.Future[Any] | None":
        """Stop the thread; idempotent."""
        if self._running:
            self._stopped = super().stop()
        return self._stopped


def create_sqlite_engine(
    settings: Settings,
    purpose: Purpose,
    options: dict[str, Any],
    threads: DriverThreads,
    deadlines: Deadlines,
) -> AsyncEngine:
    """Create an engine with the pool's options, whose threads are registered."""
    if purpose is Purpose.WRITING:
        # SQLite has one writer at a time. Waiting for a pool of one is fair and immediate; waiting
        # for the file's lock means polling.
        options |= {"pool_size": 1}
    deadline = time_limit(purpose, deadlines)
    limit = float("inf") if purpose is Purpose.MIGRATING else deadline
    connect_args = {
        # The driver's implicit transactions begin as readers, which fails when two of them upgrade
        # to writers; with None the driver leaves BEGIN to us.
        "isolation_level": None,
        "factory": partial(_SqliteConnection, limit),
        "async_creator_fn": partial(_open_sqlite, threads),
    }
    engine = create_async_engine(settings.database_url, connect_args=connect_args, **options)
    # A lock wait blocks a thread that cannot be cancelled, so it must end before the deadline.
    # Migrations of several instances queue instead.
    busy_seconds = 60.0 if purpose is Purpose.MIGRATING else deadline * 0.8
    pragmas = [
        f"PRAGMA busy_timeout = {int(busy_seconds * 1000)}",
        "PRAGMA journal_mode = WAL",
        # FULL, so that an acknowledged write survives a power cut and not only a crash.
        "PRAGMA synchronous = FULL",
        "PRAGMA foreign_keys = ON",
    ]
    if purpose.is_read_only:
        pragmas.append("PRAGMA query_only = ON")

    @event.listens_for(engine.sync_engine, "connect")
    def _prepare_connection(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()

    if not purpose.is_read_only:

        @event.listens_for(engine.sync_engine, "begin")
        def _begin_as_writer(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _open_sqlite(threads: DriverThreads, *args: Any, **kwargs: Any) -> aiosqlite.Connection:
    """Open a connection as SQLAlchemy does by default, and register its thread."""
    connection = _SqliteDriver(partial(sqlite3.connect, *args, **kwargs), iter_chunk_size=64)
    # As SQLAlchemy does it; the attributes are private ones of aiosqlite 0.22.
    connection._thread.daemon = True
    threads.add(connection._thread)
    return connection
