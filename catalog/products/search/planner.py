"""Searches: which of the two ways to find products costs less, as a look at some of them tells.

The full-text index gives all that it finds, in no order, before the first page can be cut off it:
of a million products, half of which have a word, that takes seconds. To look at one product after
the other in order finds a page of such a word at once, and takes seconds for a rare one. So a few
products are looked at first; if they do not fill the page, they tell how common the words are.

In the order of ids, the index is asked for some buckets only, so that a search costs the same
however many products there are; in other orders it has to give all that it has.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.products import queries
from catalog.products.queries import Plan, Position, Selection
from catalog.products.search.tokenizer import BUCKET_IDS, buckets_between

NEAR = 500
"""Products that are looked at before anything is known; it takes a millisecond or two."""

FEW = 5000
"""Products that are looked at one by one, should a filter leave no more."""

# What it takes to get one product from the index, in products that are looked at meanwhile;
# measured on MySQL with a million of them. In the order of ids the latter takes a microsecond.
_COST_BY_ID = 4.5
_COST_BY_KEY = 1.7

_MARGIN = 1.2
"""How many times as far to look as would do if words were spread evenly."""

_WIDENING = 6
"""How many times as far to look when that was not far enough."""


async def find(
    connection: AsyncConnection,
    selection: Selection,
    *,
    after: Position | None,
    limit: int,
    max_bytes: int,
) -> Sequence[Any]:
    """A page of a selection with terms.

    Args:
        connection: where to read.
        selection: which products, in which order.
        after: the place behind which the page begins; None for the first page.
        limit: products on the page.
        max_bytes: of their texts; the one that goes beyond it is the last.
    """
    if await _are_few(connection, selection):
        search = _Search(connection, selection, after, limit, max_bytes, (0, 0))
        return await search.run(Plan.SCAN)
    ids = (await connection.execute(queries.IDS)).one()
    if ids.first is None:
        return []
    search = _Search(connection, selection, after, limit, max_bytes, (ids.first, ids.last))
    rows = await search.look(NEAR)
    if search.is_done(rows):
        return rows
    # One half more, because what has not been seen may be there all the same.
    share = (len(rows) + 0.5) / NEAR
    return await (search.by_id(share) if selection.key == "id" else search.by_key())


_NAME, _DESCRIPTION = map(queries.FIELDS.index, ("name", "description"))


def text_bytes(row: Sequence[Any]) -> int:
    """What ``queries.TEXT_BYTES`` is of a row."""
    return len(row[_NAME].encode()) + len((row[_DESCRIPTION] or "").encode())


async def count(connection: AsyncConnection, selection: Selection) -> int:
    """How many products a selection with terms has."""
    plan = Plan.SCAN if await _are_few(connection, selection) else Plan.INDEX
    values = selection.values
    if plan is Plan.INDEX:
        ids = (await connection.execute(queries.IDS)).one()
        if ids.first is None:
            return 0
        values["sought"] = selection.sought_in(buckets_between(ids.first, ids.last))
    terms = len(selection.terms)
    statement = queries.count_found(filters=selection.filters, terms=terms, plan=plan)
    return int(await connection.scalar(statement, values))


async def _are_few(connection: AsyncConnection, selection: Selection) -> bool:
    """Whether the selection is of few products even without its terms."""
    filters = selection.filters
    if "ids" in filters:
        return True
    if not filters:
        return False
    statement = queries.some(filters=filters)
    return int(await connection.scalar(statement, {**selection.values, "limit": FEW + 1})) <= FEW


class _Search:
    """One page that is looked for.

    Attributes:
        reached_end: whether the last look went to the end of the list.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        selection: Selection,
        after: Position | None,
        limit: int,
        max_bytes: int,
        ids: tuple[int, int],
    ) -> None:
        self._connection = connection
        self._selection = selection
        self._after = after
        self._limit = limit
        self._first_id, self._last_id = ids
        self._max_bytes = max_bytes
        bounds = {"limit": limit, "max_bytes": max_bytes}
        self._values = {**selection.values, **selection.values_after(after), **bounds}
        self.reached_end = False

    def is_done(self, rows: Sequence[Any]) -> bool:
        """Whether a look has found the page, or all that there is."""
        is_full = len(rows) == self._limit or sum(map(text_bytes, rows)) > self._max_bytes
        return self.reached_end or is_full

    async def look(self, distance: int, plan: Plan = Plan.SCAN) -> Sequence[Any]:
        """What there is within so many products."""
        edge = await self._edge(distance)
        self.reached_end = edge is None
        return await self.run(plan, edge)

    async def by_id(self, share: float) -> Sequence[Any]:
        """The page in the order of ids.

        Args:
            share: of all products, that are found.
        """
        distance = int(_MARGIN * self._limit / share)
        # The buckets at both ends hold ids that are not asked for.
        if distance < _COST_BY_ID * share * (distance + BUCKET_IDS):
            rows = await self.look(distance)
            if self.is_done(rows):
                return rows
            distance *= _WIDENING
        while not self.is_done(rows := await self.look(distance, Plan.INDEX)):
            distance *= _WIDENING
        return rows

    async def by_key(self) -> Sequence[Any]:
        """The page in another order; names and prices may lie where the words are not."""
        buckets = buckets_between(self._first_id, self._last_id)
        # The newest bucket has just begun, maybe.
        sample = buckets[-2:][:1]
        statement = queries.count_found(
            filters=frozenset(), terms=len(self._selection.terms), plan=Plan.INDEX
        )
        values = {**self._selection.values, "sought": self._selection.sought_in(sample)}
        expected = int(await self._connection.scalar(statement, values)) * len(buckets)
        share = (expected + 0.5) / (self._last_id - self._first_id + 1)
        distance = max(NEAR * _WIDENING, int(_MARGIN * self._limit / share))
        while distance < _COST_BY_KEY * expected:
            rows = await self.look(distance)
            if self.is_done(rows):
                return rows
            distance *= _WIDENING
        return await self.run(Plan.INDEX)

    async def run(self, plan: Plan, edge: dict[str, Any] | None = None) -> Sequence[Any]:
        """The page in one way, as far as an edge or the end."""
        statement = queries.found(
            sort=self._selection.sort,
            filters=self._selection.filters,
            resumed=self._after is not None,
            terms=len(self._selection.terms),
            plan=plan,
            bounded=edge is not None,
        )
        values = {**self._values, **(edge or {})}
        if plan is Plan.INDEX:
            values["sought"] = self._selection.sought_in(self._buckets(edge))
        rows: Sequence[Any] = (await self._connection.execute(statement, values)).all()
        return rows

    def _buckets(self, edge: dict[str, Any] | None) -> tuple[str, ...]:
        """Those that hold what lies between the place behind which the page begins and the edge."""
        if self._selection.key != "id":
            return buckets_between(self._first_id, self._last_id)
        begin, end = self._values.get("after_id"), (edge or {}).get("edge_id")
        if self._selection.sort == "-id":
            begin, end = end, begin
        return buckets_between(begin or self._first_id, end or self._last_id)

    async def _edge(self, distance: int) -> dict[str, Any] | None:
        """The place so many products further on, or None if the list ends before it."""
        selection = self._selection
        if selection.key == "id":
            # Ids have gaps, so it may be fewer products; what matters is that it is not more.
            if selection.sort == "id":
                edge = self._values.get("after_id", self._first_id - 1) + distance + 1
                return {"edge_id": edge} if edge <= self._last_id else None
            edge = self._values.get("after_id", self._last_id + 1) - distance - 1
            return {"edge_id": edge} if edge >= self._first_id else None
        # What the filters leave where an index has just that, and otherwise whatever is there.
        filters = selection.filters
        if not queries.has_index(selection.sort, filters):
            filters = frozenset()
        statement = queries.edge(sort=selection.sort, filters=filters, resumed=bool(self._after))
        values = {**self._values, "distance": distance}
        row = (await self._connection.execute(statement, values)).one_or_none()
        return None if row is None else {"edge_key": row.key, "edge_id": row.id}
