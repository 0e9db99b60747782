"""Search planner: chooses between full-text index and ordered scan by sampling.

The full-text index returns all matches, unordered, before a page can be cut from them: with a
million products, half of which have a word, that takes seconds. A scan in sort order finds a page
for such a word at once, but takes seconds for a rare word. So a few products are scanned first; if
they do not fill the page, they give an estimate of how common the words are.

Sorted by id, the index is searched only for some buckets, so that the cost of a search does not
depend on the number of products; in other sort orders it has to return all matches.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.products import queries
from catalog.products.queries import Plan
from catalog.products.search.tokenizer import BUCKET_IDS, buckets_between
from catalog.products.selection import Position, Selection

NEAR = 500
"""Products that are scanned as a sample; that takes one or two milliseconds."""

FEW = 5000
"""If the filters leave no more products than this, they are all scanned."""

# Cost of one match from the index, in scanned products; measured on MySQL with a million products.
# Sorted by id, scanning one product takes a microsecond.
_COST_BY_ID = 4.5
_COST_BY_KEY = 1.7

_MARGIN = 1.2
"""Factor by which a scan exceeds the distance that evenly distributed words would need."""

_WIDENING = 6
"""Factor by which the distance grows when a page was not filled."""


async def find(
    connection: AsyncConnection,
    selection: Selection,
    *,
    after: Position | None,
    limit: int,
    max_bytes: int,
) -> Sequence[Any]:
    """Return the rows of a page of a selection with terms.

    Args:
        connection: the connection to read on.
        selection: filters, terms and sort order.
        after: the keyset position after which the page begins; None for the first page.
        limit: maximum number of products on the page.
        max_bytes: bound on the bytes of their texts; the product that exceeds it is the last.
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
    # Plus one half, because words without a match in the sample may still occur.
    share = (len(rows) + 0.5) / NEAR
    return await (search.by_id(share) if selection.key == "id" else search.by_key())


_NAME, _DESCRIPTION = map(queries.FIELDS.index, ("name", "description"))


def text_bytes(row: Sequence[Any]) -> int:
    """Compute ``queries.TEXT_BYTES`` of a row."""
    return len(row[_NAME].encode()) + len((row[_DESCRIPTION] or "").encode())


async def count(connection: AsyncConnection, selection: Selection) -> int:
    """Count the products of a selection with terms."""
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
    """Return whether the filters alone, without the terms, leave at most ``FEW`` products."""
    filters = selection.filters
    if "ids" in filters:
        return True
    if not filters:
        return False
    statement = queries.some(filters=filters)
    return int(await connection.scalar(statement, {**selection.values, "limit": FEW + 1})) <= FEW


class _Search:
    """Search for one page.

    Attributes:
        reached_end: whether the last pass reached the end of the list.
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
        """Return whether a pass has filled the page or reached the end of the list."""
        is_full = len(rows) == self._limit or sum(map(text_bytes, rows)) > self._max_bytes
        return self.reached_end or is_full

    async def look(self, distance: int, plan: Plan = Plan.SCAN) -> Sequence[Any]:
        """Search the next ``distance`` products."""
        edge = await self._edge(distance)
        self.reached_end = edge is None
        return await self.run(plan, edge)

    async def by_id(self, share: float) -> Sequence[Any]:
        """Find the page when sorting by id.

        Args:
            share: the estimated fraction of products that match.
        """
        distance = int(_MARGIN * self._limit / share)
        # The buckets at both ends also hold ids outside the range.
        if distance < _COST_BY_ID * share * (distance + BUCKET_IDS):
            rows = await self.look(distance)
            if self.is_done(rows):
                return rows
            distance *= _WIDENING
        while not self.is_done(rows := await self.look(distance, Plan.INDEX)):
            distance *= _WIDENING
        return rows

    async def by_key(self) -> Sequence[Any]:
        """Find the page in another order, in which matches may be distributed unevenly."""
        buckets = buckets_between(self._first_id, self._last_id)
        # Not the newest bucket, which may be almost empty.
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
        """Run one plan up to an edge, or to the end of the list."""
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
        """Return the buckets between the position after which the page begins and the edge."""
        if self._selection.key != "id":
            return buckets_between(self._first_id, self._last_id)
        begin, end = self._values.get("after_id"), (edge or {}).get("edge_id")
        if self._selection.sort == "-id":
            begin, end = end, begin
        return buckets_between(begin or self._first_id, end or self._last_id)

    async def _edge(self, distance: int) -> dict[str, Any] | None:
        """Return the position ``distance`` products ahead, or None if the list ends before it."""
        selection = self._selection
        if selection.key == "id":
            # Ids have gaps, so this may be fewer products, but never more.
            if selection.sort == "id":
                edge = self._values.get("after_id", self._first_id - 1) + distance + 1
                return {"edge_id": edge} if edge <= self._last_id else None
            edge = self._values.get("after_id", self._last_id + 1) - distance - 1
            return {"edge_id": edge} if edge >= self._first_id else None
        # Count only filtered products where an index serves the filters; otherwise, all products.
        filters = selection.filters
        if not queries.has_index(selection.sort, filters):
            filters = frozenset()
        statement = queries.edge(sort=selection.sort, filters=filters, resumed=bool(self._after))
        values = {**self._values, "distance": distance}
        row = (await self._connection.execute(statement, values)).one_or_none()
        return None if row is None else {"edge_key": row.key, "edge_id": row.id}
