"""The rules of products: who may do what to which."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import CursorResult, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth.models import Role
from catalog.auth.service import require_account
from catalog.db.columns import now, rfc3339_text
from catalog.errors import Forbidden, NotFound
from catalog.products import queries
from catalog.products.models import Product


class Page(NamedTuple):
    """Products, ready to render, and the id after which the next page begins, if there is one."""

    products: list[dict[str, Any]]
    last_id: int | None


async def list_products(
    connection: AsyncConnection, *, limit: int, before_id: int | None, owner_id: int | None = None
) -> Page:
    """One page, newest first; of one owner or of all."""
    statement = queries.page(resumed=before_id is not None, owned=owner_id is not None)
    # One row more than asked for tells whether there is a next page.
    values = {"limit": limit + 1, "before_id": before_id, "owner_id": owner_id}
    rows: Sequence[Any] = (await connection.execute(statement, values)).all()
    products = [dict(zip(queries.FIELDS, row, strict=True)) for row in rows[:limit]]
    return Page(products, products[-1]["id"] if len(rows) > limit else None)


async def create_product(
    session: AsyncSession, *, name: str, price: float, description: str | None, caller_id: int
) -> dict[str, Any]:
    """Offer a product.

    Returns:
        the product, ready to render.

    Raises:
        AccountUnavailable: the caller's account is disabled or gone.
    """
    await require_account(session, user_id=caller_id)
    created_at = now()
    product = Product(
        name=name,
        price=price,
        description=description,
        user_id=caller_id,
        created_at=created_at,
        updated_at=created_at,
    )
    session.add(product)
    await session.flush()
    return _rendered(product)


async def delete_product(session: AsyncSession, *, product_id: int, caller_id: int) -> None:
    """Withdraw a product that the caller owns; an administrator may withdraw any.

    Raises:
        AccountUnavailable: the caller's account is disabled or gone.
        NotFound: there is no such product, or another request withdrew it first.
        Forbidden: it belongs to someone else.
    """
    role = await require_account(session, user_id=caller_id)
    # One statement decides and deletes, so of two concurrent requests only one wins.
    theirs = delete(Product).where(Product.id == product_id)
    if role is not Role.ADMIN:
        theirs = theirs.where(Product.user_id == caller_id)
    result = await session.execute(theirs)
    assert isinstance(result, CursorResult)  # noqa: S101 (what a DELETE returns; tells mypy)
    if result.rowcount == 0:
        owner = await session.scalar(select(Product.user_id).where(Product.id == product_id))
        if owner is None or owner == caller_id:
            raise NotFound(f"Product {product_id} does not exist.")
        raise Forbidden("Only its owner may withdraw a product.")


def _rendered(product: Product) -> dict[str, Any]:
    values = {field: getattr(product, field) for field in queries.FIELDS}
    return {
        field: rfc3339_text(value) if isinstance(value, datetime) else value
        for field, value in values.items()
    }
