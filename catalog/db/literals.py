"""SQL literals for the servers: of values, and of the rows of large INSERT statements."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple

from pymysql.converters import escape_string

_SLICE = 100
"""Rows formatted together: enough to share the work, and few enough for the processor's caches."""

_FEW = 8
"""Rows from which on formatting column by column is cheaper."""

# Stands for a quotation mark until the texts are escaped. The escapes are those of escape_string;
# the first one precedes those that insert backslashes.
_MARK = "\0"
_ESCAPES = (
    *((b"\\", b"\\\\"), (b"\n", b"\\n"), (b"\r", b"\\r"), (b"\x1a", b"\\Z")),
    *((b'"', b'\\"'), (b"'", b"\\'"), (b"\0", b"'")),
)


class RowLiterals(NamedTuple):
    """Rows as they follow VALUES in a statement.

    Attributes:
        rows: their number.
        sql: their text.
    """

    rows: int
    sql: str


def literal(value: object) -> str:
    """Format a value as an SQL literal for the servers.

    Text is escaped by the driver, correctly for every sql_mode but NO_BACKSLASH_ESCAPES, which the
    connections turn off (``engines/mysql.py``).
    """
    if type(value) is str:
        return f"'{escape_string(value)}'"
    if type(value) is int:
        return str(value)
    if type(value) is float:
        return _double(value)
    if value is None:
        return "NULL"
    raise TypeError(type(value))


def row_literals(rows: Sequence[tuple[Any, ...]], *, max_bytes: int) -> Iterator[RowLiterals]:
    """Format rows in pieces for a statement each.

    Equal to formatting each value as ``literal`` does, in less than half of the time.

    Args:
        rows: the rows, of any number.
        max_bytes: size of a piece, which its last ``_SLICE`` rows may exceed.
    """
    parts: list[str] = []
    count = size = 0
    for start in range(0, len(rows), _SLICE):
        part = rows[start : start + _SLICE]
        text = _alike(part) or ",".join([f"({','.join(map(literal, row))})" for row in part])
        parts.append(text)
        count += len(part)
        size += len(text) if text.isascii() else 4 * len(text)
        if size >= max_bytes:
            yield RowLiterals(count, ",".join(parts))
            parts, count, size = [], 0, 0
    if parts:
        yield RowLiterals(count, ",".join(parts))


def _alike(rows: Sequence[tuple[Any, ...]]) -> str | None:
    """Format many rows column by column, and escape all texts at once; None where that fails."""
    if len(rows) < _FEW:
        return None
    columns = [_marked(column) for column in zip(*rows, strict=True)]
    lines = map(",".join, zip(*(values for _, values in columns), strict=True))
    sql = f"({'),('.join(lines)})"
    if sql.count(_MARK) != 2 * sum(texts for texts, _ in columns):
        return None
    # In UTF-8, in which a character is found many times as fast as in wide strings.
    data = sql.encode(errors="surrogateescape")
    for character, escaped in _ESCAPES:
        data = data.replace(character, escaped)
    return data.decode(errors="surrogateescape")


def _marked(column: Sequence[Any]) -> tuple[int, Iterable[str]]:
    """Return the number of texts in a column, and its values, with texts unescaped in marks."""
    types = set(map(type, column))
    if types == {float}:
        return 0, map(_double, column)
    if types == {str}:
        return len(column), [f"{_MARK}{text}{_MARK}" for text in column]
    if types == {int}:
        return 0, map(str, column)
    if types == {type(None)}:
        return 0, repeat("NULL", len(column))
    texts = sum(type(value) is str for value in column)
    return texts, [
        f"{_MARK}{each}{_MARK}" if type(each) is str else literal(each) for each in column
    ]


def _double(value: float) -> str:
    # With an exponent it is a double; without one the servers parse it as a decimal.
    text = repr(value)
    return text if "e" in text else f"{text}e0"
