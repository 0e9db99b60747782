"""Engines whose connections are fit for one purpose, on SQLite, MySQL and MariaDB."""

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
"""How long after its last use a connection for reading is taken to be still there."""

PING_SECONDS = 0.5
"""A part of the least deadline, so that there is time left for a new connection."""


class Purpose(Enum):
    """What an engine's connections are for."""

    READING = "reading"
    WRITING = "writing"
    PROBING = "probing"
    MIGRATING = "migrating"

    @property
    def is_read_only(self) -> bool:
        """Whether nothing may be written."""
        return self in {Purpose.READING, Purpose.PROBING}


class DriverThreads:
    """The threads in which SQLite's driver runs its connections, one each, while they live.

    Who is cancelled does not take the thread along: it finishes what it was asked for, closes its
    connection and says so to the event loop, which must not be closed by then.
    """

    def __init__(self) -> None:
        self._threads: list[Thread] = []

    def add(self, thread: Thread) -> None:
        """Count one that is about to be started."""
        self._threads = [*filter(Thread.is_alive, self._threads), thread]

    async def end(self, *, within: float) -> None:
        """Wait until all have ended, but no more seconds than given."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while any(map(Thread.is_alive, self._threads)):  # noqa: ASYNC110 (they set no event)
                    await asyncio.sleep(0.001)


def create_engine(
    settings: Settings, purpose: Purpose, threads: DriverThreads | None = None
) -> AsyncEngine:
    """Make an engine whose connections are fit for one purpose; nothing is opened yet.

    Reading connections commit by themselves and cannot write: one statement costs one round trip
    and a write that strays there fails. Writing ones run at READ COMMITTED on the servers, where
    single statements decide without the gap locks that make writers deadlock.

    Args:
        settings: where the database is, and for how long to wait for it.
        purpose: what the connections are for.
        threads: where to note the driver's threads, for who must see them end.
    """
    # An error's text would hold e-mail addresses and password hashes, and it goes to the log.
    options: dict[str, Any] = {"hide_parameters": True}
    if purpose is Purpose.MIGRATING:
        options["poolclass"] = NullPool
    else:
        options |= {
            # Health checks are rare, so theirs are tested each time; for the others see below.
            "pool_pre_ping": purpose is Purpose.PROBING and not settings.embedded,
            "pool_recycle": 1800,
            "pool_size": 1 if purpose is Purpose.PROBING else settings.database_pool_size,
            "max_overflow": 0,
            "pool_timeout": settings.database_pool_timeout,
            # Sessions have committed or rolled back by then; another ROLLBACK is a round trip.
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
    """Close an engine's connections, those that are in use as soon as they come back.

    SQLAlchemy's own ``dispose`` forgets the pool, and with it what comes back to it later, which
    would stay open until it is garbage.
    """

    @event.listens_for(engine.sync_engine.pool, "checkin")
    def _close(_connection: object, record: Any) -> None:
        if record.dbapi_connection is not None:
            record.invalidate()

    await engine.dispose()


def _leave_what_leads_astray(engine: AsyncEngine) -> None:
    """Take a connection for lost, with all others of the pool, whose node must not be used now.

    The same goes for errors that end a connection and that SQLAlchemy does not know.
    """

    @event.listens_for(engine.sync_engine, "handle_error")
    def _lose_connection(context: Any) -> None:
        error = context.original_exception
        if is_astray(error) or ends_connection(error):
            context.is_disconnect = True


def _ping_after_idling(engine: AsyncEngine) -> None:
    """Ping a connection before its use only when it has been idle for a while.

    A ping at each use is a tenth of what reading a page costs. A connection that was fine a moment
    ago most likely still is, and ``Database`` tries once more if it is not.
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
            # The pool makes a new connection then, and others in the place of all that are as old:
            # a proxy that has dropped one while it was idle has most likely dropped them all.
            raise InvalidatePoolError from error


async def _ping(connection: Any) -> None:
    """Ask whether a connection is alive.

    A firewall that has forgotten it swallows the question, so an answer that takes long is none.

    Raises:
        TimeoutError: there was no answer within ``PING_SECONDS``.
    """
    async with asyncio.timeout(PING_SECONDS):
        await connection.ping(reconnect=False)


def _time_limit(settings: Settings, purpose: Purpose) -> float:
    """Seconds after which a statement is of no use to anyone."""
    if purpose is Purpose.READING:
        return settings.read_deadline
    return settings.database_timeout


class _SqliteConnection(sqlite3.Connection):
    """Gives up a statement that takes too long, and every lock when it is closed.

    A statement runs in a thread, where giving up on it does not end it. And what is left of one
    that nobody waited for would keep a closed connection's locks until it is garbage.

    Args:
        limit: seconds that one statement may take.
    """

    def __init__(self, limit: float, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limit = limit
        self._deadline = float("inf")
        # The unit is an instruction of SQLite's virtual machine: about every millisecond.
        self.set_progress_handler(lambda: time.monotonic() > self._deadline, 20_000)

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """Make a cursor; there is one for each statement."""
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
        """Close what the driver has opened for a caller who had hung up by then."""
        with suppress(sqlite3.Error):
            self.close()


class _SqliteDriver(aiosqlite.Connection):
    """Bears being told twice to stop.

    SQLAlchemy stops the connection of a task that is cancelled again while it closes it. Closing
    ends with a stop too; its own would wait for a thread that has ended, for ever.
    """

    _stopped: "asyncio.Future[Any] | None" = None

    def stop(self) -> "asyncio.Future[Any] | None":
        """As the parent; idempotent."""
        if self._running:
            self._stopped = super().stop()
        return self._stopped


def _sqlite_engine(
    settings: Settings, purpose: Purpose, options: dict[str, Any], threads: DriverThreads
) -> AsyncEngine:
    if purpose is Purpose.WRITING:
        # SQLite has one writer at a time. Waiting for a pool of one is fair and wakes at once;
        # waiting for the file's lock means sleeping and trying again.
        options |= {"pool_size": 1}
    limit = float("inf") if purpose is Purpose.MIGRATING else _time_limit(settings, purpose)
    connect_args = {
        # The driver's own transactions begin late and as readers, which fails when two of them
        # turn into writers; with None it leaves BEGIN to us.
        "isolation_level": None,
        "factory": partial(_SqliteConnection, limit),
        "async_creator_fn": partial(_open_sqlite, threads),
    }
    engine = create_async_engine(settings.database_url, connect_args=connect_args, **options)
    # The wait for a lock happens in a thread that cannot be cancelled, so it ends before the
    # deadline does. Migrations of several instances queue up instead.
    patience = 60.0 if purpose is Purpose.MIGRATING else _time_limit(settings, purpose) * 0.8
    pragmas = [
        f"PRAGMA busy_timeout = {int(patience * 1000)}",
        "PRAGMA journal_mode = WAL",
        # FULL, because an acknowledged write survives a power cut too, not only a crash.
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
    """What SQLAlchemy does where it opens a connection itself, and note its thread."""
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
    """TLS as the settings ask for it; TLS 1.2 or newer.

    ``require`` encrypts but believes any certificate, so it stops listeners, not impostors.
    """
    context = ssl.create_default_context(cafile=settings.database_tls_ca)
    if settings.database_tls == "require":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


_FAULTS = (
    # The socket's: reset, closed under way; uvloop refuses to write to a transport that is closed.
    *(OSError, EOFError, RuntimeError),
    # The driver's own, on half a packet or after another task has closed the connection.
    *(AssertionError, AttributeError, LookupError, struct.error),
)


class MysqlConnection(aiomysql.Connection):  # type: ignore[misc]  # the library is untyped
    """Driver's connection that raises every fault of the connection as an error of the driver.

    The driver lets some of them through as they are, and SQLAlchemy takes what is not translated
    for a bug: it neither gives the connection up nor tells anyone that it is lost. An error 2006
    says that nothing was sent, 2013 that the answer did not come.
    """

    async def _connect(self) -> None:
        try:
            await super()._connect()
        except (*_FAULTS, aiomysql.InternalError, aiomysql.InterfaceError) as error:
            raise aiomysql.OperationalError(
                CR.CR_CONN_HOST_ERROR, f"no connection: {error!r}"
            ) from error
        except asyncio.CancelledError:
            # The driver closes after errors only: a handshake of TLS that is cancelled stayed open.
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
            # Without a number it is the driver's: packets that are not those that are expected.
            if isinstance(error.args[0], int):
                raise
            raise self._lost(error) from error

    async def read_some(self, size: int) -> bytes:
        """Read what has arrived, at most that many bytes; nothing at the end.

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
        """Say goodbye and close, without waiting for a server that may not read."""
        if self._writer is None:
            return
        transport = self._writer.transport
        if transport.get_write_buffer_size():
            transport.abort()
        with suppress(aiomysql.OperationalError):
            self._write_bytes(_GOODBYE)
        self.close()


async def _connect_mysql(settings: Settings, purpose: Purpose, **kwargs: Any) -> Any:
    """Open one connection and set its session, all of it within the connect time-out.

    The driver's own time-out ends with the TCP connection; a server that accepts and then stays
    silent would hold the caller for ever.
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
            # The driver's own text says no more than that there is no connection.
            raise aiomysql.OperationalError(2026, f"no TLS: {error.__cause__}") from error
        raise


async def _set_session(connection: Any, settings: Settings, purpose: Purpose) -> None:
    is_mariadb = "mariadb" in connection.get_server_info().lower()
    limit = _time_limit(settings, purpose)
    variables = {
        "time_zone": "'+00:00'",
        # Refuses what does not fit instead of cutting it off; also rules out the modes under
        # which the driver's quoting of strings would be wrong.
        "sql_mode": "'STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,"
        "ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
    }
    if purpose is not Purpose.MIGRATING:
        # Less than the deadline, so that the server gives up its locks before we give up on it.
        variables["innodb_lock_wait_timeout"] = str(max(1, int(limit * 0.5)))
        if is_mariadb:
            variables["max_statement_time"] = str(limit)
        else:
            variables["max_execution_time"] = str(int(limit * 1000))
    if purpose is Purpose.WRITING:
        # A firewall that forgets a connection leaves its transaction to the server, and with it
        # the lock on the change counter, for which every writer waits: 8 hours by default. MySQL
        # has no time-out for transactions alone; the pool replaces connections that it has closed.
        name = "idle_transaction_timeout" if is_mariadb else "wait_timeout"
        variables[name] = str(max(1, math.ceil(2 * limit)))
    access = "READ ONLY" if purpose.is_read_only else "READ WRITE"
    async with connection.cursor() as cursor:
        if settings.database_tls != "off":
            # The driver goes on in clear text when the server, or someone between, offers no TLS.
            await cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
            row = await cursor.fetchone()
            if not row or not row[1]:
                raise aiomysql.OperationalError(2026, "the server offers no TLS")
        assignments = ", ".join(f"{name} = {value}" for name, value in variables.items())
        await cursor.execute(f"SET SESSION {assignments}")
        await cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, {access}")
        await _catch_up(cursor)


async def _catch_up(cursor: Any) -> None:
    """On Galera, wait until the node has what the others have acknowledged by now.

    A node is up to date with its own writes only. Who is led to another one, because the first is
    gone, would for a moment miss what was acknowledged last, and be told of positions that there
    never were. Once is enough as long as all write to one node; else the cluster's own setting,
    which this leaves as it is, makes every read wait.
    """
    await cursor.execute("SHOW SESSION VARIABLES LIKE 'wsrep_on'")
    row = await cursor.fetchone()
    if row and row[1] == "ON":
        await cursor.execute("SET SESSION wsrep_sync_wait = 1")
        await cursor.execute("SELECT 1")
        await cursor.execute("SET SESSION wsrep_sync_wait = DEFAULT")
