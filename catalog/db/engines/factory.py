"""Creates engines: what the pools of all dialects have in common."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool

from catalog.db.deadlines import DEADLINES, Deadlines
from catalog.db.engines.mysql import create_mysql_engine
from catalog.db.engines.pool import invalidate_after_failover, replace_lost
from catalog.db.engines.purpose import Purpose
from catalog.db.engines.sqlite import DriverThreads, create_sqlite_engine
from catalog.settings import Settings


def create_engine(
    settings: Settings,
    purpose: Purpose,
    threads: DriverThreads | None = None,
    *,
    deadlines: Deadlines = DEADLINES,
) -> AsyncEngine:
    """Create an engine for one purpose; connections are opened on first use.

    Reading connections autocommit and are read-only: a statement costs one round trip, and a
    misplaced write fails. Writing ones run at READ COMMITTED on the servers, which avoids the gap
    locks that make writers deadlock; single statements make the decisions.

    Args:
        settings: the database's URL, its TLS, and the size of the pool.
        purpose: purpose of the connections.
        threads: registry for the driver's threads, for callers that must wait for their end.
        deadlines: time limits.
    """
    # Errors are logged, and their parameters include e-mail addresses and password hashes.
    options: dict[str, Any] = {"hide_parameters": True}
    if purpose is Purpose.MIGRATING:
        options["poolclass"] = NullPool
    else:
        options |= {
            # Health checks are rare, so their connection is pinged at each checkout; for the
            # others see ``replace_lost``.
            "pool_pre_ping": purpose is Purpose.PROBING and not settings.embedded,
            "pool_recycle": 1800,
            "pool_size": settings.database_pool_size if purpose.is_pooled else 1,
            "max_overflow": 0,
            "pool_timeout": deadlines.checkout,
            # Sessions have committed or rolled back by then; a ROLLBACK would cost a round trip.
            "pool_reset_on_return": None,
        }
    if purpose.is_read_only:
        options |= {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True}
    if settings.embedded:
        engine = create_sqlite_engine(
            settings, purpose, options, threads or DriverThreads(), deadlines
        )
    else:
        engine = create_mysql_engine(settings, purpose, options, deadlines)
    if not settings.embedded:
        invalidate_after_failover(engine)
        if purpose in {Purpose.READING, Purpose.WRITING, Purpose.WATCHING}:
            replace_lost(engine)
    return engine
