"""Searches: which of the two ways to find products costs less, as a look at some of them tells.

The full-text indexes give all that they find, in no order, before the first page can be cut off
it: of a million products, half of which have a word, that takes seconds. To look at one product
after the other in order finds a page of such a word at once, and takes seconds for a rare one. So a
few products are looked at first; if they do not fill the page, they tell how common the words are.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.products import queries
from catalog.products.queries import Plan, Position, Selection

NEAR = 500
"""Products that are looked at before anything is known; it takes a millisecond or two."""

FEW = 5000
"""Products that are looked at one by one, should a filter leave no more."""

# What it takes to get one product from the index, in products that are looked at meanwhile;
# measured on MySQL with a million of them. In the order of ids the latter takes a microsecond.
_COST_BY_ID = 4.5
_COST_BY_KEY = 1.7

_MARGIN = 1.5
"""How many times as far to look as would do if words were spread evenly."""


async def find(
    connection: AsyncConnection, selection: Selection, *, after: Position | None, limit: int
) -> Sequence[Any]:
    """A page of a selection with terms.

    Args:
        connection: where to read.
        selection: which products, in which order.
        after: the place behind which the page begins; None for the first page.
        limit: products on the page.
    """
    search = _Search(connection, selection, after, limit)
    if await _are_few(connection, selection):
        return await search.run(Plan.SCAN)
    ids = (await connection.execute(queries.IDS)).one()
    distance = NEAR
    while True:
        edge = await search.edge(distance, ids)
        if edge is None:
            return await search.run(Plan.SCAN)
        rows = await search.run(Plan.NEAR, edge)
        if len(rows) == limit:
            return rows
        # One more half, because what has not been seen may be there all the same.
        share = (len(rows) + 0.5) / distance
        further = int(_MARGIN * limit / share)
        cost = _COST_BY_ID if search.is_by_id else _COST_BY_KEY
        if distance > NEAR or further > cost * share * (ids.last - ids.first):
            return await search.run(Plan.INDEX)
        distance = further


async def count(connection: AsyncConnection, selection: Selection) -> int:
    """How many products a selection with terms has."""
    plan = Plan.SCAN if await _are_few(connection, selection) else Plan.INDEX
    statement = queries.count_found(
        filters=selection.filters, terms=len(selection.terms), plan=plan
    )
    return int(await connection.scalar(statement, selection.values))


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
    def __init__(
        self,
        connection: AsyncConnection,
        selection: Selection,
        after: Position | None,
        limit: int,
    ) -> None:
        self._connection = connection
        self._selection = selection
        self._resumed = after is not None
        self._values = {**selection.values, **selection.values_after(after), "limit": limit}
        self.is_by_id = selection.key == "id" and not selection.filters

    async def run(self, plan: Plan, edge: dict[str, Any] | None = None) -> Sequence[Any]:
        statement = queries.found(
            sort=self._selection.sort,
            filters=self._selection.filters,
            resumed=self._resumed,
            terms=len(self._selection.terms),
            plan=plan,
        )
        values = {**self._values, **(edge or {})}
        rows: Sequence[Any] = (await self._connection.execute(statement, values)).all()
        return rows

    async def edge(self, distance: int, ids: Any) -> dict[str, Any] | None:
        """The place so many products further on, or None if the list ends before it."""
        selection = self._selection
        if self.is_by_id:
            # Ids have gaps, so it may be fewer products; what matters is that it is not more.
            if ids.first is None:
                return None
            if selection.sort == "id":
                edge = self._values.get("after_id", ids.first - 1) + distance + 1
                return {"edge_id": edge} if edge <= ids.last else None
            edge = self._values.get("after_id", ids.last + 1) - distance - 1
            return {"edge_id": edge} if edge >= ids.first else None
        # What the filters leave where an index has just that, and otherwise whatever is there.
        filters = selection.filters
        if not queries.has_index(selection.sort, filters):
            filters = frozenset()
        statement = queries.edge(sort=selection.sort, filters=filters, resumed=self._resumed)
        values = {**self._values, "distance": distance}
        row = (await self._connection.execute(statement, values)).one_or_none()
        return None if row is None else {"edge_key": row.key, "edge_id": row.id}
