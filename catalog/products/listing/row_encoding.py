"""Row encoding for MySQL and MariaDB: one text per product, converted to JSON in bulk.

With the Python driver, decoding a page's rows costs several times as much as reading them costs the
database: every value is a step in Python. So the database concatenates a product's values into one
text, separated by NUL, which no value can contain, and the texts are escaped all at once. The last
change is read from the same snapshot, and any number of pages takes one round trip.

SQLite's driver is written in C and does not need this.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Select, bindparam, func, inspect, literal_column, select

from catalog.db.columns import Id
from catalog.db.raw_rows import TextQuery, read_texts
from catalog.db.read_connection import ReadConnection
from catalog.products import queries
from catalog.products.changes.change_log import HEAD, parse_head
from catalog.products.models import ChangeId, Product
from catalog.products.queries import FIELDS
from catalog.products.schemas import Sort

_SEPARATOR = "\0"
# A text and not bytes, for which the servers take a fifth longer; joined by ``CONCAT``, which is
# faster than ``CONCAT_WS``.
_NUL: ColumnElement[str] = literal_column("'\\0'")


@cache
def page(
    *, sort: Sort, filters: frozenset[str], resumed: bool, bounded: bool = False
) -> Select[Any]:
    """Build ``queries.page`` or ``queries.bounded_page`` with one encoded text per product."""
    make = queries.bounded_page if bounded else queries.page
    found = make(sort=sort, filters=filters, resumed=resumed)
    return found.with_only_columns(_encoded())


def _encoded() -> ColumnElement[str]:
    """Return the text of a product."""
    # Null is encoded as an empty text, and a value of a nullable column with a prefix of one
    # character. Instants have the servers' own format.
    columns = inspect(Product).columns
    texts: list[ColumnElement[Any]] = [
        func.ifnull(func.concat("=", columns[name]), "") if name in _NULLABLE else columns[name]
        for name in FIELDS
    ]
    separated = [each for text in texts for each in (text, _NUL)][:-1]
    return func.concat(*separated)


_LONGEST_ESCAPE = 6
_BESIDES_TEXT = 400
"""Bytes of a product's JSON besides its texts: names of fields, numbers and instants."""


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
        texts = self._texts[index].decode().split(_SEPARATOR)
        product: dict[str, Any] = dict(zip(FIELDS, texts, strict=True))
        for field in _NULLABLE:
            product[field] = product[field][1:] if product[field] else None
        product["price"] = float(product["price"])
        for field in ("id", "user_id", "version"):
            product[field] = int(product[field])
        for field in _INSTANTS:
            product[field] = product[field].replace(" ", "T") + "Z"
        return product

    def json(self, count: int, fields: Sequence[str] | None = None) -> bytes:
        """Encode the first ``count`` products, or all if there are fewer, as a JSON array.

        Args:
            count: the maximum number of products.
            fields: the fields to include of each; None for all.
        """
        count = min(count, len(self))
        width = len(FIELDS)
        texts = _escaped(b"\0".join(self._texts[:count]).decode()) if count else []
        for place in _NULLABLE_PLACES:
            nullable = texts[place::width]
            texts[place::width] = [b'"%b"' % text[1:] if text else b"null" for text in nullable]
        for place in _INSTANT_PLACES:
            # Replacing in bulk is faster than one by one; an instant contains no other space.
            instants = _SEPARATOR.encode().join(texts[place::width]).replace(b" ", b"T")
            texts[place::width] = instants.split(_SEPARATOR.encode())[:count]
        # Doubles are formatted by the JSON library, and not as the database does it.
        prices = orjson.dumps(list(map(float, texts[3::width])))[1:-1]
        texts[3::width] = prices.split(b",") if count else []
        if fields is not None:
            chosen = [b""] * (count * len(fields))
            for place, field in enumerate(fields):
                chosen[place :: len(fields)] = texts[FIELDS.index(field) :: width]
            texts = chosen
        return _template(tuple(FIELDS if fields is None else fields), count) % tuple(texts)


def _escaped(text: str) -> list[bytes]:
    """Escape values for JSON, without quotes."""
    if "\\" in text:
        # An escaped separator would be indistinguishable from a literal "\u0000" in a text.
        return [orjson.dumps(each)[1:-1] for each in text.split(_SEPARATOR)]
    return orjson.dumps(text)[1:-1].split(b"\\u0000")


_NULLABLE = ("description", "key")
# Fields without quotes in the template: numbers, and what is null or has its own.
_BARE = {"id", "price", "user_id", "version", *_NULLABLE}

_TEXT = '"%b"'

_NULLABLE_PLACES = tuple(map(FIELDS.index, _NULLABLE))
_INSTANTS = ("created_at", "updated_at")
_INSTANT_PLACES = tuple(map(FIELDS.index, _INSTANTS))


@lru_cache(64)
def _template(fields: tuple[str, ...], count: int) -> bytes:
    forms = {**dict.fromkeys(_BARE, "%b"), **dict.fromkeys(_INSTANTS, '"%bZ"')}
    members = (f'"{name}":{forms.get(name, _TEXT)}' for name in fields)
    product = "{" + ",".join(members) + "}"
    return f"[{','.join([product] * count)}]".encode()
