"""SELECTs on products, built but not run."""

from functools import cache
from typing import Any

from sqlalchemy import Integer, Select, bindparam, select

from catalog.db.columns import Id, rfc3339
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


@cache
def page(*, resumed: bool, owned: bool) -> Select[Any]:
    """Products newest first; takes ``limit``, and ``before_id`` and ``owner_id`` where asked for.

    Seeks to its place by key instead of counting rows from the start, so that a page costs the
    same at any depth. Built once for each shape, because building it costs a quarter of what
    running it does.

    Args:
        resumed: whether it goes on before a product, which need not exist any more.
        owned: whether it holds one owner's products, or everyone's.
    """
    statement = select(*COLUMNS).order_by(_table.id.desc())
    statement = statement.limit(bindparam("limit", type_=Integer))
    if resumed:
        statement = statement.where(_table.id < bindparam("before_id", type_=Id))
    if owned:
        statement = statement.where(_table.user_id == bindparam("owner_id", type_=Id))
    return statement


ONE = select(*COLUMNS).where(_table.id == bindparam("product_id", type_=Id))
"""A product; takes ``product_id``."""

ONE_LOCKED = ONE.with_for_update(of=Product.__table__)
"""The same, nobody else's to change until the transaction ends."""
