"""SELECTs on products, built but not run."""

from typing import Any

from sqlalchemy import Select, select

from catalog.db.columns import rfc3339
from catalog.products.models import Product

_table = Product.__table__.c

COLUMNS = (
    _table.id,
    _table.name,
    _table.description,
    _table.price,
    _table.user_id,
    _table.version,
    rfc3339(_table.created_at).label("created_at"),
    rfc3339(_table.updated_at).label("updated_at"),
)
"""What a rendered product is made of: plain columns, because a page needs no entities."""

FIELDS = tuple(column.key for column in COLUMNS)
"""The names of the same, in the same order."""


def page(*, limit: int, before_id: int | None, owner_id: int | None) -> Select[Any]:
    """Products newest first, one more than asked for, which tells whether there is a next page.

    Seeks to its place by key instead of counting rows from the start, so that a page costs the
    same at any depth.

    Args:
        limit: products on the page.
        before_id: the last product of the page before; need not exist any more.
        owner_id: whose; None for everyone's.
    """
    statement = select(*COLUMNS).order_by(_table.id.desc()).limit(limit + 1)
    if before_id is not None:
        statement = statement.where(_table.id < before_id)
    if owner_id is not None:
        statement = statement.where(_table.user_id == owner_id)
    return statement
