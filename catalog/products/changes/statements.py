"""SELECT statements on the change log with its products, as columns or as one text per change."""

from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, bindparam, case, func, or_, select
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


def _text(before: ColumnElement[str]) -> ColumnElement[str]:
    """Return the text of a change: five values, separated by NUL.

    They are: its position; its token; the given one; the members of its JSON between position and
    product; and the product's text, or nothing if it was deleted. Together they are shorter than
    the JSON of the change.
    """
    parts: list[str | ColumnElement[Any]] = [_log.position, NUL, _log.token, NUL, before, NUL]
    parts += ',"type":"', _log.type, '","id":', _log.product_id, ',"version":', _log.version
    parts += ',"at":', *plain(_log.at)
    is_deleted = _log.type == ChangeType.DELETED.value
    parts += NUL, case((is_deleted, constant("")), else_=_if_any(encoded()))
    return concatenated(parts)


def _if_any(text: ColumnElement[str]) -> ColumnElement[str]:
    return func.ifnull(text, constant(""))


FOLLOWING_TEXTS = FOLLOWING.with_only_columns(_text(_if_any(concatenated([".", _TOKEN_BEFORE]))))
"""``FOLLOWING`` with one text per change, whose third value is a dot and the token of the change at
``since``, or nothing if that was swept."""


@cache
def texts_in_ranges(count: int) -> Select[*tuple[Any, ...]]:
    """Return the statement for the changes in so many ranges of positions, with a text each.

    A database takes longer to parse and plan a statement than to find twenty changes, so the
    changes for several requests are one statement without a subquery. It takes ``first_0`` and
    ``last_0``, ``first_1`` and ``last_1``, and so on. The texts' third value is the change's own
    token, so that they are as long as those of ``FOLLOWING_TEXTS`` and pages end at the same one.
    """
    ranges = [
        _log.position.between(
            bindparam(f"first_{number}", type_=Id), bindparam(f"last_{number}", type_=Id)
        )
        for number in range(count)
    ]
    return (
        select(_text(_if_any(concatenated([".", _log.token]))))
        .outerjoin_from(ProductChange, Product, _log.product_id == Product.id)
        .where(or_(*ranges))
        .order_by(_log.position)
    )
