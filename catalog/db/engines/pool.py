"""Pool events: replacement of lost connections, invalidation after a failover, and disposal."""

import asyncio
import time
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine

from catalog.db.error_translation import ends_connection, is_astray

FRESH_SECONDS = 1.0
"""Time after its last use for which a connection is assumed to be alive and is not pinged."""

PING_SECONDS = 0.5
"""Time-out of a ping; a fraction of the shortest deadline, which leaves time to reconnect."""


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


def invalidate_after_failover(engine: AsyncEngine) -> None:
    """Invalidate the pool when a connection leads to a node that must not be used now.

    That happens after a failover. Also invalidate it on errors that end a connection but that
    SQLAlchemy does not recognize as such.
    """

    @event.listens_for(engine.sync_engine, "handle_error")
    def _lose_connection(context: Any) -> None:
        error = context.original_exception
        if is_astray(error) or ends_connection(error):
            context.is_disconnect = True


def replace_lost(engine: AsyncEngine) -> None:
    """Replace a connection at checkout if it was lost while it was idle in the pool.

    One that the peer has closed or reset is found without a round trip. One that a firewall has
    dropped silently is found by a ping, but only after ``FRESH_SECONDS``: a ping at each checkout
    costs a tenth of reading a page. A connection that is lost at the moment of its checkout passes;
    ``ReadConnection`` then repeats the statement, and ``Transactions`` the transaction.
    """

    @event.listens_for(engine.sync_engine, "checkin")
    def _remember_use(_connection: object, record: Any) -> None:
        record.info["used_at"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def _check(connection: Any, record: Any, _proxy: object) -> None:
        if connection.driver_connection.is_lost:
            raise InvalidatePoolError
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
