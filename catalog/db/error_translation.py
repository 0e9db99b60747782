"""Translation of the engines' error numbers: retry, conflict, busy, unavailable, or a bug."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from catalog.errors import CatalogError, Conflict, DatabaseBusy, DatabaseUnavailable, caused

# MySQL and MariaDB share their error numbers; SQLite's primary result codes are negated here, so
# that the two ranges cannot overlap.
_GONE = 2006
_LOCK_WAIT, _DEADLOCK, _RECORD_CHANGED = 1205, 1213, 1020
# Another session has changed a table's definition; a new transaction sees the new one.
_TABLE_CHANGED, _PREPARE_AGAIN = 1412, 1615
_WORTH_A_RETRY = {_LOCK_WAIT, _DEADLOCK, _RECORD_CHANGED, _TABLE_CHANGED, _PREPARE_AGAIN}
# The others: out of locks or transactions, or a lock that must not be waited for.
_BUSY = _WORTH_A_RETRY | {
    *(1206, 1223, 1637, 3058, 3572),
    *(-sqlite3.SQLITE_BUSY, -sqlite3.SQLITE_LOCKED, -sqlite3.SQLITE_PROTOCOL),
}
_CONFLICT = {1062, 1451, 1452, 1586, 1761, 1762, -sqlite3.SQLITE_CONSTRAINT}
_UNAVAILABLE = {
    # Unreachable, shutting down, or disconnected.
    *(1042, 1043, 1053, 1077, 1078, 1079, 1080, 1129, 1152, 1154, 1156, 1157, 1158, 1159, 1160),
    *(1161, 1184, 1927, 3032, 3168, 3169, 4031),
    *(2000, 2002, 2003, 2005, 2006, 2012, 2013, 2014, 2026, 2027, 2055),
    # Access denied: too many connections, log-in rejected, no such database, no privilege, no such
    # table, an expired password, a packet that is too large.
    *(1040, 1044, 1045, 1046, 1049, 1130, 1135, 1142, 1143, 1146, 1153, 1203, 1226, 1227, 1370),
    *(1698, 1820, 1862, 1932, 3118, 3159, 3955, 4151),
    # File errors: cannot be created, opened, read, written or locked; damaged; disk full.
    *(1004, 1015, 1016, 1017, 1024, 1026, 1030, 1033, 1034, 1035, 1036, 1194, 1195, 1712, 1812),
    *(1814, 1815, 1874, 1877, 1878, 1881),
    # File errors by their errno, as for a temporary file that cannot be written.
    *range(1, 25),
    *(27, 29),
    # Out of memory or of log space; or without a reason.
    *(1037, 1038, 1105, 1181, 1197, 1207, 1296, 1297, 1705, 1713),
    # Rejected for now: read-only, node not in its cluster, out of disk, statement timed out.
    *(1021, 1041, 1047, 1114, 1290, 1317, 1792, 1836, 1969, 3024, 3100, 3101),
    # A COMMIT failed on the way to the disk or to the other nodes of a cluster.
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
    *(
        -sqlite3.SQLITE_AUTH,
        -sqlite3.SQLITE_INTERNAL,
        -sqlite3.SQLITE_NOLFS,
        -sqlite3.SQLITE_SCHEMA,
    ),
}
# After these a connection is unusable, whatever the driver reports. 2003 means that it could not be
# opened.
_LOST = {
    *(1053, 1077, 1079, 1080, 1152, 1154, 1156, 1157, 1158, 1159, 1160, 1161, 1184, 1927),
    *(2002, 2003, 2006, 2012, 2013, 2014, 2027, 2055, 3032, 3168, 3169, 4031),
}
_NO_SUCH_TABLE = "no such table"
"""Prefix of SQLite's message, which has no error code of its own for this."""
# The node must not be used for now: it has left its cluster, or is read-only.
_ASTRAY = {1047, 1290, 1836}
# Wrong user, wrong password, no such database, or no privilege to create tables in it.
_PERMANENT = {1044, 1045, 1049, 1130, 1142, 1227, 1698, 3118}
_CONSTRAINTS_OF_CHECKS = {
    sqlite3.SQLITE_CONSTRAINT_CHECK,
    sqlite3.SQLITE_CONSTRAINT_NOTNULL,
}


def code_of(error: DBAPIError) -> int | None:
    """Return the engine's number for an error, as in the tables above; None if it has none."""
    return _code_of(error.orig)


def _code_of(cause: BaseException | None) -> int | None:
    while cause is not None:
        if isinstance(cause, sqlite3.Error):
            extended = getattr(cause, "sqlite_errorcode", None)
            if extended is None or extended in _CONSTRAINTS_OF_CHECKS:
                return None
            if extended == sqlite3.SQLITE_ERROR and str(cause).startswith(_NO_SUCH_TABLE):
                return -sqlite3.SQLITE_SCHEMA
            return -(int(extended) & 0xFF)
        if cause.args and isinstance(cause.args[0], int):
            return cause.args[0]
        cause = cause.__cause__
    return None


def to_catalog_error(error: Exception) -> CatalogError | None:
    """Translate a driver's error into the service's own; None for a bug or any other error."""
    if isinstance(error, PoolTimeout):
        return DatabaseBusy("No database connection came free in time.")
    if isinstance(error, TimeoutError):
        return did_not_answer()
    if not isinstance(error, DBAPIError):
        return DatabaseUnavailable() if is_lost(error) else None
    code = code_of(error)
    if code in _BUSY:
        return DatabaseBusy()
    if code in _CONFLICT:
        return Conflict()
    if code in _UNAVAILABLE or error.connection_invalidated:
        return DatabaseUnavailable()
    return None


def did_not_answer() -> DatabaseUnavailable:
    """Return the error for a missed deadline, with the time-out as its cause for the log."""
    return caused(DatabaseUnavailable("The database did not answer in time."), TimeoutError())


def waited_too_long() -> DatabaseBusy:
    """Return the error of a unit of work whose turn did not come in time."""
    return DatabaseBusy("The requests ahead of this one took too long.")


@contextmanager
def translated_errors() -> Iterator[None]:
    """Translate driver errors raised inside the context; bugs propagate unchanged."""
    try:
        yield
    except (SQLAlchemyError, TimeoutError) as error:
        translated = to_catalog_error(error)
        if translated is None:
            raise
        raise translated from error


def is_permanent(error: Exception) -> bool:
    """Tell permanent connection errors, which no retry can cure, from transient ones."""
    if not isinstance(error, DBAPIError):
        return False
    code = code_of(error)
    if code is not None and code < 0:
        # A file does not become reachable later as a server does; only its lock is transient.
        return code not in _BUSY
    return code in _PERMANENT


def is_astray(error: BaseException) -> bool:
    """Tell whether a driver's error means that the connection leads to the wrong cluster node.

    Behind a proxy or a DNS name a new connection may reach another node.
    """
    return _code_of(error) in _ASTRAY


def is_lost(error: BaseException) -> bool:
    """Tell whether the connection was lost or could not be opened, so that a new one may work.

    SQLAlchemy may raise an error of its own while it leaves an interrupted block, such as a
    savepoint; the driver's error is then its cause or context.
    """
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or code_of(error) in _LOST
    if not isinstance(error, InvalidRequestError):
        return False
    behind = error.__cause__ or error.__context__
    return behind is not None and is_lost(behind)


def ends_connection(error: BaseException) -> bool:
    """Tell whether a driver's error means that its connection is unusable."""
    return _code_of(error) in _LOST


def was_never_sent(error: DBAPIError) -> bool:
    """Tell whether the connection was found lost before the statement was sent."""
    return code_of(error) == _GONE


def worth_a_retry(error: DBAPIError) -> bool:
    """Tell whether the transaction may succeed if it is retried from its start."""
    return code_of(error) in _WORTH_A_RETRY
