"""Text of a product, written by MySQL and MariaDB and converted to JSON in bulk.

With the Python driver, decoding rows costs several times as much as reading them costs the
database: every value is a step in Python. So the database writes a product's JSON. Values that it
cannot write are separated by NUL, which no value can contain, and converted column by column.

SQLite's driver is written in C and does not need this.
"""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Column, ColumnElement, func, inspect, literal_column

from catalog.db.columns import Timestamp
from catalog.products.models import Product
from catalog.products.queries import FIELDS

SEPARATOR = b"\0"
"""Byte between values that are converted."""

NUL = r"\0"
"""The same in an SQL literal."""

_TEXTS = ("name", "description", "key")
_CONVERTED = ("name", "description", "price", "key")
"""Fields whose values the database cannot write as JSON; they are next to each other."""

_BEGINNING = b',{"id":'
_BEFORE = FIELDS[: FIELDS.index(_CONVERTED[0])]
_BEHIND = FIELDS[FIELDS.index(_CONVERTED[-1]) + 1 :]


def encoded() -> ColumnElement[str]:
    """Return the text of a product: its JSON, but for the names of most converted fields.

    Their values are separated. Texts among them are in quotes, and null is ``null``.
    """
    columns = {name: inspect(Product).columns[name] for name in FIELDS}
    parts: list[str | ColumnElement[Any]] = [",{"]
    for name in _BEFORE:
        parts += f'"{name}":', *plain(columns[name]), ","
    parts.append(f'"{_CONVERTED[0]}":')
    for name in _CONVERTED:
        parts += NUL, _quoted(columns[name]) if name in _TEXTS else columns[name]
    parts.append(NUL)
    for name in _BEHIND:
        parts += f',"{name}":', *plain(columns[name])
    parts.append("}")
    return concatenated(parts)


def _quoted(column: Column[Any]) -> ColumnElement[Any]:
    quoted = concatenated(['"', column, '"'])
    return func.ifnull(quoted, constant("null")) if column.nullable else quoted


def plain(column: ColumnElement[Any]) -> Sequence[str | ColumnElement[Any]]:
    """Return the parts of a number or an instant for ``concatenated``.

    An instant is in quotes, and has a space instead of ``T``.
    """
    return ('"', column, 'Z"') if isinstance(column.type, Timestamp) else (column,)


def concatenated(parts: Sequence[str | ColumnElement[Any]]) -> ColumnElement[str]:
    """Concatenate columns and constants, those that follow each other as one."""
    texts: list[ColumnElement[Any]] = []
    literal = ""
    for part in parts:
        if isinstance(part, str):
            literal += part
        else:
            texts += constant(literal), part
            literal = ""
    # ``CONCAT`` is faster than ``CONCAT_WS``.
    return func.concat(*texts, constant(literal))


def constant(text: str) -> ColumnElement[str]:
    """Return a text without quotes as an SQL literal."""
    # A text and not bytes, for which the servers take a fifth longer.
    return literal_column(f"'{text}'")


def id_of(text: bytes) -> int:
    """Return the id of a product, which its text begins with."""
    return int(text[len(_BEGINNING) : text.index(b",", len(_BEGINNING))])


_VERSION = b'"version":'


def version_of(json_object: bytes) -> int:
    """Return the version of a product, given by its JSON object.

    No text in it contains the name: its quotes would be escaped.
    """
    at = json_object.rindex(_VERSION) + len(_VERSION)
    return int(json_object[at : json_object.index(b",", at)])


_NAMES = [f',"{name}":'.encode() for name in _CONVERTED[1:]]
_FORM = [b"", b"", *(part for name in _NAMES for part in (name, b"")), b""]
"""Parts of a product's JSON: its beginning, converted values with names between them, its end."""


def json_array(products: Sequence[bytes]) -> bytes:
    """Return the JSON array of products, given by their texts."""
    return b"[%b]" % b"".join(_parts(products))[1:]


def json_objects(products: Sequence[bytes]) -> list[bytes]:
    """Return the JSON object of each product, given by their texts."""
    parts, width = _parts(products), len(_FORM)
    return [b"".join(parts[at : at + width])[1:] for at in range(0, len(parts), width)]


def _parts(products: Sequence[bytes]) -> list[bytes]:
    """Return the parts of the JSON of products as in ``_FORM``, each behind a comma."""
    if not products:
        return []
    values = SEPARATOR.join(products).split(SEPARATOR)
    width = len(_CONVERTED) + 2
    parts = _FORM * len(products)
    parts[:: len(_FORM)] = values[::width]
    # Column by column, which is faster than product by product.
    for place, name in enumerate(_CONVERTED):
        column = values[place + 1 :: width]
        converted = _texts(column) if name in _TEXTS else _prices(column)
        parts[2 * place + 1 :: len(_FORM)] = converted
    # No other spaces than those in instants.
    ends = SEPARATOR.join(values[width - 1 :: width]).replace(b" ", b"T")
    parts[len(_FORM) - 1 :: len(_FORM)] = ends.split(SEPARATOR)
    return parts


def _texts(column: list[bytes]) -> list[bytes]:
    """Return quoted texts, or null, as JSON: as they are unless characters must be escaped."""
    quotes = 2 * (len(column) - column.count(b"null"))
    if not quotes:
        return column
    joined = SEPARATOR.join(column)
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
