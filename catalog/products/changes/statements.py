"""SELECT statements on the change log with its products, as columns or as one text per change."""

from typing import Any

from sqlalchemy import ColumnElement, Integer, bindparam, case, func, select
from sqlalchemy.orm import aliased

from catalog.db.columns import Id, rfc3339
from catalog.products import queries
from catalog.products.models import ChangeType, Product, ProductChange
from catalog.products.product_encoding import NUL, concatenated, constant, encoded, plain

_log = ProductChange.__table__.c

# Token of the change at ``since``, to check that it is of this history; null if it was swept.
_before = aliased(ProductChange)
_TOKEN_BEFORE = (
    select(_before.token)
    .where(_before.position == bindparam("since", type_=Id))
    .scalar_subquery()
    .label("token_before")
)
OWN_COLUMNS = (
    *(_log.position, _log.token, _TOKEN_BEFORE),
    *(_log.type, _log.product_id, _log.version, rfc3339(_log.at)),
)

_NEXT = (
    select(_log.position, _log.product_id)
    .where(_log.position > bindparam("since", type_=Id))
    .order_by(_log.position)
    .limit(bindparam("limit", type_=Integer))
    .subquery("next")
)
_BYTES_BEFORE = func.sum(queries.TEXT_BYTES).over(order_by=_NEXT.c.position, rows=(None, -1))
_SIZED = (
    select(_NEXT.c.position, _BYTES_BEFORE.label("bytes_before"))
    .outerjoin_from(_NEXT, Product, Product.id == _NEXT.c.product_id)
    .subquery("sized")
)
FOLLOWING = (
    select(*OWN_COLUMNS, *queries.COLUMNS)
    .join_from(_SIZED, ProductChange, _log.position == _SIZED.c.position)
    .outerjoin(Product, Product.id == _log.product_id)
    .where(func.coalesce(_SIZED.c.bytes_before, 0) <= bindparam("max_bytes", type_=Integer))
    .order_by(_log.position)
    # There are no more, but without a LIMIT a UNION may drop the order.
    .limit(bindparam("limit", type_=Integer))
)
"""Changes and their products, up to ``max_bytes`` of texts, and the change that exceeds them.

Takes ``since``, ``limit`` and ``max_bytes``.
"""

FEW_FOLLOWING = (
    select(*OWN_COLUMNS, *queries.COLUMNS)
    .outerjoin_from(ProductChange, Product, _log.product_id == Product.id)
    .where(_log.position > bindparam("since", type_=Id))
    .order_by(_log.position)
    .limit(bindparam("limit", type_=Integer))
)
"""As ``FOLLOWING`` without a bound, for ``queries.FEW_ROWS``; takes ``since`` and ``limit``."""


def _text() -> ColumnElement[str]:
    """Return the text of a change: five values, separated by NUL.

    They are: its position; its token; a dot and the token of the change at ``since``, or nothing
    if that was swept; the members of its JSON between position and product; and the product's text,
    or nothing if it was deleted. Together they are shorter than the JSON of the change.
    """
    before = _if_any(concatenated([".", _TOKEN_BEFORE]))
    parts: list[str | ColumnElement[Any]] = [_log.position, NUL, _log.token, NUL, before, NUL]
    parts += ',"type":"', _log.type, '","id":', _log.product_id, ',"version":', _log.version
    parts += ',"at":', *plain(_log.at)
    is_deleted = _log.type == ChangeType.DELETED.value
    parts += NUL, case((is_deleted, constant("")), else_=_if_any(encoded()))
    return concatenated(parts)


def _if_any(text: ColumnElement[str]) -> ColumnElement[str]:
    return func.ifnull(text, constant(""))


FOLLOWING_TEXTS = FOLLOWING.with_only_columns(_text())
"""``FOLLOWING`` with one text per change."""

FEW_FOLLOWING_TEXTS = FEW_FOLLOWING.with_only_columns(_text())
"""``FEW_FOLLOWING`` with one text per change."""
