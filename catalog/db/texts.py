"""Rows that are one text each, taken off the wire in one go; for MySQL and MariaDB.

The driver reads every packet by two awaits and every value by a dozen calls, and SQLAlchemy looks
after each statement: for a page of 100 rows ten times of what is done here. It is their connection,
from their pool, in their state before and after; only the answer to one statement is read past
them, as MySQL's documentation describes it ("Protocol::COM_QUERY Response", text result sets).
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from aiomysql import OperationalError
from pymysql.constants import COMMAND, CR
from pymysql.err import Error, raise_mysql_exception
from sqlalchemy import Dialect, Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.statements import literal

_READ_BYTES = 256 * 1024
_PLAIN = {int, float, str, type(None)}

_ERROR, _EOF, _NULL = 0xFF, 0xFE, 0xFB
_TWO_BYTES, _THREE_BYTES = 0xFC, 0xFD
_LONGEST_EOF = 8
_LONGEST_PACKET = 0xFFFFFF


class Texts(NamedTuple):
    """What a statement has found.

    Attributes:
        texts: the first column, as UTF-8.
        second: the second column of the first row; None without rows.
    """

    texts: list[bytes]
    second: bytes | None


async def read_texts(
    connection: AsyncConnection, statement: Select[*tuple[Any, ...]], values: Mapping[str, Any]
) -> Texts:
    """Run a statement with two columns, texts and something that is the same in each row.

    Args:
        connection: to a server.
        statement: one that is made once and kept, as its SQL is remembered for it.
        values: what it takes; neither column may be null.

    Raises:
        DBAPIError: as ``AsyncConnection.execute``.
    """
    if not all(type(value) in _PLAIN for value in values.values()):
        rows = (await connection.execute(statement, values)).all()
        texts = [str(row[0]).encode() for row in rows]
        return Texts(texts, str(rows[0][1]).encode() if rows else None)
    sql = _Sql.of(statement, connection.dialect).filled(values)
    driver: Any = (await connection.get_raw_connection()).driver_connection
    result = _Result()
    try:
        await driver._execute_command(COMMAND.COM_QUERY, sql)
        while not result.take(await driver._reader.read(_READ_BYTES)):
            pass
    except Error as error:
        # After an error of the server's the connection is as good as before.
        lost = not result.is_over
        if lost:
            _drop(connection)
        raise DBAPIError.instance(
            str(statement),
            None,
            error,
            Error,
            hide_parameters=True,
            connection_invalidated=lost,
            dialect=connection.dialect,
        ) from error
    except BaseException:
        # What is left of the answer must not be taken for that to the next statement.
        _drop(connection)
        raise
    return Texts(result.texts, result.second)


def _drop(connection: AsyncConnection) -> None:
    sync_connection = connection.sync_connection
    if sync_connection is not None:
        sync_connection.invalidate()


class _Sql(NamedTuple):
    """A statement's SQL, with places for its values."""

    text: str
    names: tuple[str, ...]
    constants: Mapping[str, Any]

    @classmethod
    @lru_cache(1024)
    def of(cls, statement: Select[*tuple[Any, ...]], dialect: Dialect) -> "_Sql":
        compiled = statement.compile(dialect=dialect)
        names = tuple(compiled.positiontup or ())
        return cls(str(compiled), names, dict(compiled.params))

    def filled(self, values: Mapping[str, Any]) -> bytes:
        given = {**self.constants, **values}
        return (self.text % tuple(literal(given[name]) for name in self.names)).encode()


class _Result:
    """Takes an answer apart as it arrives.

    Attributes:
        texts: the first column so far.
        second: the second one of the first row.
        is_over: whether the answer has ended, well or with an error.
    """

    def __init__(self) -> None:
        self.texts: list[bytes] = []
        self.second: bytes | None = None
        self.is_over = False
        self._rest = b""
        # The number of columns comes first, then the columns, and behind them the rows.
        self._is_first = True
        self._is_at_rows = False

    def take(self, piece: bytes) -> bool:
        """Take the next bytes; tells whether they were the last.

        Raises:
            pymysql.err.Error: the server has refused or given up, or the connection has ended.
        """
        if not piece:
            raise OperationalError(CR.CR_SERVER_LOST, "Lost connection to MySQL server")
        data = self._rest + piece if self._rest else piece
        start, end = 0, len(data)
        while end - start >= 4:
            size = data[start] | data[start + 1] << 8 | data[start + 2] << 16
            begin = start + 4
            if end - begin < size:
                break
            if size == _LONGEST_PACKET:
                raise OperationalError(CR.CR_MALFORMED_PACKET, "A row is too long")
            start = begin + size
            kind = data[begin]
            if kind == _ERROR:
                self.is_over = True
                raise_mysql_exception(data[begin:start])
            elif self._is_first:
                self._is_first = False
            elif kind == _EOF and size <= _LONGEST_EOF:
                if self._is_at_rows:
                    self.is_over = True
                    return True
                self._is_at_rows = True
            elif self._is_at_rows:
                text, behind = _value(data, begin)
                if not self.texts:
                    self.second, _ = _value(data, behind)
                self.texts.append(text)
        self._rest = data[start:]
        return False


def _value(data: bytes, place: int) -> tuple[bytes, int]:
    """A value behind its length, and where the next one begins."""
    length = data[place]
    place += 1
    if length == _TWO_BYTES:
        length = data[place] | data[place + 1] << 8
        place += 2
    elif length == _THREE_BYTES:
        length = data[place] | data[place + 1] << 8 | data[place + 2] << 16
        place += 3
    elif length >= _NULL:
        raise OperationalError(CR.CR_MALFORMED_PACKET, "A value is null, or too long")
    return data[place : place + length], place + length
