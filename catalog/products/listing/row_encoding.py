"""Row encoding for MySQL and MariaDB: one text per product, converted to JSON in bulk.

With the Python driver, decoding a page's rows costs several times as much as reading them costs the
database: every value is a step in Python. So the database writes a product's JSON. Values that it
cannot write are separated by NUL, which no value can contain, and converted column by column. The
last change is read from the same snapshot, and any number of pages takes one round trip.

SQLite's driver is written in C and does not need this.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import orjson
from sqlalchemy import (
    Column,
    ColumnElement,
    Select,
    bindparam,
    func,
    inspect,
    literal_column,
    select,
)

from catalog.db.columns import Id, Timestamp
from catalog.db.raw_rows import TextQuery, read_texts
from catalog.db.read_connection import ReadConnection
from catalog.products import queries
from catalog.products.changes.change_log import HEAD, parse_head
from catalog.products.models import ChangeId, Product
from catalog.products.queries import FIELDS
from catalog.products.schemas import Sort

_SEPARATOR = b"\0"
_NUL = r"\0"
"""The same in an SQL literal."""

_TEXTS = ("name", "description", "key")
_CONVERTED = ("name", "description", "price", "key")
"""Fields whose values the database cannot write as JSON; they are next to each other."""

_BEGINNING = b',{"id":'
_BEFORE = FIELDS[: FIELDS.index(_CONVERTED[0])]
_BEHIND = FIELDS[FIELDS.index(_CONVERTED[-1]) + 1 :]


@cache
def page(
    *, sort: Sort, filters: frozenset[str], resumed: bool, bounded: bool = False
) -> Select[Any]:
    """Build ``queries.page`` or ``queries.bounded_page`` with one encoded text per product."""
    make = queries.bounded_page if bounded else queries.page
    found = make(sort=sort, filters=filters, resumed=resumed)
    return found.with_only_columns(_encoded())


def _encoded() -> ColumnElement[str]:
    """Return the text of a product: its JSON, but for the names of most converted fields.

    Their values are separated. Texts among them are in quotes, and null is ``null``.
    """
    columns = {name: inspect(Product).columns[name] for name in FIELDS}
    parts: list[str | ColumnElement[Any]] = [",{"]
    for name in _BEFORE:
        parts += f'"{name}":', *_plain(columns[name]), ","
    parts.append(f'"{_CONVERTED[0]}":')
    for name in _CONVERTED:
        parts += _NUL, _quoted(columns[name]) if name in _TEXTS else columns[name]
    parts.append(_NUL)
    for name in _BEHIND:
        parts += f',"{name}":', *_plain(columns[name])
    parts.append("}")
    return _concatenated(parts)


def _quoted(column: Column[Any]) -> ColumnElement[Any]:
    quoted = _concatenated(['"', column, '"'])
    return func.ifnull(quoted, _constant("null")) if column.nullable else quoted


def _plain(column: Column[Any]) -> Sequence[str | ColumnElement[Any]]:
    """Return the parts of a number or an instant, which has a space instead of ``T``."""
    return ('"', column, 'Z"') if isinstance(column.type, Timestamp) else (column,)


def _concatenated(parts: Sequence[str | ColumnElement[Any]]) -> ColumnElement[str]:
    """Concatenate columns and constants, those that follow each other as one."""
    texts: list[ColumnElement[Any]] = []
    constant = ""
    for part in parts:
        if isinstance(part, str):
            constant += part
        else:
            texts += _constant(constant), part
            constant = ""
    # ``CONCAT`` is faster than ``CONCAT_WS``.
    return func.concat(*texts, _constant(constant))


def _constant(text: str) -> ColumnElement[str]:
    # A text and not bytes, for which the servers take a fifth longer.
    return literal_column(f"'{text}'")


_LONGEST_ESCAPE = 6
_BESIDES_TEXT = 100
"""Bytes of a product's JSON besides its encoded text: names of converted fields, and a fraction."""


async def read_pages(connection: ReadConnection, pages: Sequence[TextQuery]) -> "list[EncodedRows]":
    """Run statements built by ``page``, in one round trip if possible.

    Each result ends with the product that exceeds ``queries.PAGE_BYTES``, if one does.
    """
    max_bytes = queries.PAGE_BYTES
    head, *found = await read_texts(connection, HEAD, *pages, max_bytes=max_bytes)
    change = parse_head(head)
    return [EncodedRows(change, texts) for texts in found]


@cache
def _some(count: int) -> Select[Any]:
    table = Product.__table__.c
    ids = [bindparam(f"id_{number}", type_=Id) for number in range(count)]
    return select(_encoded()).where(table.id.in_(ids))


async def read_some(connection: ReadConnection, ids: Sequence[int]) -> "EncodedRows":
    """Read products by their ids, in no order, in one round trip."""
    # Few statements, whose SQL is cached: the number of ids is rounded up by repeating the last.
    count = 1 << (len(ids) - 1).bit_length()
    values = {f"id_{number}": ids[min(number, len(ids) - 1)] for number in range(count)}
    head, found = await read_texts(connection, HEAD, TextQuery(_some(count), values))
    return EncodedRows(parse_head(head), found)


class EncodedRows:
    """Products as encoded texts; implements ``PageRows``.

    Attributes:
        change: the last change included in the products, with all before it.
    """

    def __init__(self, change: ChangeId, texts: Sequence[bytes]) -> None:
        self.change = change
        self._texts = texts

    def __len__(self) -> int:
        """Return the number of products."""
        return len(self._texts)

    @property
    def most_bytes(self) -> int:
        """Upper bound of their size as JSON in bytes."""
        size = _BESIDES_TEXT * len(self._texts)
        length = sum(map(len, self._texts))
        if size + _LONGEST_ESCAPE * length > queries.PAGE_BYTES:
            return size + len(orjson.dumps(b"".join(self._texts).decode()))
        return size + _LONGEST_ESCAPE * length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the JSON members of one product."""
        product: dict[str, Any] = orjson.loads(_array([self._texts[index]]))[0]
        return product

    def id_of(self, index: int) -> int:
        """Return the id of one product, which its text begins with."""
        text = self._texts[index]
        return int(text[len(_BEGINNING) : text.index(b",", len(_BEGINNING))])

    def json(self, count: int, fields: Sequence[str] | None = None) -> bytes:
        """Encode the first ``count`` products, or all if there are fewer, as a JSON array.

        Args:
            count: the maximum number of products.
            fields: the fields to include of each; None for all.
        """
        array = _array(self._texts[:count])
        if fields is None:
            return array
        products = orjson.loads(array)
        return orjson.dumps([{name: product[name] for name in fields} for product in products])


_NAMES = [f',"{name}":'.encode() for name in _CONVERTED[1:]]
_FORM = [b"", b"", *(part for name in _NAMES for part in (name, b"")), b""]
"""Parts of a product's JSON: its beginning, converted values with names between them, its end."""


def _array(products: Sequence[bytes]) -> bytes:
    """Return the JSON array of encoded products."""
    if not products:
        return b"[]"
    values = _SEPARATOR.join(products).split(_SEPARATOR)
    width = len(_CONVERTED) + 2
    parts = _FORM * len(products)
    parts[:: len(_FORM)] = values[::width]
    # Column by column, which is faster than product by product.
    for place, name in enumerate(_CONVERTED):
        column = values[place + 1 :: width]
        converted = _texts(column) if name in _TEXTS else _prices(column)
        parts[2 * place + 1 :: len(_FORM)] = converted
    # No other spaces than those in instants.
    ends = _SEPARATOR.join(values[width - 1 :: width]).replace(b" ", b"T")
    parts[len(_FORM) - 1 :: len(_FORM)] = ends.split(_SEPARATOR)
    return b"[%b]" % b"".join(parts)[1:]


def _texts(column: list[bytes]) -> list[bytes]:
    """Return quoted texts, or null, as JSON: as they are unless characters must be escaped."""
    quotes = 2 * (len(column) - column.count(b"null"))
    if not quotes:
        return column
    joined = _SEPARATOR.join(column)
    # Escaped, each of the quotes takes one byte more, and each separator five.
    size = len(joined) + quotes + 5 * (len(column) - 1) + len('""')
    if joined.count(b'"') == quotes and len(orjson.dumps(joined.decode())) == size:
        return column
    return [text if text == b"null" else orjson.dumps(text[1:-1].decode()) for text in column]


def _prices(column: list[bytes]) -> list[bytes]:
    """Return doubles as the JSON library writes them.

    The servers write the same digits, but small numbers in another notation, and whole ones
    without a fraction.
    """
    joined = b",".join(column)
    if b"e" in joined or b"0.0000" in joined:
        return orjson.dumps(list(map(float, column)))[1:-1].split(b",")
    if joined.count(b".") == len(column):
        return column
    return [text if b"." in text else text + b".0" for text in column]
