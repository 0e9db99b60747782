"""MySQL and MariaDB engine: TLS, time-outs, and session variables."""

import asyncio
import math
import ssl
from functools import partial
from pathlib import Path
from typing import Any

import aiomysql
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from catalog.db.deadlines import Deadlines
from catalog.db.engines.mysql_connection import MysqlConnection
from catalog.db.engines.purpose import Purpose, time_limit
from catalog.settings import Settings


def create_mysql_engine(
    settings: Settings, purpose: Purpose, options: dict[str, Any], deadlines: Deadlines
) -> AsyncEngine:
    """Create an engine with the pool's options, on MySQL or MariaDB."""
    connect_args: dict[str, Any] = {
        "async_creator_fn": partial(_connect, settings, purpose, deadlines)
    }
    if settings.database_tls != "off":
        connect_args["ssl"] = tls_context(settings)
    return create_async_engine(settings.database_url, connect_args=connect_args, **options)


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Return the TLS context for the settings; TLS 1.2 or newer.

    Verifies by the authorities of the system, or by those of a file. ``require`` encrypts but
    accepts any certificate: it protects against eavesdropping, not against impersonation.
    """
    tls = settings.database_tls
    context = ssl.create_default_context(cafile=tls if isinstance(tls, Path) else None)
    if tls == "require":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _connect(
    settings: Settings, purpose: Purpose, deadlines: Deadlines, **kwargs: Any
) -> Any:
    """Open a connection and set its session variables within the connect time-out.

    The driver's own time-out covers the TCP connection only; a server that accepts and then stays
    silent would block the caller for ever.
    """
    deadline = deadlines.connect
    try:
        async with asyncio.timeout(deadline):
            connection = MysqlConnection(**kwargs)
            await connection._connect()
            try:
                await _set_session(connection, settings, purpose, deadlines)
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


async def _set_session(
    connection: Any, settings: Settings, purpose: Purpose, deadlines: Deadlines
) -> None:
    is_mariadb = "mariadb" in connection.get_server_info().lower()
    limit = time_limit(purpose, deadlines)
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
        # lock on the change counter, for which every writer waits: 8 hours by default. No live
        # transaction is idle for longer than its deadline. MySQL has no time-out for idle
        # transactions alone; the pool replaces connections that it has closed, but not too often.
        if is_mariadb:
            variables["idle_transaction_timeout"] = str(max(1, math.ceil(limit)))
        else:
            variables["wait_timeout"] = str(max(1, math.ceil(2 * limit)))
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
