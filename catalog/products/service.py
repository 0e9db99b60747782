"""The rules of products: who may do what to which."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, delete, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth.models import Role
from catalog.auth.service import require_account
from catalog.db.columns import now, rfc3339_text
from catalog.db.statements import affected_rows
from catalog.errors import Conflict, Forbidden, NotFound, PreconditionFailed
from catalog.products import queries
from catalog.products.models import Product
from catalog.products.queries import Position, Selection

IsExpected = Callable[[dict[str, Any]], bool]
"""Tells whether a product, ready to render, is as the caller thinks."""


class Page(NamedTuple):
    """Products, ready to render, and the place after which the next page begins, if there is one.

    ``total`` is how many there are on all pages, where that was asked for.
    """

    products: list[dict[str, Any]]
    last: Position | None
    total: int | None = None


async def list_products(
    connection: AsyncConnection,
    *,
    selection: Selection,
    after: Position | None,
    limit: int,
    count: bool = False,
) -> Page:
    """One page of a selection.

    Args:
        connection: where to read.
        selection: which products, in which order.
        after: the place behind which the page begins; None for the first page.
        limit: products on the page.
        count: whether to count those on all pages, too.
    """
    filters = selection.filters
    statement = queries.page(sort=selection.sort, filters=filters, resumed=after is not None)
    # One row more than asked for tells whether there is a next page.
    values = {**selection.values, "limit": limit + 1}
    if after is not None:
        values |= selection.values_after(after)
    rows: Sequence[Any] = (await connection.execute(statement, values)).all()
    products = [dict(zip(queries.FIELDS, row, strict=True)) for row in rows[:limit]]
    last = selection.position_of(products[-1]) if len(rows) > limit else None
    total = None
    if count:
        total = await connection.scalar(queries.count(filters=filters), selection.values)
    return Page(products, last, total)


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


async def read_product(
    connection: AsyncConnection | AsyncSession, *, product_id: int
) -> dict[str, Any]:
    """One product, ready to render.

    Raises:
        NotFound: there is none of that id.
    """
    return await _read(connection, queries.ONE, product_id)


async def change_product(
    session: AsyncSession,
    *,
    product_id: int,
    changes: dict[str, Any],
    caller_id: int,
    is_expected: IsExpected | None = None,
) -> dict[str, Any]:
    """Change some fields of a product that the caller owns; an administrator may change any.

    A change to what is there already is none, and leaves the version as it is.

    Args:
        session: the transaction.
        product_id: which product.
        changes: the fields and their new values.
        caller_id: whose account asks.
        is_expected: whether the product is as the caller thinks; None when it may be anything.

    Returns:
        the product as it is now, ready to render.

    Raises:
        AccountUnavailable: the caller's account is disabled or gone.
        NotFound: there is no such product.
        Forbidden: it belongs to someone else.
        PreconditionFailed: it is not as expected.
    """
    product = await _lock(session, product_id, caller_id, is_expected)
    if all(product[field] == value for field, value in changes.items()):
        return product
    values = {**changes, "version": product["version"] + 1, "updated_at": now()}
    change = update(Product).where(*_is_still(product)).values(values)
    if await affected_rows(session, change) == 0:
        raise Conflict("Another request changed the product at the same time.")
    return await read_product(session, product_id=product_id)


async def delete_product(
    session: AsyncSession,
    *,
    product_id: int,
    caller_id: int,
    is_expected: IsExpected | None = None,
) -> None:
    """Withdraw a product that the caller owns; an administrator may withdraw any.

    Args:
        session: the transaction.
        product_id: which product.
        caller_id: whose account asks.
        is_expected: whether the product is as the caller thinks; None when it may be anything.

    Raises:
        AccountUnavailable: the caller's account is disabled or gone.
        NotFound: there is no such product, or another request withdrew it first.
        Forbidden: it belongs to someone else.
        PreconditionFailed: it is not as expected.
    """
    product = await _lock(session, product_id, caller_id, is_expected)
    if await affected_rows(session, delete(Product).where(*_is_still(product))) == 0:
        raise Conflict("Another request changed the product at the same time.")


async def _lock(
    session: AsyncSession, product_id: int, caller_id: int, is_expected: IsExpected | None
) -> dict[str, Any]:
    """The product, if the caller may change it now; nobody else can until the transaction ends."""
    role = await require_account(session, user_id=caller_id)
    product = await _read(session, queries.ONE_LOCKED, product_id)
    if product["user_id"] != caller_id and role is not Role.ADMIN:
        raise Forbidden("Only its owner may change or withdraw a product.")
    if is_expected is not None and not is_expected(product):
        raise PreconditionFailed(current=product)
    return product


async def _read(
    connection: AsyncConnection | AsyncSession, statement: Select[Any], product_id: int
) -> dict[str, Any]:
    row = (await connection.execute(statement, {"product_id": product_id})).one_or_none()
    if row is None:
        raise NotFound(f"Product {product_id} does not exist.")
    return dict(zip(queries.FIELDS, row, strict=True))


def _is_still(product: dict[str, Any]) -> tuple[ColumnElement[bool], ...]:
    """The version once more, although the row is locked: an engine may ignore the lock."""
    return Product.id == product["id"], Product.version == product["version"]


def _rendered(product: Product) -> dict[str, Any]:
    values = {field: getattr(product, field) for field in queries.FIELDS}
    return {
        field: rfc3339_text(value) if isinstance(value, datetime) else value
        for field, value in values.items()
    }
