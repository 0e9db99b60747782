"""Translation of the engines' error codes into the service's errors."""

import sqlite3

import pytest
from pymysql import err
from sqlalchemy.exc import DBAPIError, PendingRollbackError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from catalog.db.error_translation import is_astray, is_permanent, to_catalog_error, worth_a_retry
from catalog.errors import CatalogError, Conflict, DatabaseBusy, DatabaseUnavailable

# The servers' error codes, named as in mysqld_error.h and errmsg.h.
SERVER_CODES: dict[type[CatalogError], dict[int, str]] = {
    DatabaseBusy: {
        1020: "ER_CHECKREAD: record has changed since last read",
        1205: "ER_LOCK_WAIT_TIMEOUT",
        1206: "ER_LOCK_TABLE_FULL",
        1213: "ER_LOCK_DEADLOCK",
        1223: "ER_CANT_UPDATE_WITH_READLOCK",
        1412: "ER_TABLE_DEF_CHANGED",
        1615: "ER_NEED_REPREPARE",
        1637: "ER_TOO_MANY_CONCURRENT_TRXS",
        3058: "ER_USER_LOCK_DEADLOCK",
        3572: "ER_LOCK_NOWAIT",
    },
    Conflict: {
        1062: "ER_DUP_ENTRY",
        1451: "ER_ROW_IS_REFERENCED_2",
        1452: "ER_NO_REFERENCED_ROW_2",
        1586: "ER_DUP_ENTRY_WITH_KEY_NAME",
        1761: "ER_FOREIGN_DUPLICATE_KEY_WITH_CHILD_INFO",
        1762: "ER_FOREIGN_DUPLICATE_KEY_WITHOUT_CHILD_INFO",
    },
    DatabaseUnavailable: {
        1021: "ER_DISK_FULL",
        1040: "ER_CON_COUNT_ERROR: too many connections",
        1041: "ER_OUT_OF_RESOURCES",
        1044: "ER_DBACCESS_DENIED_ERROR",
        1045: "ER_ACCESS_DENIED_ERROR",
        1047: "ER_UNKNOWN_COM_ERROR: WSREP has not yet prepared node",
        1049: "ER_BAD_DB_ERROR",
        1053: "ER_SERVER_SHUTDOWN",
        1077: "ER_NORMAL_SHUTDOWN",
        1079: "ER_SHUTDOWN_COMPLETE",
        1080: "ER_FORCING_CLOSE",
        1114: "ER_RECORD_FILE_FULL",
        1129: "ER_HOST_IS_BLOCKED",
        1130: "ER_HOST_NOT_PRIVILEGED",
        1152: "ER_ABORTING_CONNECTION",
        1158: "ER_NET_READ_ERROR",
        1159: "ER_NET_READ_INTERRUPTED",
        1160: "ER_NET_ERROR_ON_WRITE",
        1161: "ER_NET_WRITE_INTERRUPTED",
        1180: "ER_ERROR_DURING_COMMIT",
        1203: "ER_TOO_MANY_USER_CONNECTIONS",
        1226: "ER_USER_LIMIT_REACHED",
        1290: "ER_OPTION_PREVENTS_STATEMENT: read-only",
        1317: "ER_QUERY_INTERRUPTED",
        1698: "ER_ACCESS_DENIED_NO_PASSWORD_ERROR",
        1792: "ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION",
        1836: "ER_READ_ONLY_MODE",
        1927: "ER_CONNECTION_KILLED",
        1969: "ER_STATEMENT_TIMEOUT of MariaDB",
        2000: "CR_UNKNOWN_ERROR",
        2002: "CR_CONNECTION_ERROR",
        2003: "CR_CONN_HOST_ERROR",
        2005: "CR_UNKNOWN_HOST",
        2006: "CR_SERVER_GONE_ERROR",
        2012: "CR_SERVER_HANDSHAKE_ERR",
        2013: "CR_SERVER_LOST",
        2014: "CR_COMMANDS_OUT_OF_SYNC",
        2026: "CR_SSL_CONNECTION_ERROR",
        2027: "CR_MALFORMED_PACKET",
        2055: "CR_SERVER_LOST_EXTENDED",
        3024: "ER_QUERY_TIMEOUT of MySQL",
        3100: "ER_RUN_HOOK_ERROR: group replication",
        3101: "ER_TRANSACTION_ROLLBACK_DURING_COMMIT: group replication",
        3118: "ER_ACCOUNT_HAS_BEEN_LOCKED",
        4031: "ER_CLIENT_INTERACTION_TIMEOUT",
        # Codes of the system library (EE_) and further codes of the server.
        3: "EE_WRITE",
        5: "EE_OUTOFMEMORY",
        11: "EE_CANTUNLOCK",
        14: "EE_CANT_CHSIZE",
        20: "EE_DISK_FULL",
        23: "EE_OUT_OF_FILERESOURCES",
        29: "EE_FILENOTFOUND",
        1004: "ER_CANT_CREATE_FILE",
        1015: "ER_CANT_LOCK",
        1016: "ER_CANT_OPEN_FILE",
        1017: "ER_FILE_NOT_FOUND",
        1024: "ER_ERROR_ON_READ",
        1026: "ER_ERROR_ON_WRITE",
        1030: "ER_GET_ERRNO: of the storage engine",
        1033: "ER_NOT_FORM_FILE",
        1034: "ER_NOT_KEYFILE",
        1035: "ER_OLD_KEYFILE",
        1036: "ER_OPEN_AS_READONLY",
        1037: "ER_OUTOFMEMORY",
        1038: "ER_OUT_OF_SORTMEMORY",
        1042: "ER_BAD_HOST_ERROR",
        1043: "ER_HANDSHAKE_ERROR",
        1046: "ER_NO_DB_ERROR",
        1078: "ER_GOT_SIGNAL",
        1105: "ER_UNKNOWN_ERROR",
        1135: "ER_CANT_CREATE_THREAD",
        1142: "ER_TABLEACCESS_DENIED_ERROR",
        1143: "ER_COLUMNACCESS_DENIED_ERROR",
        1146: "ER_NO_SUCH_TABLE",
        1153: "ER_NET_PACKET_TOO_LARGE",
        1154: "ER_NET_READ_ERROR_FROM_PIPE",
        1156: "ER_NET_PACKETS_OUT_OF_ORDER",
        1157: "ER_NET_UNCOMPRESS_ERROR",
        1181: "ER_ERROR_DURING_ROLLBACK",
        1184: "ER_NEW_ABORTING_CONNECTION",
        1194: "ER_CRASHED_ON_USAGE",
        1195: "ER_CRASHED_ON_REPAIR",
        1197: "ER_TRANS_CACHE_FULL",
        1207: "ER_READ_ONLY_TRANSACTION",
        1227: "ER_SPECIFIC_ACCESS_DENIED_ERROR",
        1296: "ER_GET_ERRMSG",
        1297: "ER_GET_TEMPORARY_ERRMSG",
        1370: "ER_PROCACCESS_DENIED_ERROR",
        1705: "ER_STMT_CACHE_FULL",
        1712: "ER_INDEX_CORRUPT",
        1713: "ER_UNDO_RECORD_TOO_BIG",
        1812: "ER_TABLESPACE_MISSING",
        1814: "ER_TABLESPACE_DISCARDED",
        1815: "ER_INTERNAL_ERROR",
        1820: "ER_MUST_CHANGE_PASSWORD",
        1862: "ER_MUST_CHANGE_PASSWORD_LOGIN",
        1874: "ER_INNODB_READ_ONLY",
        1877: "ER_TABLE_CORRUPT",
        1878: "ER_TEMP_FILE_WRITE_FAILURE",
        1881: "ER_INNODB_FORCED_RECOVERY",
        1932: "ER_NO_SUCH_TABLE_IN_ENGINE",
        3032: "ER_SERVER_OFFLINE_MODE",
        3159: "ER_SECURE_TRANSPORT_REQUIRED",
        3168: "ER_SERVER_ISNT_AVAILABLE",
        3169: "ER_SESSION_WAS_KILLED",
        3955: "ER_USER_ACCESS_DENIED_FOR_USER_ACCOUNT_BLOCKED_BY_PASSWORD_LOCK",
        4151: "ER_ACCOUNT_HAS_BEEN_LOCKED of MariaDB",
    },
}

# SQLite's primary result codes and, where they occur, extended ones.
SQLITE_CODES: dict[type[CatalogError], tuple[str, ...]] = {
    DatabaseBusy: (
        "SQLITE_BUSY",
        "SQLITE_BUSY_RECOVERY",
        "SQLITE_BUSY_SNAPSHOT",
        "SQLITE_LOCKED",
        "SQLITE_LOCKED_SHAREDCACHE",
        "SQLITE_PROTOCOL",
    ),
    Conflict: (
        "SQLITE_CONSTRAINT_FOREIGNKEY",
        "SQLITE_CONSTRAINT_PRIMARYKEY",
        "SQLITE_CONSTRAINT_UNIQUE",
    ),
    DatabaseUnavailable: (
        "SQLITE_AUTH",
        "SQLITE_CANTOPEN",
        "SQLITE_CORRUPT",
        "SQLITE_FULL",
        "SQLITE_INTERRUPT",
        "SQLITE_INTERNAL",
        "SQLITE_IOERR",
        "SQLITE_IOERR_FSYNC",
        "SQLITE_NOLFS",
        "SQLITE_NOMEM",
        "SQLITE_NOTADB",
        "SQLITE_PERM",
        "SQLITE_READONLY",
        "SQLITE_READONLY_DBMOVED",
        "SQLITE_SCHEMA",
    ),
}

BUGS = {
    1054: "ER_BAD_FIELD_ERROR",
    1064: "ER_PARSE_ERROR",
    1264: "ER_WARN_DATA_OUT_OF_RANGE",
    1364: "ER_NO_DEFAULT_FOR_FIELD",
    1366: "ER_TRUNCATED_WRONG_VALUE_FOR_FIELD",
    1406: "ER_DATA_TOO_LONG",
    3819: "ER_CHECK_CONSTRAINT_VIOLATED of MySQL",
    4025: "ER_CONSTRAINT_FAILED of MariaDB",
}

SECRET_TEXT = "Access denied for user 'catalog' to column 'password_hash'"


def server_error(code: int) -> DBAPIError:
    return DBAPIError("SELECT 1", {}, err.OperationalError(code, SECRET_TEXT))


def sqlite_error(code: int | None) -> DBAPIError:
    cause = sqlite3.OperationalError(SECRET_TEXT)
    if code is not None:
        cause.sqlite_errorcode = code
    return DBAPIError("SELECT 1", {}, cause)


class TestTranslation:
    @pytest.mark.parametrize(
        ("code", "refusal"),
        [(code, refusal) for refusal, codes in SERVER_CODES.items() for code in codes],
        ids=[f"{code} {name}" for codes in SERVER_CODES.values() for code, name in codes.items()],
    )
    def test_server_code_is_translated_direct_or_wrapped(
        self, code: int, refusal: type[CatalogError]
    ) -> None:
        wrapped = err.InterfaceError("connection lost")
        wrapped.__cause__ = err.OperationalError(code, SECRET_TEXT)

        for error in (server_error(code), DBAPIError("SELECT 1", {}, wrapped)):
            answer = to_catalog_error(error)

            assert type(answer) is refusal
            assert SECRET_TEXT not in answer.detail

    @pytest.mark.parametrize(
        ("name", "refusal"),
        [(name, refusal) for refusal, names in SQLITE_CODES.items() for name in names],
    )
    def test_sqlite_code_is_translated(self, name: str, refusal: type[CatalogError]) -> None:
        answer = to_catalog_error(sqlite_error(getattr(sqlite3, name)))

        assert type(answer) is refusal
        assert SECRET_TEXT not in answer.detail

    def test_missing_table_is_unavailable_on_sqlite(self) -> None:
        cause = sqlite3.OperationalError("no such table: products")
        cause.sqlite_errorcode = sqlite3.SQLITE_ERROR

        assert type(to_catalog_error(DBAPIError("SELECT 1", {}, cause))) is DatabaseUnavailable

    @pytest.mark.parametrize("code", BUGS, ids=BUGS.values())
    def test_programming_error_is_not_translated(self, code: int) -> None:
        error = server_error(code)

        assert to_catalog_error(error) is None

    @pytest.mark.parametrize(
        "code",
        [
            sqlite3.SQLITE_ERROR,
            sqlite3.SQLITE_CONSTRAINT_CHECK,
            sqlite3.SQLITE_CONSTRAINT_NOTNULL,
            None,
        ],
        ids=["SQLITE_ERROR", "SQLITE_CONSTRAINT_CHECK", "SQLITE_CONSTRAINT_NOTNULL", "no code"],
    )
    def test_programming_error_is_not_translated_on_sqlite(self, code: int | None) -> None:
        error = sqlite_error(code)

        assert to_catalog_error(error) is None

    def test_connection_loss_is_unavailable_whatever_the_code(self) -> None:
        error = DBAPIError("SELECT 1", {}, OSError("reset"), connection_invalidated=True)

        assert type(to_catalog_error(error)) is DatabaseUnavailable

    def test_error_caused_by_connection_loss_is_unavailable(self) -> None:
        loss = DBAPIError("SELECT 1", {}, OSError("reset"), connection_invalidated=True)
        error = PendingRollbackError("Can't reconnect until invalid savepoint is rolled back.")
        error.__context__ = loss

        assert type(to_catalog_error(error)) is DatabaseUnavailable
        assert to_catalog_error(PendingRollbackError("Of our own making.")) is None

    def test_pool_time_out_is_busy(self) -> None:
        assert type(to_catalog_error(PoolTimeout())) is DatabaseBusy

    def test_query_time_out_is_unavailable(self) -> None:
        assert type(to_catalog_error(TimeoutError())) is DatabaseUnavailable

    def test_other_error_is_not_translated(self) -> None:
        error = StatementError("bad parameter", "SELECT 1", {}, ValueError("naive"))

        assert to_catalog_error(error) is None

    @pytest.mark.parametrize("refusal", [DatabaseBusy, DatabaseUnavailable])
    def test_temporary_error_has_retry_after(self, refusal: type[CatalogError]) -> None:
        (code, *_) = SERVER_CODES[refusal]
        answer = to_catalog_error(server_error(code))

        assert isinstance(answer, CatalogError)
        assert int(answer.headers["Retry-After"]) >= 1


class TestRetries:
    @pytest.mark.parametrize("code", [1020, 1205, 1213, 1412, 1615])
    def test_collision_is_worth_a_retry(self, code: int) -> None:
        assert worth_a_retry(server_error(code))

    @pytest.mark.parametrize("code", [1062, 1064, 1180, 1290, 2003, 2006, 2013])
    def test_other_error_is_not_worth_a_retry(self, code: int) -> None:
        assert not worth_a_retry(server_error(code))


class TestNodes:
    @pytest.mark.parametrize("code", [1047, 1290, 1836])
    def test_unusable_node_is_recognized(self, code: int) -> None:
        assert is_astray(err.OperationalError(code, SECRET_TEXT))

    @pytest.mark.parametrize("code", [1053, 1180, 1213, 1792])
    def test_other_fault_does_not_mark_the_node_unusable(self, code: int) -> None:
        assert not is_astray(err.OperationalError(code, SECRET_TEXT))


class TestPermanentErrors:
    @pytest.mark.parametrize("code", [1044, 1045, 1049, 1130, 1142, 1227, 1698, 3118])
    def test_refused_access_or_missing_database_is_permanent(self, code: int) -> None:
        assert is_permanent(server_error(code))

    @pytest.mark.parametrize("code", [1040, 1205, 2002, 2003, 2006, 2013])
    def test_temporary_error_is_not_permanent(self, code: int) -> None:
        assert not is_permanent(server_error(code))
        assert not is_permanent(OSError("no such file"))
