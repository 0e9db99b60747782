"""Keys of products: names that clients give them, unique among the products of an owner."""

from collections.abc import Collection

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.errors import DuplicateValue, FieldError
from catalog.products.models import Product

OwnedKey = tuple[int, str]
"""An owner's id, and a key."""

TAKEN = "is taken by another product of the same owner"


async def find_holders(session: AsyncSession, keys: Collection[OwnedKey]) -> dict[OwnedKey, int]:
    """Return the ids of the products that have some keys."""
    if not keys:
        return {}
    columns = tuple_(Product.key, Product.user_id)
    names = [(key, owner_id) for owner_id, key in sorted(keys)]
    rows = await session.execute(
        select(Product.user_id, Product.key, Product.id).where(columns.in_(names))
    )
    return {(owner_id, str(key)): product_id for owner_id, key, product_id in rows}


class KeyClaims:
    """Keys that the writes of a transaction claim, one after the other.

    A key that a product has when the transaction begins stays taken until it ends, even if the
    product gives it up, because the statements do not run in the order of the writes.

    Args:
        holders: ids of the products that have keys which are going to be claimed.
    """

    def __init__(self, holders: dict[OwnedKey, int]) -> None:
        self._holders: dict[OwnedKey, int | None] = {**holders}

    def claim(self, owner_id: int, key: str | None, product_id: int | None) -> None:
        """Claim a key for a product; None for one that has no id yet.

        Raises:
            DuplicateValue: another product of the owner has it, or has claimed it.
        """
        if key is None:
            return
        name = owner_id, key
        if name not in self._holders:
            self._holders[name] = product_id
        elif product_id is None or self._holders[name] != product_id:
            raise DuplicateValue(errors=[FieldError("pointer", "/key", TAKEN)])
