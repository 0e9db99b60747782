"""SQLAlchemy engines configured per purpose, on SQLite, MySQL and MariaDB."""

import asyncio
import math
import sqlite3
import ssl
import struct
import time
from collections.abc import Awaitable
from contextlib import suppress
from enum import Enum
from functools import partial
from threading import Thread
from typing import Any

import aiomysql
import aiosqlite
from pymysql.constants import COMMAND, CR
from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from catalog.db.error_translation import ends_connection, is_astray
from catalog.settings import Settings

_GOODBYE = struct.pack("<iB", 1, COMMAND.COM_QUIT)

FRESH_SECONDS = 1.0
"""Time after its last use for which a connection is assumed to be alive and is not pinged."""

PING_SECONDS = 0.5
"""Time-out of a ping; a fraction of the shortest deadline, which leaves time to reconnect."""


class Purpose(Enum):
    """Purpose of an engine's connections."""

    READING = "reading"
    WRITING = "writing"
    PROBING = "probing"
    MIGRATING = "migrating"

    @property
    def is_read_only(self) -> bool:
        """Whether the connections reject writes."""
        return self in {Purpose.READING, Purpose.PROBING}


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


def create_engine(
    settings: Settings, purpose: Purpose, threads: DriverThreads | None = None
) -> AsyncEngine:
    """Create an engine for one purpose; connections are opened on first use.

    Reading connections autocommit and are read-only: a statement costs one round trip, and a
    misplaced write fails. Writing ones run at READ COMMITTED on the servers, which avoids the gap
    locks that make writers deadlock; single statements make the decisions.

    Args:
        settings: the database's URL, pool sizes and time-outs.
        purpose: purpose of the connections.
        threads: registry for the driver's threads, for callers that must wait for their end.
    """
    # Errors are logged, and their parameters include e-mail addresses and password hashes.
    options: dict[str, Any] = {"hide_parameters": True}
    if purpose is Purpose.MIGRATING:
        options["poolclass"] = NullPool
    else:
        options |= {
            # Health checks are rare, so their connection is pinged at each checkout; for the
            # others see ``_ping_after_idling``.
            "pool_pre_ping": purpose is Purpose.PROBING and not settings.embedded,
            "pool_recycle": 1800,
            "pool_size": 1 if purpose is Purpose.PROBING else settings.database_pool_size,
            "max_overflow": 0,
            "pool_timeout": settings.database_pool_timeout,
            # Sessions have committed or rolled back by then; a ROLLBACK would cost a round trip.
            "pool_reset_on_return": None,
        }
    if purpose.is_read_only:
        options |= {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True}
    if settings.embedded:
        engine = _sqlite_engine(settings, purpose, options, threads or DriverThreads())
    else:
        engine = _mysql_engine(settings, purpose, options)
    if not settings.embedded:
        _leave_what_leads_astray(engine)
        if purpose in {Purpose.READING, Purpose.WRITING}:
            _ping_after_idling(engine)
    return engine


async def dispose_of(engine: AsyncEngine) -> None:
    """Close an engine's connections, and those in use at their check-in.

    SQLAlchemy's own ``dispose`` discards the pool, and connections that are checked in later would
    stay open until they are garbage-collected.
    """

    @event.listens_for(engine.sync_engine.pool, "checkin")
    def _close(_connection: object, record: Any) -> None:
        if record.dbapi_connection is not None:
            record.invalidate()

    await engine.dispose()


def _leave_what_leads_astray(engine: AsyncEngine) -> None:
    """Invalidate the pool when a connection leads to a node that must not be used now.

    That happens after a failover. Also invalidate it on errors that end a connection but that
    SQLAlchemy does not recognize as such.
    """

    @event.listens_for(engine.sync_engine, "handle_error")
    def _lose_connection(context: Any) -> None:
        error = context.original_exception
        if is_astray(error) or ends_connection(error):
            context.is_disconnect = True


def _ping_after_idling(engine: AsyncEngine) -> None:
    """Ping a connection at checkout only if it has been idle for ``FRESH_SECONDS``.

    A ping at each checkout costs a tenth of reading a page. A connection that was used a moment ago
    is most likely alive, and ``Database`` retries if it is not.
    """

    @event.listens_for(engine.sync_engine, "checkin")
    def _remember_use(_connection: object, record: Any) -> None:
        record.info["used_at"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def _ping_if_idle(connection: Any, record: Any, _proxy: object) -> None:
        used_at = record.info.get("used_at")
        if used_at is None or time.monotonic() - used_at < FRESH_SECONDS:
            return
        try:
            connection.run_async(_ping)
        except (engine.sync_engine.dialect.loaded_dbapi.Error, OSError) as error:
            # The pool then replaces this connection and all others as old: a proxy that dropped
            # one while it was idle has most likely dropped them all.
            raise InvalidatePoolError from error


async def _ping(connection: Any) -> None:
    """Ping a connection.

    A firewall that has dropped the connection's state swallows the ping, hence the time-out.

    Raises:
        TimeoutError: there was no answer within ``PING_SECONDS``.
    """
    async with asyncio.timeout(PING_SECONDS):
        await connection.ping(reconnect=False)


def _time_limit(settings: Settings, purpose: Purpose) -> float:
    """Return the deadline of a statement, in seconds."""
    if purpose is Purpose.READING:
        return settings.read_deadline
    return settings.database_timeout


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


def _sqlite_engine(
    settings: Settings, purpose: Purpose, options: dict[str, Any], threads: DriverThreads
) -> AsyncEngine:
    if purpose is Purpose.WRITING:
        # SQLite has one writer at a time. Waiting for a pool of one is fair and immediate; waiting
        # for the file's lock means polling.
        options |= {"pool_size": 1}
    limit = float("inf") if purpose is Purpose.MIGRATING else _time_limit(settings, purpose)
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
    patience = 60.0 if purpose is Purpose.MIGRATING else _time_limit(settings, purpose) * 0.8
    pragmas = [
        f"PRAGMA busy_timeout = {int(patience * 1000)}",
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
    connection._thread.daemon = True
    threads.add(connection._thread)
    return connection


def _mysql_engine(settings: Settings, purpose: Purpose, options: dict[str, Any]) -> AsyncEngine:
    connect_args: dict[str, Any] = {"async_creator_fn": partial(_connect_mysql, settings, purpose)}
    if settings.database_tls != "off":
        connect_args["ssl"] = tls_context(settings)
    return create_async_engine(settings.database_url, connect_args=connect_args, **options)


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Return the TLS context for the settings; TLS 1.2 or newer.

    ``require`` encrypts but accepts any certificate: it protects against eavesdropping, not against
    impersonation.
    """
    context = ssl.create_default_context(cafile=settings.database_tls_ca)
    if settings.database_tls == "require":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


_FAULTS = (
    # The socket's: reset or closed; uvloop raises on writes to a closed transport.
    *(OSError, EOFError, RuntimeError),
    # The driver's, on a truncated packet or after another task has closed the connection.
    *(AssertionError, AttributeError, LookupError, struct.error),
)


class MysqlConnection(aiomysql.Connection):  # type: ignore[misc]  # the library is untyped
    """Driver connection that raises every connection fault as a driver error.

    The driver lets some faults through untranslated, and SQLAlchemy takes those for bugs: it
    neither invalidates the connection nor reports it as lost. Error 2006 means that the statement
    was not sent, 2013 that its answer did not arrive.
    """

    async def _connect(self) -> None:
        try:
            await super()._connect()
        except (*_FAULTS, aiomysql.InternalError, aiomysql.InterfaceError) as error:
            raise aiomysql.OperationalError(
                CR.CR_CONN_HOST_ERROR, f"no connection: {error!r}"
            ) from error
        except asyncio.CancelledError:
            # The driver closes after errors only: a cancelled TLS handshake would stay open.
            self.close()
            raise

    def _ensure_alive(self) -> None:
        if self._writer is None:
            reason = self._close_reason or "Not connected"
            raise aiomysql.OperationalError(CR.CR_SERVER_GONE_ERROR, reason)

    def _write_bytes(self, data: bytes) -> None:
        try:
            self._writer.write(data)
        except _FAULTS as error:
            self.close()
            raise aiomysql.OperationalError(CR.CR_SERVER_GONE_ERROR, repr(error)) from error

    async def _read_query_result(self, unbuffered: bool = False) -> None:
        await self._translated(super()._read_query_result(unbuffered))

    async def _read_ok_packet(self) -> None:
        await self._translated(super()._read_ok_packet())

    async def _translated(self, reading: Awaitable[None]) -> None:
        try:
            await reading
        except _FAULTS as error:
            raise self._lost(error) from error
        except aiomysql.InternalError as error:
            # Without a number it is the driver's own: unexpected packets.
            if isinstance(error.args[0], int):
                raise
            raise self._lost(error) from error

    async def read_some(self, size: int) -> bytes:
        """Read available data, at most ``size`` bytes; empty at the end of the stream.

        Raises:
            aiomysql.OperationalError: the connection is lost.
        """
        try:
            data: bytes = await self._reader.read(size)
        except _FAULTS as error:
            raise self._lost(error) from error
        return data

    def _lost(self, error: Exception) -> aiomysql.OperationalError:
        self.close()
        return aiomysql.OperationalError(CR.CR_SERVER_LOST, repr(error))

    async def ensure_closed(self) -> None:
        """Send COM_QUIT and close, without waiting for a server that may not read."""
        if self._writer is None:
            return
        transport = self._writer.transport
        if transport.get_write_buffer_size():
            transport.abort()
        with suppress(aiomysql.OperationalError):
            self._write_bytes(_GOODBYE)
        self.close()


async def _connect_mysql(settings: Settings, purpose: Purpose, **kwargs: Any) -> Any:
    """Open a connection and set its session variables within the connect time-out.

    The driver's own time-out covers the TCP connection only; a server that accepts and then stays
    silent would block the caller for ever.
    """
    deadline = settings.database_connect_timeout
    try:
        async with asyncio.timeout(deadline):
            connection = MysqlConnection(**kwargs)
            await connection._connect()
            try:
                await _set_session(connection, settings, purpose)
            except BaseException:
                connection.close()
                raise
            return connection
    except TimeoutError:
        raise aiomysql.OperationalError(2003, f"no connection within {deadline} s") from None
    except aiomysql.OperationalError as error:
        if isinstance(error.__cause__, ssl.SSLError):
            # The driver's own text does not mention TLS.
            raise aiomysql.OperationalError(2026, f"no TLS: {error.__cause__}") from error
        raise


async def _set_session(connection: Any, settings: Settings, purpose: Purpose) -> None:
    is_mariadb = "mariadb" in connection.get_server_info().lower()
    limit = _time_limit(settings, purpose)
    variables = {
        "time_zone": "'+00:00'",
        # Rejects values that do not fit instead of truncating them; also excludes the modes under
        # which the driver's string escaping would be wrong.
        "sql_mode": "'STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,"
        "ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
    }
    if purpose is not Purpose.MIGRATING:
        # Less than the deadline, so that the server ends a lock wait before the caller times out.
        variables["innodb_lock_wait_timeout"] = str(max(1, int(limit * 0.5)))
        if is_mariadb:
            variables["max_statement_time"] = str(limit)
        else:
            variables["max_execution_time"] = str(int(limit * 1000))
    if purpose is Purpose.WRITING:
        # If a firewall drops a connection, its transaction stays open on the server and with it the
        # lock on the change counter, for which every writer waits: 8 hours by default. MySQL has no
        # time-out for idle transactions alone; the pool replaces connections that it has closed.
        name = "idle_transaction_timeout" if is_mariadb else "wait_timeout"
        variables[name] = str(max(1, math.ceil(2 * limit)))
    access = "READ ONLY" if purpose.is_read_only else "READ WRITE"
    async with connection.cursor() as cursor:
        if settings.database_tls != "off":
            # The driver falls back to clear text when the server, or a man in the middle, offers
            # no TLS.
            await cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
            row = await cursor.fetchone()
            if not row or not row[1]:
                raise aiomysql.OperationalError(2026, "the server offers no TLS")
        assignments = ", ".join(f"{name} = {value}" for name, value in variables.items())
        await cursor.execute(f"SET SESSION {assignments}")
        await cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, {access}")
        await _catch_up(cursor)


async def _catch_up(cursor: Any) -> None:
    """On Galera, wait until the node has applied what the others have acknowledged by now.

    A node is up to date with its own writes only. After a failover to another node, clients would
    for a moment miss the last acknowledged writes, and their change positions would seem never to
    have existed. Once per connection is enough while all instances write to one node; otherwise the
    cluster's own setting, which this restores, makes every read wait.
    """
    await cursor.execute("SHOW SESSION VARIABLES LIKE 'wsrep_on'")
    row = await cursor.fetchone()
    if row and row[1] == "ON":
        await cursor.execute("SET SESSION wsrep_sync_wait = 1")
        await cursor.execute("SELECT 1")
        await cursor.execute("SET SESSION wsrep_sync_wait = DEFAULT")
