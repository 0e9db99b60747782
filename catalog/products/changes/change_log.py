"""Change log: every committed change in commit order, without gaps.

One row counts the changes. A transaction takes its positions last, and holds the lock on that row
until the commit, so the next positions belong to a later commit. A reader that has seen a position
has therefore seen all before it; AUTO_INCREMENT, which assigns numbers before the commit, does not
guarantee that.

A position identifies a change in one history only. A restored backup begins another history, so
each transaction also draws a token, which is stored in its rows of the log and beside the count:
position and token together are a ``ChangeId`` (docs/adr/0018). The first half of the token, the
era, tells what lies between two changes: it stays as it is while products are only added above all
earlier ones, or not far below the highest one (``LATE_IDS``).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from typing import NamedTuple, cast

from sqlalchemy import (
    ColumnElement,
    String,
    Table,
    Update,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.db.columns import Id, Timestamp, now
from catalog.db.raw_rows import TextQuery, has_raw_rows, read_texts
from catalog.db.read_connection import ReadConnection
from catalog.db.statements import affected_rows, insert_rows, stored_instant
from catalog.errors import DatabaseUnavailable
from catalog.products.models import (
    ERA_LENGTH,
    ChangeCounter,
    ChangeId,
    ChangeType,
    Product,
    ProductChange,
    new_token,
)

RETENTION = timedelta(days=30)
"""Time for which changes can be followed: longer than any follower stays away unnoticed."""

HEADER = "Catalog-Position"
"""Header with a position: on reads, one that the content includes; on writes, the write's own."""

CHANGE_HEADER = "Catalog-Change"
"""Header with the same position and the token of its history."""

BATCH_HEADER = "Catalog-Batch-Position"
"""Header of a write that shared its transaction: the last position of that transaction."""

UNAFFECTED_HEADER = "Catalog-Unaffected-By"
"""Header of a read that no creation of products affects, within one era."""


def position_headers(change: ChangeId) -> dict[str, str]:
    """Return the headers that carry a change id."""
    return {HEADER: str(change.position), CHANGE_HEADER: str(change)}


def headers(change: ChangeId) -> dict[str, str]:
    """Return the headers of a negotiated read that caches have to revalidate each time."""
    return {"Cache-Control": "no-cache", "Vary": "Accept", **position_headers(change)}


_log = ProductChange.__table__.c
_LOG_COLUMNS = ("position", "type", "product_id", "version", "at", "token")

_HEAD = select(ChangeCounter.position, ChangeCounter.token, ChangeCounter.highest_id)
_HEAD_TEXT = func.concat(
    *(ChangeCounter.position, ".", ChangeCounter.token, " ", ChangeCounter.highest_id)
)
HEAD = TextQuery(select(_HEAD_TEXT), {})
"""The counter of changes, for ``parse_head``."""

_OLDEST = select(_log.position, _log.at).order_by(_log.position)

_counter = cast("Table", ChangeCounter.__table__)
_token = bindparam("token", type_=String())

LATE_IDS = 1000
"""Ids by which a new product may be below the highest one, as those of concurrent creates are,
without beginning an era. Pages with products so close to it are not settled."""

_last = _counter.c.position + bindparam("count", type_=Id)
_begins_era = or_(
    _counter.c.highest_id - LATE_IDS >= bindparam("first_id", type_=Id),
    _counter.c.position != _counter.c.taken_position,
    # Of a release without tokens.
    _counter.c.token == "",
)
_era = func.substr(_counter.c.token, 1, ERA_LENGTH)
_new_token = case((_begins_era, bindparam("era", type_=String())), else_=_era) + bindparam(
    "rest", type_=String()
)
_last_id = bindparam("last_id", type_=Id)
_highest_id = case((_counter.c.highest_id < _last_id, _last_id), else_=_counter.c.highest_id)


def _taking(position: ColumnElement[int], taken_position: ColumnElement[int]) -> Update:
    # The servers assign from left to right: later expressions see the new values of these columns.
    values = (
        (_counter.c.token, _new_token),
        (_counter.c.position, position),
        (_counter.c.highest_id, _highest_id),
        (_counter.c.taken_position, taken_position),
    )
    return update(_counter).ordered_values(*values).where(_counter.c.id == 1)


# LAST_INSERT_ID(expr) on the servers: the response to the UPDATE itself contains the number. It is
# four times the position, and tells which era the token has. A new era after an empty token counts
# as unexpected.
_BEGUN, _AS_EXPECTED, _UNEXPECTED = range(3)
_expects = _era == bindparam("expected_era", type_=String())
_outcome = case((_begins_era, _BEGUN), (_expects, _AS_EXPECTED), else_=_UNEXPECTED)
_TAKE = _taking(func.last_insert_id(_last * 4 + _outcome).op("DIV")(4), _counter.c.position)
_TAKE_RETURNING = _taking(_last, _last).returning(_counter.c.position, _counter.c.token)
_ERA = select(_era)
_ERA_KEY = "change_era"

# Runs at READ COMMITTED, so the SELECT locks no rows.
_LOG_OF_CREATED = insert(cast("Table", ProductChange.__table__)).from_select(
    list(_LOG_COLUMNS),
    select(
        Product.id + bindparam("offset", type_=Id),
        literal(ChangeType.CREATED.value),
        Product.id,
        Product.version,
        bindparam("at", type_=Timestamp()),
        _token,
    ).where(Product.id.between(bindparam("first_id", type_=Id), bindparam("last_id", type_=Id))),
)

MANY = 100
"""Changes from which on INSERT … SELECT is cheaper than sending the rows."""


class Head(NamedTuple):
    """Values of the counter of changes.

    Attributes:
        change: the last committed change; position 0 before the first.
        highest_id: the highest id of all products that there have been.
    """

    change: ChangeId
    highest_id: int

    @property
    def settled_id(self) -> int:
        """Id up to which no more products are created within the era."""
        return self.highest_id - LATE_IDS


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
    """Log changes; must be the last step of a transaction.

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
    last = await _take(session, len(changes), created, is_addition=is_addition)
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
    """Log the creation of products; from ``MANY`` on, the database copies it from their rows.

    Returns:
        the last change.
    """
    if not product_ids:
        return await current_change(session)
    count, first_id, last_id = len(product_ids), product_ids[0], product_ids[-1]
    # Ids may have gaps, from concurrent inserts or from the step between ids in a cluster.
    if count < MANY or list(product_ids) != list(range(first_id, last_id + 1)):
        created = [(product_id, 1) for product_id in product_ids]
        return await record(session, ChangeType.CREATED, created, at=at)
    last = await _take(session, count, (first_id, last_id), is_addition=True)
    offset = last.position - last_id
    values = {"offset": offset, "first_id": first_id, "last_id": last_id, "at": at}
    await session.execute(_LOG_OF_CREATED, {**values, "token": last.token})
    return last


async def _take(
    session: AsyncSession, count: int, created: Sequence[int], *, is_addition: bool
) -> ChangeId:
    """Take positions and a token, and return the last; other writers wait until the commit.

    Args:
        session: the transaction.
        count: the number of changes.
        created: ids of new products, the least and the highest among them.
        is_addition: whether there are no other changes.
    """
    connection = await session.connection()
    token = new_token()
    era, rest = token[:ERA_LENGTH], token[ERA_LENGTH:]
    values = {
        "count": count,
        # Below all others.
        "first_id": min(created) if is_addition else -LATE_IDS,
        "last_id": max(created, default=0),
        "era": era,
        "rest": rest,
    }
    if connection.dialect.name == "sqlite":
        row = (await connection.execute(_TAKE_RETURNING, values)).one_or_none()
        if row is None:
            raise no_counter()
        return ChangeId(*row)
    # Mostly the era that the same connection has found last.
    expected = connection.info.get(_ERA_KEY, "")
    taken = await connection.execute(_TAKE, {**values, "expected_era": expected})
    position, outcome = divmod(taken.lastrowid, 4)
    if not position:
        raise no_counter()
    if outcome == _AS_EXPECTED:
        era = expected
    elif outcome == _UNEXPECTED:
        era = (await connection.execute(_ERA)).scalar_one()
    connection.info[_ERA_KEY] = era
    return ChangeId(position, era + rest)


async def current_change(connection: AsyncConnection | AsyncSession) -> ChangeId:
    """Return the last committed change; raises as ``current_head``."""
    return (await current_head(connection)).change


async def current_head(connection: AsyncConnection | AsyncSession) -> Head:
    """Return the last committed change, and the highest id.

    Raises:
        DatabaseUnavailable: the counter has no row; see ``no_counter``.
    """
    if isinstance(connection, ReadConnection) and has_raw_rows(connection):
        (texts,) = await read_texts(connection, HEAD)
        return parse_head(texts)
    row = (await connection.execute(_HEAD)).one_or_none()
    if row is None:
        raise no_counter()
    return Head(ChangeId(row.position, row.token), row.highest_id)


def parse_head(texts: Sequence[bytes]) -> Head:
    """Return what ``HEAD`` has selected; raises as ``current_head``."""
    if not texts:
        raise no_counter()
    change, _, highest_id = texts[0].decode().partition(" ")
    return Head(ChangeId.parse(change), int(highest_id))


def no_counter() -> DatabaseUnavailable:
    """Return the error for a counter without a row, as in the middle of a restore."""
    return DatabaseUnavailable("The database is incomplete: it has no change counter.")


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
