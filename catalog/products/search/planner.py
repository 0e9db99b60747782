"""Search planner: chooses between full-text index and ordered scan by estimated costs.

The full-text index returns all matches, unordered, before a page can be cut from them: with a
million products, half of which have a word, that takes seconds. A scan in sort order finds a page
for such a word at once, but takes seconds for a rare word. So a few products are scanned first; if
they do not fill the page, the frequencies of the terms decide (``frequencies``).

Only the rarest terms are looked up in the index; the others are checked on the products found.
Sorted by id, the index is searched only for some buckets, so that the cost of a search does not
depend on the number of products; in other sort orders it has to return all matches.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.products import queries
from catalog.products.search import index_reads
from catalog.products.search.frequencies import SAMPLE, Terms, counted, sampled, unknown
from catalog.products.search.tokenizer import BUCKET_IDS, BUCKETS, buckets_between
from catalog.products.selection import Position, Selection

NEAR = 500
"""Products that are scanned first; that takes one or two milliseconds."""

FEW = 1000
"""If the filters leave no more products than this, they are all scanned."""

# Costs in microseconds, measured on MySQL with a million products. Rows that are read in the order
# of ids lie side by side; those read in another order do not, nor do those that the index finds.
_SCANNED_BY_ID = 0.6
_SCANNED_BY_KEY = 4.0
_SPANNED = 0.3
_LOOKED_UP = 1.2
_FOUND_BY_ID = 4.0
_FOUND_BY_KEY = 7.0
_BUCKET = 17.0

_MARGIN = 1.5
"""Factor by which a search exceeds the distance that evenly distributed words would need: one that
ends just before its page is full has to be repeated."""

_LEAST_GROWTH, _MOST_GROWTH = 1.5, 50
"""Factors by which the distance grows when a page was not filled."""


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
        return await _Search(connection, selection, after, limit, max_bytes, (0, 0)).run()
    ids = (await connection.execute(queries.IDS)).one()
    if ids.first is None:
        return []
    search = _Search(connection, selection, after, limit, max_bytes, (ids.first, ids.last))
    rows = await search.search_next(NEAR)
    if search.is_done(rows):
        return rows
    find_page = search.by_id if selection.sort_column == "id" else search.by_key
    return await find_page(len(rows))


_NAME, _DESCRIPTION = map(queries.FIELDS.index, ("name", "description"))


def _text_bytes(row: Sequence[Any]) -> int:
    return queries.text_bytes(row[_NAME], row[_DESCRIPTION])


async def count(connection: AsyncConnection, selection: Selection) -> int:
    """Count the products of a selection with terms."""
    terms, indexed = unknown(selection.terms), 0
    sought = None
    if not await _are_few(connection, selection):
        ids = (await connection.execute(queries.IDS)).one()
        if ids.first is None:
            return 0
        if len(selection.terms) > 1:
            terms = await sampled(connection, terms.ordered, last_id=(ids.first + ids.last) // 2)
        indexed = terms.indexed
        sought = terms.sought_in(buckets_between(ids.first, ids.last), indexed)
    statement = queries.count_found(
        filters=selection.filters, terms=len(terms.ordered), indexed=indexed
    )
    values = {**selection.values, **terms.values, "sought": sought}
    if not indexed:
        return int(await connection.scalar(statement, values))
    ((most,),) = await index_reads.read(connection, statement, values, combine=_greater)
    return int(most)


def _greater(before: Sequence[Any], rows: Sequence[Any]) -> Sequence[Any]:
    """Return the greater of two counts, each in a row."""
    return max(before, rows, key=lambda each: int(each[0][0]))


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
        self._first_id, self._last_id = self._ids = ids
        self._max_bytes = max_bytes
        bounds = {"limit": limit, "max_bytes": max_bytes}
        self._values = {**selection.values, **selection.values_after(after), **bounds}
        self._terms = unknown(selection.terms)
        self.reached_end = False

    def is_done(self, rows: Sequence[Any]) -> bool:
        """Return whether a pass has filled the page or reached the end of the list."""
        return self.reached_end or self._is_full(rows)

    def _is_full(self, rows: Sequence[Any]) -> bool:
        return len(rows) == self._limit or sum(map(_text_bytes, rows)) > self._max_bytes

    async def search_next(self, distance: int, *, indexed: int = 0) -> Sequence[Any]:
        """Search the next ``distance`` products; see ``run``."""
        edge = await self._edge(distance)
        self.reached_end = edge is None
        return await self.run(edge, indexed=indexed)

    async def by_id(self, hits: int) -> Sequence[Any]:
        """Find the page when sorting by id.

        Args:
            hits: the products found among the first ``NEAR``.
        """
        if self._selection.sort == "id":
            sample_end = self._values.get("after_id", self._first_id) + SAMPLE
        else:
            sample_end = self._values.get("after_id", self._last_id)
        await self._sample(hits, last_id=sample_end)
        distance, share, is_refined = self._further(NEAR, hits), _share(hits, NEAR), False
        while True:
            # The buckets at both ends also hold ids outside the range.
            index_cost = self._index_cost(distance + BUCKET_IDS, share, _FOUND_BY_ID)
            is_scan = distance * _SCANNED_BY_ID < index_cost
            rows = await self.search_next(distance, indexed=0 if is_scan else self._terms.indexed)
            if self.is_done(rows):
                return rows
            if not is_refined and len(self._terms.ordered) > 1:
                # The terms may be more or less common among other products.
                is_refined = True
                await self._refine(together=False)
            share = _share(len(rows), distance)
            distance = self._further(distance, len(rows))

    async def by_key(self, hits: int) -> Sequence[Any]:
        """Find the page in another order, in which matches may be distributed unevenly.

        Args:
            hits: the products found among the first ``NEAR``.
        """
        count = self._last_id - self._first_id + 1
        await self._sample(hits, last_id=self._first_id + count // 2)
        joint = await self._refine(together=True)
        index_cost = self._index_cost(count, joint, _FOUND_BY_KEY)
        # Filters, and matches that lie further behind, show among the first products only.
        share = min(joint, _share(hits, NEAR))
        distance = max(2 * NEAR, int(_MARGIN * self._limit / share))
        # Ids ascend with time, so the index can be restricted to those of the next products.
        is_in_time = self._selection.sort_column == "created_at"
        cost = _SPANNED if is_in_time else _SCANNED_BY_KEY
        while distance * cost < index_cost:
            edge = await self._edge(distance)
            self.reached_end = edge is None
            is_scan = True
            if is_in_time and edge is not None:
                self._ids = await self._ids_before(edge)
                span = self._ids[1] - self._ids[0] + BUCKET_IDS
                near_cost = self._index_cost(span, joint, _FOUND_BY_KEY)
                is_scan = distance * _SCANNED_BY_KEY < near_cost
            rows = await self.run(edge, indexed=0 if is_scan else self._terms.indexed)
            if self.is_done(rows):
                return rows
            distance = self._further(distance, len(rows))
        self._ids = (self._first_id, self._last_id)
        return await self.run(indexed=self._terms.indexed)

    async def _sample(self, hits: int, *, last_id: int) -> None:
        """Rank the terms by how common they are near an id."""
        terms = self._terms.ordered
        if len(terms) > 1 or self._selection.filters:
            self._terms = await sampled(self._connection, terms, last_id=last_id)
        else:
            self._terms = Terms(terms, (_share(hits, NEAR),))

    async def _refine(self, *, together: bool) -> float:
        """Rank the terms by how common they are; see ``counted``."""
        ids = (self._first_id, self._last_id)
        self._terms, joint = await counted(
            self._connection, self._terms, ids=ids, together=together
        )
        return joint

    def _index_cost(self, ids: int, share: float, found: float) -> float:
        """Estimate the microseconds that the index needs for a range of ids.

        Args:
            ids: the size of the range.
            share: the fraction of products that match.
            found: microseconds for each product that the index finds.
        """
        indexed = self._terms.indexed
        shares = self._terms.shares
        looked_up = sum(shares[:indexed])
        found_share = min(share, shares[0]) if indexed == len(shares) else shares[0]
        buckets = min(BUCKETS, ids // BUCKET_IDS + 1)
        return ids * (looked_up * _LOOKED_UP + found_share * found) + buckets * indexed * _BUCKET

    def _further(self, distance: int, hits: int) -> int:
        """Return the distance that probably fills the page, after one that had too few hits."""
        wanted = int(_MARGIN * self._limit / _share(hits, distance))
        return min(max(wanted, int(_LEAST_GROWTH * distance)), _MOST_GROWTH * distance)

    async def run(self, edge: dict[str, Any] | None = None, *, indexed: int = 0) -> Sequence[Any]:
        """Search up to an edge, or to the end of the list.

        Args:
            edge: the position before which the search ends.
            indexed: the number of terms to look up in the full-text index; 0 for a scan.
        """
        terms = self._terms
        statement = queries.found(
            sort=self._selection.sort,
            filters=self._selection.filters,
            resumed=self._after is not None,
            terms=len(terms.ordered),
            indexed=indexed,
            bounded=edge is not None,
        )
        values = {**self._values, **terms.values, **(edge or {})}
        if indexed:
            values["sought"] = terms.sought_in(self._buckets(edge), indexed)
            return await index_reads.read(
                self._connection, statement, values, combine=self._complete
            )
        rows: Sequence[Any] = (await self._connection.execute(statement, values)).all()
        return rows

    def _complete(self, before: Sequence[Any], rows: Sequence[Any]) -> Sequence[Any] | None:
        """Return the second of two results unless it may have missed rows of the first."""
        found = {row[0] for row in rows}
        missing = [place for place, row in enumerate(before) if row[0] not in found]
        if not missing:
            return rows
        # New products may have pushed the last ones off the page.
        kept = [place for place, row in enumerate(before) if row[0] == rows[-1][0]] if rows else []
        return rows if kept and kept[0] < missing[0] and self._is_full(rows) else None

    def _buckets(self, edge: dict[str, Any] | None) -> tuple[str, ...]:
        """Return the buckets between the position after which the page begins and the edge."""
        if self._selection.sort_column != "id":
            return buckets_between(*self._ids)
        begin, end = self._values.get("after_id"), (edge or {}).get("edge_id")
        if self._selection.sort == "-id":
            begin, end = end, begin
        return buckets_between(begin or self._first_id, end or self._last_id)

    async def _ids_before(self, edge: dict[str, Any]) -> tuple[int, int]:
        """Return the range of the ids up to an edge."""
        statement = queries.id_range(sort=self._selection.sort, resumed=bool(self._after))
        row = (await self._connection.execute(statement, {**self._values, **edge})).one()
        return (self._first_id, self._last_id) if row.first is None else (row.first, row.last)

    async def _edge(self, distance: int) -> dict[str, Any] | None:
        """Return the position ``distance`` products ahead, or None if the list ends before it."""
        selection = self._selection
        if selection.sort_column == "id":
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


def _share(hits: int, count: int) -> float:
    """Estimate a fraction of products from a sample.

    One half is added, because words without a match in the sample may still occur.
    """
    return min(1.0, (hits + 0.5) / max(count, 1))
