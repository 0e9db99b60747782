"""Counter of changes: one row with the position and the token of the last one.

A transaction takes its positions last, and holds the lock on that row until the commit, so the next
positions belong to a later commit. A reader that has seen a position has therefore seen all before
it; AUTO_INCREMENT, which assigns numbers before the commit, does not guarantee that
(docs/adr/0011).
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

from sqlalchemy import (
    ColumnElement,
    String,
    Table,
    Update,
    bindparam,
    case,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.db.columns import Id
from catalog.db.raw_rows import TextQuery, has_raw_rows, read_texts
from catalog.db.read_connection import ReadConnection
from catalog.errors import DatabaseUnavailable
from catalog.products.changes.change_ids import ERA_LENGTH, ChangeId, new_token
from catalog.products.models import ChangeCounter

_HEAD = select(ChangeCounter.position, ChangeCounter.token, ChangeCounter.highest_id)
_HEAD_TEXT = func.concat(
    *(ChangeCounter.position, ".", ChangeCounter.token, " ", ChangeCounter.highest_id)
)
HEAD = TextQuery(select(_HEAD_TEXT), {})
"""The counter of changes, for ``parse_head``."""

_counter = cast("Table", ChangeCounter.__table__)

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


async def take_positions(
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
