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
from catalog.http.replies.conditional import representation
from catalog.http.replies.reply import Reply
from catalog.observability.metrics import observe_position
from catalog.products import queries
from catalog.products.changes import change_counter, change_ids
from catalog.products.changes.change_ids import ChangeId
from catalog.products.listing.encoded_rows import read_encoded_products
from catalog.products.models import ChangeType


class ProductAt(NamedTuple):
    """Product as JSON members, or None if there is none; and the last change, which it includes."""

    change: ChangeId
    product: dict[str, Any] | None


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
    products: dict[int, dict[str, Any]]
    if has_raw_rows(connection):
        rows = await read_encoded_products(connection, ids)
        change = rows.change
        products = {(product := rows[index])["id"]: product for index in range(len(rows))}
    else:
        change = await change_counter.current_change(connection)
        found = await connection.execute(queries.SOME, {"product_ids": ids})
        products = {row[0]: queries.members_of(row) for row in found}
    return [ProductAt(change, products.get(product_id)) for product_id in ids]


def _rendered(product_id: int, found: ProductAt) -> Reply:
    observe_position(found.change.position)
    headers = change_ids.position_headers(found.change)
    if found.product is None:
        raise NotFound(f"Product {product_id} does not exist.", headers=headers)
    body, etag = representation(found.product)
    headers |= {
        "Cache-Control": "no-cache",
        "ETag": etag,
        change_ids.UNAFFECTED_HEADER: ChangeType.CREATED.value,
    }
    return Reply(body, headers=headers)
