"""What the engines' error numbers mean to a caller: try again, conflict, unavailable, or a bug."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from catalog.errors import CatalogError, Conflict, DatabaseBusy, DatabaseUnavailable

# MySQL and MariaDB number their errors alike; SQLite's are its primary result codes, negated
# here so that the two cannot meet.
_LOCK_WAIT, _DEADLOCK, _RECORD_CHANGED = 1205, 1213, 1020
_WORTH_A_RETRY = {_LOCK_WAIT, _DEADLOCK, _RECORD_CHANGED}
_BUSY = _WORTH_A_RETRY | {1206, 3572, -sqlite3.SQLITE_BUSY, -sqlite3.SQLITE_LOCKED}
_CONFLICT = {1062, 1451, 1452, 1586, 1761, 1762, -sqlite3.SQLITE_CONSTRAINT}
_UNAVAILABLE = {
    # Not there, going away, or cut off.
    *(1053, 1077, 1079, 1080, 1129, 1152, 1158, 1159, 1160, 1161, 1927, 4031),
    *(2000, 2002, 2003, 2005, 2006, 2012, 2013, 2014, 2026, 2027, 2055),
    # There, but it will not have us: too many connections, sign-in refused, no such database.
    *(1040, 1044, 1045, 1049, 1130, 1203, 1226, 1698, 3118),
    # There, but not for this: read-only, node not in its cluster, out of disk, out of time.
    *(1021, 1041, 1047, 1114, 1290, 1317, 1792, 1836, 1969, 3024, 3100, 3101),
    # There, but a COMMIT went wrong on its way to the disk, or to the other nodes of a cluster.
    1180,
    -sqlite3.SQLITE_CANTOPEN,
    -sqlite3.SQLITE_FULL,
    -sqlite3.SQLITE_IOERR,
    -sqlite3.SQLITE_NOMEM,
    -sqlite3.SQLITE_NOTADB,
    -sqlite3.SQLITE_CORRUPT,
    -sqlite3.SQLITE_PERM,
    -sqlite3.SQLITE_READONLY,
    -sqlite3.SQLITE_INTERRUPT,
}
# Not a node to talk to, for now: it has left its cluster, or others are written to.
_ASTRAY = {1047, 1290, 1836}
# Wrong user, wrong password, no such database, or no right to make tables in it.
_PERMANENT = {1044, 1045, 1049, 1130, 1142, 1227, 1698, 3118}
_CONSTRAINTS_OF_CHECKS = {
    sqlite3.SQLITE_CONSTRAINT_CHECK,
    sqlite3.SQLITE_CONSTRAINT_NOTNULL,
}


def code_of(error: DBAPIError) -> int | None:
    """The engine's number for an error; see the tables above."""
    return _code_of(error.orig)


def _code_of(cause: BaseException | None) -> int | None:
    while cause is not None:
        if isinstance(cause, sqlite3.Error):
            extended = getattr(cause, "sqlite_errorcode", None)
            if extended is None or extended in _CONSTRAINTS_OF_CHECKS:
                return None
            return -(int(extended) & 0xFF)
        if cause.args and isinstance(cause.args[0], int):
            return cause.args[0]
        cause = cause.__cause__
    return None


def refusal_for(error: Exception) -> CatalogError | None:
    """The service's own error for a driver's; None for a bug of ours or anything else."""
    if isinstance(error, PoolTimeout):
        return DatabaseBusy("No database connection came free in time.")
    if isinstance(error, TimeoutError):
        return DatabaseUnavailable("The database did not answer in time.")
    if not isinstance(error, DBAPIError):
        return None
    code = code_of(error)
    if code in _BUSY:
        return DatabaseBusy()
    if code in _CONFLICT:
        return Conflict()
    if code in _UNAVAILABLE or error.connection_invalidated:
        return DatabaseUnavailable()
    return None


@contextmanager
def refusals() -> Iterator[None]:
    """Let a driver's error out as the service's own, and a bug of ours as it is."""
    try:
        yield
    except (DBAPIError, PoolTimeout, TimeoutError) as error:
        refusal = refusal_for(error)
        if refusal is None:
            raise
        raise refusal from error


def is_permanent(error: Exception) -> bool:
    """Whether waiting will not help: the database is there and will not have us, or is none."""
    if not isinstance(error, DBAPIError):
        return False
    code = code_of(error)
    if code is not None and code < 0:
        # A file does not come and go as a server does; only its lock passes.
        return code not in _BUSY
    return code in _PERMANENT


def is_astray(error: BaseException) -> bool:
    """Whether a driver's error says that its connection leads to the wrong node of a cluster.

    Another connection may lead to another node; a proxy or a name stands in between.
    """
    return _code_of(error) in _ASTRAY


def worth_a_retry(error: DBAPIError) -> bool:
    """Whether the same transaction may well succeed when it is run again from its start."""
    return code_of(error) in _WORTH_A_RETRY
