"""Reader of single products: those that are requested together take one round trip.

A request joins only a read that begins after it, so the product includes every write that was
acknowledged before.
"""

from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple

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
from catalog.products.listing.page_rows import DecodedRows, PageRows
from catalog.products.models import ChangeType
from catalog.products.product_encoding import version_of


class ProductAt(NamedTuple):
    """Product as a JSON object, empty if there is none; and the last change, which it includes."""

    change: ChangeId
    body: bytes


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
    rows: PageRows
    if has_raw_rows(connection):
        rows = encoded = await read_encoded_products(connection, ids)
        change = encoded.change
    else:
        change = await change_counter.current_change(connection)
        found = await connection.execute(queries.SOME, {"product_ids": ids})
        rows = DecodedRows(found.all())
    found_ids = map(rows.id_of, range(len(rows)))
    bodies = dict(zip(found_ids, rows.objects(len(rows)), strict=True))
    return [ProductAt(change, bodies.get(product_id, b"")) for product_id in ids]


def _rendered(product_id: int, found: ProductAt) -> Reply:
    observe_position(found.change.position)
    headers = change_ids.position_headers(found.change)
    if not found.body:
        raise NotFound(f"Product {product_id} does not exist.", headers=headers)
    headers |= {
        "Cache-Control": "no-cache",
        "ETag": etag_of(found.body, version=version_of(found.body)),
        change_ids.UNAFFECTED_HEADER: ChangeType.CREATED.value,
    }
    return Reply(found.body, headers=headers)
