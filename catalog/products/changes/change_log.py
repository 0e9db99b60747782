"""Change log: every committed change in commit order, without gaps (docs/adr/0011)."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from typing import NamedTuple, cast

from sqlalchemy import (
    String,
    Table,
    bindparam,
    delete,
    insert,
    literal,
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.db.columns import Id, Timestamp, now
from catalog.db.statements import affected_rows, insert_rows, stored_instant
from catalog.products.changes.change_counter import current_change, take_positions
from catalog.products.changes.change_ids import ChangeId
from catalog.products.models import ChangeType, Product, ProductChange

RETENTION = timedelta(days=30)
"""Time for which changes can be followed: longer than any follower stays away unnoticed."""

_log = ProductChange.__table__.c
_LOG_COLUMNS = ("position", "type", "product_id", "version", "at", "token")

_OLDEST = select(_log.position, _log.at).order_by(_log.position)

# Runs at READ COMMITTED, so the SELECT locks no rows.
_LOG_OF_CREATED = insert(cast("Table", ProductChange.__table__)).from_select(
    list(_LOG_COLUMNS),
    select(
        Product.id + bindparam("offset", type_=Id),
        literal(ChangeType.CREATED.value),
        Product.id,
        Product.version,
        bindparam("at", type_=Timestamp()),
        bindparam("token", type_=String()),
    ).where(Product.id.between(bindparam("first_id", type_=Id), bindparam("last_id", type_=Id))),
)

MANY = 100
"""Changes from which on INSERT … SELECT is cheaper than sending the rows."""


class Logged(NamedTuple):
    """Entry of the log: a change of a product, whose version is the last one if it was deleted."""

    kind: ChangeType
    product_id: int
    version: int


async def record(
    session: AsyncSession, kind: ChangeType, products: Sequence[tuple[int, int]], *, at: datetime
) -> ChangeId:
    """Log changes of one kind, as ``record_all``.

    Args:
        session: the transaction of the changes themselves.
        kind: the type of the changes.
        products: ids and versions: the current ones, or the last ones of deleted products.
        at: the time of the changes.
    """
    return await record_all(session, [Logged(kind, *product) for product in products], at=at)


async def record_all(session: AsyncSession, changes: Sequence[Logged], *, at: datetime) -> ChangeId:
    """Log changes, as the last step of a transaction but for the idempotency keys.

    The change counter is locked from here until the commit. The creation of ``MANY`` products or
    more is copied by the database from their rows.

    Args:
        session: the transaction of the changes themselves.
        changes: the changes.
        at: the time of the changes.

    Returns:
        the last change; they have consecutive positions, in the order given, and one token.
    """
    if not changes:
        # Taking zero positions would still replace the last token, and so begin another history.
        return await current_change(session)
    created = [each.product_id for each in changes if each.kind is ChangeType.CREATED]
    is_addition = len(created) == len(changes)
    if is_addition and _can_be_copied(created):
        return await _copy_created(session, created, at=at)
    last = await take_positions(session, len(changes), created, is_addition=is_addition)
    instant = stored_instant(session, at)
    rows = [
        (position, kind.value, product_id, version, instant, last.token)
        for position, (kind, product_id, version) in enumerate(
            changes, last.position - len(changes) + 1
        )
    ]
    await insert_rows(session, ProductChange, _LOG_COLUMNS, rows)
    return last


async def record_created(
    session: AsyncSession, product_ids: Sequence[int], *, at: datetime
) -> ChangeId:
    """Log the creation of products, as ``record_all``."""
    # Asked first, because an import need not build entries that are copied.
    if _can_be_copied(product_ids):
        return await _copy_created(session, product_ids, at=at)
    created = [(product_id, 1) for product_id in product_ids]
    return await record(session, ChangeType.CREATED, created, at=at)


def _can_be_copied(product_ids: Sequence[int]) -> bool:
    """Tell whether products are many, and the only ones in the range of their ids."""
    ids = list(product_ids)
    # Ids may have gaps, from concurrent inserts or from the step between ids in a cluster.
    return len(ids) >= MANY and ids == list(range(ids[0], ids[-1] + 1))


async def _copy_created(
    session: AsyncSession, product_ids: Sequence[int], *, at: datetime
) -> ChangeId:
    count, first_id, last_id = len(product_ids), product_ids[0], product_ids[-1]
    last = await take_positions(session, count, (first_id, last_id), is_addition=True)
    offset = last.position - last_id
    values = {"offset": offset, "first_id": first_id, "last_id": last_id, "at": at}
    await session.execute(_LOG_OF_CREATED, {**values, "token": last.token})
    return last


async def sweep(session: AsyncSession, *, kept: timedelta, limit: int) -> int:
    """Delete the oldest changes that are older than ``kept``, up to ``limit``.

    Returns:
        the number deleted; always a prefix of the log, so that the rest has no gap.
    """
    oldest = (await session.execute(_OLDEST.limit(limit))).all()
    before = now() - kept
    outdated = [row.position for row in takewhile(lambda row: row.at < before, oldest)]
    if not outdated:
        return 0
    return await affected_rows(
        session, delete(ProductChange).where(ProductChange.position <= outdated[-1])
    )
