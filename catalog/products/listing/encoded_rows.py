"""Encoded rows: on MySQL and MariaDB, products are read as the texts of ``product_encoding``.

The last change is read from the same snapshot, and any number of pages takes one round trip.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import orjson
from sqlalchemy import Select, bindparam, select

from catalog.db.columns import Id
from catalog.db.raw_rows import TextQuery, read_texts
from catalog.db.read_connection import ReadConnection
from catalog.products import queries
from catalog.products.changes.change_counter import HEAD, parse_head
from catalog.products.changes.change_ids import ChangeId
from catalog.products.listing.page_rows import with_fields
from catalog.products.models import Product
from catalog.products.product_encoding import encoded, id_of, json_array, json_objects
from catalog.products.schemas import Sort


@cache
def encoded_page(
    *, sort: Sort, filters: frozenset[str], resumed: bool, bounded: bool = False
) -> Select[Any]:
    """Build ``queries.page`` or ``queries.bounded_page`` with one encoded text per product."""
    make = queries.bounded_page if bounded else queries.page
    found = make(sort=sort, filters=filters, resumed=resumed)
    return found.with_only_columns(encoded())


_LONGEST_ESCAPE = 6
_BESIDES_TEXT = 100
"""Bytes of a product's JSON besides its encoded text: names of converted fields, and a fraction."""


async def read_encoded_pages(
    connection: ReadConnection, pages: Sequence[TextQuery]
) -> "list[EncodedRows]":
    """Run statements built by ``encoded_page``, in one round trip if possible.

    Each result ends with the product that exceeds ``queries.PAGE_BYTES``, if one does.
    """
    max_bytes = queries.PAGE_BYTES
    head, *found = await read_texts(connection, HEAD, *pages, max_bytes=max_bytes)
    parsed = parse_head(head)
    return [EncodedRows(parsed.change, texts, settled_id=parsed.settled_id) for texts in found]


@cache
def _encoded_products(count: int) -> Select[Any]:
    table = Product.__table__.c
    ids = [bindparam(f"id_{number}", type_=Id) for number in range(count)]
    return select(encoded()).where(table.id.in_(ids))


async def read_encoded_products(connection: ReadConnection, ids: Sequence[int]) -> "EncodedRows":
    """Read products by their ids, in no order, in one round trip."""
    # Few statements, whose SQL is cached: the number of ids is rounded up by repeating the last.
    count = 1 << (len(ids) - 1).bit_length()
    values = {f"id_{number}": ids[min(number, len(ids) - 1)] for number in range(count)}
    head, found = await read_texts(connection, HEAD, TextQuery(_encoded_products(count), values))
    return EncodedRows(parse_head(head).change, found)


class EncodedRows:
    """Products as encoded texts; implements ``PageRows``.

    Attributes:
        change: the last change included in the products, with all before it.
        settled_id: the id up to which no more products are created.
    """

    def __init__(self, change: ChangeId, texts: Sequence[bytes], *, settled_id: int = 0) -> None:
        self.change = change
        self.settled_id = settled_id
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
        product: dict[str, Any] = orjson.loads(json_array([self._texts[index]]))[0]
        return product

    def id_of(self, index: int) -> int:
        """Return the id of one product."""
        return id_of(self._texts[index])

    def objects(self, count: int) -> list[bytes]:
        """Return the JSON objects of the first ``count`` products."""
        return json_objects(self._texts[:count])

    def json(self, count: int, fields: Sequence[str] | None = None) -> bytes:
        """Encode the first ``count`` products, or all if there are fewer, as a JSON array.

        Args:
            count: the maximum number of products.
            fields: the fields to include of each; None for all.
        """
        array = json_array(self._texts[:count])
        return array if fields is None else with_fields(array, fields)
