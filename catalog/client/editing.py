"""Changes of products that overwrite nothing: conditional on what was read, and merged."""

from collections.abc import Awaitable, Callable

from catalog.client.errors import PreconditionFailed
from catalog.client.models import Product, ProductChanges

Merge = Callable[[Product], ProductChanges | None]
"""Call-back that decides what to change in a product that was changed meanwhile; None gives up."""


async def change_as_read(
    get: Callable[[int], Awaitable[Product]],
    change: Callable[[int, ProductChanges, str | None], Awaitable[Product]],
    product: Product,
    changes: ProductChanges,
    merge: Merge | None,
) -> Product:
    """Change a product, unless it was changed since it was read; see ``AsyncClient.update``.

    Args:
        get: reads a product.
        change: changes a product that has an entity tag.
        product: the product as it was read.
        changes: the fields to change.
        merge: returns what to change in the product as it is now.

    Raises:
        PreconditionFailed: it was changed, and there is no ``merge`` or it gave up.
    """
    while True:
        # Lists have no entity tags.
        read = product if product.etag is not None else await get(product.id)
        try:
            if read.version != product.version:
                raise _changed_meanwhile(read)
            return await change(read.id, changes, read.etag)
        except PreconditionFailed as error:
            current = error.current
            if current is None or current.etag is None:
                current = await get(read.id)
            if error.was_repeated and _is_outcome(current, product.version, changes):
                # The response to the first attempt was lost.
                return current
            merged = merge(current) if merge is not None else None
            if merged is None:
                raise
        product, changes = current, merged


def _changed_meanwhile(current: Product) -> PreconditionFailed:
    detail = f"Product {current.id} was changed after it was read."
    return PreconditionFailed(412, {"code": "precondition-failed", "detail": detail}, None)


def _is_outcome(current: Product, version: int, changes: ProductChanges) -> bool:
    """Return whether a product is as these changes, applied to that version, have left it."""
    is_next = current.version == version + 1
    return is_next and all(getattr(current, name) == value for name, value in changes.items())
