"""Reader of single products: those that are requested together take one round trip.

A request joins only a read that begins after it, so the product includes every write that was
acknowledged before.
"""

from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple

import orjson

from catalog.db.batch_reader import batch_reader
from catalog.db.database import Database
from catalog.db.raw_rows import has_raw_rows
from catalog.db.read_connection import ReadConnection
from catalog.errors import NotFound
from catalog.http.replies.conditional import etag_of
from catalog.http.replies.reply import Reply
from catalog.observability.metrics import observe_position
from catalog.products import queries
from catalog.products.changes import change_counter, change_ids
from catalog.products.changes.change_ids import ChangeId
from catalog.products.listing.encoded_rows import read_encoded_products
from catalog.products.models import ChangeType
from catalog.products.product_encoding import version_of


class ProductAt(NamedTuple):
    """Product, and the last change that it includes.

    Attributes:
        change: that change.
        body: the product as a JSON object; empty if there is none.
        version: its version, for the entity tag.
    """

    change: ChangeId
    body: bytes = b""
    version: int = 0


class ProductReader:
    """Reader and renderer of single products; one per process."""

    def __init__(self, database: Database) -> None:
        self._loader = batch_reader(database, read_products, _rendered)

    def read(self, product_id: int) -> Coroutine[Any, Any, Reply]:
        """Return the response with a product, its entity tag, and the last change.

        Raises:
            NotFound: no product has that id; the error's headers carry the change.
            DatabaseUnavailable, DatabaseBusy: as ``Database.connection``.
        """
        return self._loader.load(product_id, product_id)


async def read_products(connection: ReadConnection, ids: Sequence[int]) -> list[ProductAt]:
    """Read products, on a server in one round trip."""
    products: dict[int, ProductAt] = {}
    if has_raw_rows(connection):
        rows = await read_encoded_products(connection, ids)
        change = rows.change
        for index, body in enumerate(rows.objects(len(rows))):
            products[rows.id_of(index)] = ProductAt(change, body, version_of(body))
    else:
        change = await change_counter.current_change(connection)
        for row in await connection.execute(queries.SOME, {"product_ids": ids}):
            members = queries.members_of(row)
            body, version = orjson.dumps(members), members["version"]
            products[members["id"]] = ProductAt(change, body, version)
    missing = ProductAt(change)
    return [products.get(product_id, missing) for product_id in ids]


def _rendered(product_id: int, found: ProductAt) -> Reply:
    observe_position(found.change.position)
    headers = change_ids.position_headers(found.change)
    if not found.body:
        raise NotFound(f"Product {product_id} does not exist.", headers=headers)
    headers |= {
        "Cache-Control": "no-cache",
        "ETag": etag_of(found.body, version=found.version),
        change_ids.UNAFFECTED_HEADER: ChangeType.CREATED.value,
    }
    return Reply(found.body, headers=headers)
