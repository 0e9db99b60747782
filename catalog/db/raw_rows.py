"""Raw reader of rows of one text each, straight off the wire; for MySQL and MariaDB.

The driver needs two awaits per packet and a dozen calls per value, and SQLAlchemy adds work to each
statement: for a page of 100 rows ten times the cost of this module. The connection and its pool
remain theirs, in the same state before and after; only the answer to one statement is read past
them, as MySQL's documentation describes it ("Protocol::COM_QUERY Response", text result sets).
"""

import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from struct import Struct
from typing import Any, NamedTuple

from aiomysql import OperationalError
from pymysql.constants import CR
from pymysql.err import Error, raise_mysql_exception
from sqlalchemy import Connection, Dialect, Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.literals import literal
from catalog.db.read_connection import ReadConnection

_READ_BYTES = 256 * 1024
# An empty text, which no statement returns, separates the statements' rows.
_BETWEEN = b") UNION ALL (SELECT '') UNION ALL ("
_PLAIN = {int, float, str, type(None)}

_ERROR, _EOF, _NULL = 0xFF, 0xFE, 0xFB
_TWO_BYTES, _THREE_BYTES = 0xFC, 0xFD
_PACKET_HEAD_BYTES = 4
# Of a packet: its length, in two parts, and the first byte of its content; the number between them
# is not checked.
_HEAD = Struct("<HBxB")
_LONGEST_EOF = 8
_LONGEST_PACKET = 0xFFFFFF


def has_raw_rows(connection: AsyncConnection) -> bool:
    """Tell whether ``read_texts`` works on a connection: it does on one to a server."""
    return connection.dialect.name != "sqlite"


class TextQuery(NamedTuple):
    """Statement that selects texts.

    Attributes:
        statement: selects one column without null or empty values. It needs a LIMIT if its order
            matters, because UNION may drop the order of one without. Created once and reused: its
            compiled SQL is cached.
        values: parameters of the statement.
    """

    statement: Select[*tuple[Any, ...]]
    values: Mapping[str, Any]

    @property
    def is_plain(self) -> bool:
        """Whether all values can be formatted as SQL without SQLAlchemy."""
        return all(type(value) in _PLAIN for value in self.values.values())


async def read_texts(
    connection: ReadConnection, *queries: TextQuery, max_bytes: int = sys.maxsize
) -> list[list[bytes]]:
    """Run statements in as few round trips as possible.

    Statements with plain values are combined into one by UNION ALL, which reads one snapshot; the
    others run after it. The order of rows of a UNION ALL is up to the server. Both servers run the
    statements one after the other, each in its own order; mixed rows would raise an error here.

    Args:
        connection: a connection to a server.
        queries: the statements.
        max_bytes: size limit of each statement's result. Texts after the one that exceeds it are
            dropped as they arrive, so that a result may be much larger than what is held.

    Returns:
        the texts that each statement selected, as UTF-8.

    Raises:
        DBAPIError: as ``ReadConnection.execute``.
    """
    plain = [query for query in queries if query.is_plain]
    read_plain = partial(_read_as_one, connection, plain, max_bytes)
    found = iter(await connection.once_more_if_lost(read_plain) if plain else ())
    return [
        next(found) if query.is_plain else await _read_alone(connection, query) for query in queries
    ]


async def _read_alone(connection: AsyncConnection, query: TextQuery) -> list[bytes]:
    texts = await connection.scalars(query.statement, query.values)
    return [str(text).encode() for text in texts]


async def _read_as_one(
    connection: AsyncConnection, queries: Sequence[TextQuery], max_bytes: int
) -> list[list[bytes]]:
    dialect = connection.dialect
    statements = [_Sql.of(each.statement, dialect).filled(each.values) for each in queries]
    sql = b"(" + _BETWEEN.join(statements) + b")" if len(statements) > 1 else statements[0]
    driver: Any = (await connection.get_raw_connection()).driver_connection
    result = _Result(max_bytes)
    try:
        await driver.send_query(sql)
        while not result.feed(await driver.read_some(_READ_BYTES)):
            pass
    except Error as error:
        try:
            await connection.run_sync(_raise, str(queries[0].statement), error)
        except DBAPIError as raised:
            # The connection survives an error that the server reported.
            if not result.is_over:
                raised.connection_invalidated = True
                _drop(connection)
            raise
    except BaseException:
        # The rest of the answer must not be read as the next statement's.
        _drop(connection)
        raise
    found = []
    start = 0
    for _ in statements[1:]:
        end = result.texts.index(b"", start)
        found.append(result.texts[start:end])
        start = end + 1
    found.append(result.texts[start:])
    return found


def _raise(connection: Connection, statement: str, error: Error) -> None:
    """Raise a driver's error through SQLAlchemy, which invalidates the pool if it was a loss.

    SQLAlchemy 2.1 does that in a private method; tests/test_private_attributes.py fails when it
    changes.

    Raises:
        DBAPIError: always.
    """
    try:
        raise error
    except Error:
        connection._handle_dbapi_exception(error, statement, None, None, None)


def _drop(connection: AsyncConnection) -> None:
    sync_connection = connection.sync_connection
    if sync_connection is not None and not sync_connection.invalidated:
        sync_connection.invalidate()


class _Sql(NamedTuple):
    """Statement's SQL with placeholders for its values."""

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
    """Incremental parser of an answer.

    Args:
        max_bytes: size limit of each statement's texts, which an empty text separates.

    Attributes:
        texts: texts of the rows so far.
        is_over: whether the answer is complete, successfully or with an error.
    """

    def __init__(self, max_bytes: int = sys.maxsize) -> None:
        self.texts: list[bytes] = []
        self._max_bytes = max_bytes
        self._received = 0
        # Size of the current statement's texts; None until enough has arrived for it to matter.
        self._bytes: int | None = None
        self.is_over = False
        self._rest = b""
        # The number of columns comes first, then the columns, then the rows.
        self._is_first = True
        self._is_at_rows = False

    def feed(self, piece: bytes) -> bool:
        """Parse the next bytes, and return whether the answer is complete.

        Raises:
            pymysql.err.Error: the server reported an error, or the connection was closed.
        """
        if not piece:
            raise OperationalError(CR.CR_SERVER_LOST, "Lost connection to MySQL server")
        data = self._rest + piece if self._rest else piece
        self._received += len(piece)
        if self._bytes is None and self._received > self._max_bytes:
            self._bytes = self._present_bytes()
        start, end = 0, len(data)
        texts, is_bounded = self.texts, self._bytes is not None
        while end - start >= _HEAD.size:
            low, high, kind = _HEAD.unpack_from(data, start)
            begin = start + _PACKET_HEAD_BYTES
            start = begin + low + (high << 16)
            if start > end:
                start = begin - _PACKET_HEAD_BYTES
                break
            if kind > _TWO_BYTES or kind == _NULL or not self._is_at_rows:
                if self._parse_other(data, begin, start):
                    self.is_over = True
                    return True
                continue
            # A row is one text, and ends with its packet.
            text = data[begin + (1 if kind < _NULL else 3) : start]
            if not is_bounded or self._fits(text):
                texts.append(text)
        self._rest = data[start:]
        return False

    def _parse_other(self, data: bytes, begin: int, behind: int) -> bool:
        """Parse a packet that is no row of the usual length; return whether it is the last one."""
        kind, size = data[begin], behind - begin
        if size == _LONGEST_PACKET:
            raise OperationalError(CR.CR_MALFORMED_PACKET, "A row is too long")
        if kind == _ERROR:
            self.is_over = True
            raise_mysql_exception(data[begin:behind])
        elif self._is_first:
            self._is_first = False
        elif kind == _EOF and size <= _LONGEST_EOF:
            if self._is_at_rows:
                return True
            self._is_at_rows = True
        elif kind == _THREE_BYTES and self._is_at_rows:
            text = data[begin + 4 : behind]
            if self._bytes is None or self._fits(text):
                self.texts.append(text)
        elif self._is_at_rows:
            raise OperationalError(CR.CR_MALFORMED_PACKET, "A value is null, or too long")
        return False

    def _present_bytes(self) -> int:
        size = 0
        for text in reversed(self.texts):
            if not text:
                break
            size += len(text)
        return size

    def _fits(self, text: bytes) -> bool:
        """Count a text, and return whether it is kept: all up to the one that exceeds the limit."""
        assert self._bytes is not None  # noqa: S101 (called only then; tells mypy)
        if not text:
            self._bytes = 0
            return True
        fits = self._bytes <= self._max_bytes
        self._bytes += len(text)
        return fits
