"""Cache of products by ranges of ids: pages composed of it equal those of all products.

The model is a list of all products; the ranges that are added are parts of it.
"""

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.db.columns import MAX_ID
from catalog.http.pagination import Cursors
from catalog.products.changes.change_ids import ChangeId
from catalog.products.listing.page_reader import page_of
from catalog.products.listing.page_request import PageRequest, PageRequests
from catalog.products.listing.page_rows import DecodedRows
from catalog.products.listing.range_cache import (
    MAX_RANGES,
    CachedRange,
    RangeCache,
    range_of,
    rows_of,
)
from catalog.products.queries import FIELDS
from catalog.products.schemas import PATH, ListQuery
from catalog.products.selection import Selection
from tests.support import memory_traced
from tests.watchdog import Watchdog

CHANGE = ChangeId(7, "a")
CURSORS = Cursors(b"secret")


class Walk(NamedTuple):
    """Position and size of a page, and its order."""

    after: int
    limit: int
    is_descending: bool


WALKS = st.builds(
    Walk, after=st.integers(0, 45), limit=st.integers(1, 12), is_descending=st.booleans()
)


def request_of(walk: Walk, **given: str) -> PageRequest:
    sort = {"sort": "-id" if walk.is_descending else "id"}
    query = ListQuery.model_validate(sort | {"limit": str(walk.limit)} | given)
    bound_to = Selection.of(query, user_id=None).bound_to(PATH)
    if walk.after:
        cursor = CURSORS.encode([walk.after], bound_to=bound_to)
        query = ListQuery.model_validate(
            sort | {"limit": str(walk.limit), "cursor": cursor} | given
        )
    return PageRequests(CURSORS).for_all(query, str(walk).encode(), prefix="")


def product(product_id: int) -> list[object]:
    return [product_id if name == "id" else f"{name} {product_id}" for name in FIELDS]


def after(ids: Sequence[int], walk: Walk) -> list[int]:
    """Return the ids of a page and one more, from the list of all."""
    if walk.is_descending:
        return [each for each in sorted(ids, reverse=True) if each < walk.after][: walk.limit + 1]
    return [each for each in sorted(ids) if each > walk.after][: walk.limit + 1]


def read(cache: RangeCache, ids: Sequence[int], walk: Walk, change: ChangeId = CHANGE) -> None:
    """Cache the products of a page."""
    request = request_of(walk)
    rows = DecodedRows([product(each) for each in after(ids, walk)])
    cache.add(range_of(request, page_of(request, change, rows)))


def found(cache: RangeCache, walk: Walk) -> list[int] | None:
    """Return the ids of a page and one more, from the cache."""
    request = request_of(walk)
    ranges = cache.find(request)
    if ranges is None:
        return None
    rows = rows_of(request, ranges)
    assert [rows[index]["id"] for index in range(len(rows))] == [
        rows.id_of(index) for index in range(len(rows))
    ]
    return [rows.id_of(index) for index in range(len(rows))]


def is_range(walk: Walk) -> bool:
    return request_of(walk).is_range and not (walk.is_descending and walk.after == 1)


class TestPages:
    @given(
        ids=st.sets(st.integers(1, 40)),
        reads=st.lists(WALKS, max_size=12),
        wanted=st.lists(WALKS, min_size=1, max_size=12),
        max_bytes=st.sampled_from([2000, 6000, 1 << 20]),
    )
    def test_composed_pages_have_the_products_of_all(
        self, ids: set[int], reads: list[Walk], wanted: list[Walk], max_bytes: int
    ) -> None:
        cache = RangeCache(max_bytes=max_bytes)
        for walk in filter(is_range, reads):
            read(cache, sorted(ids), walk)
            if max_bytes == 1 << 20:
                # The last page is found again, but for the product behind it.
                known = found(cache, walk._replace(limit=max(1, walk.limit - 1)))
                assert known is not None or walk.limit == 1
        for walk in filter(is_range, wanted):
            assert found(cache, walk) in (None, after(sorted(ids), walk))

    def test_page_between_others_is_composed_of_both(self) -> None:
        ids = range(1, 31)
        cache = RangeCache()
        for start in (31, 21, 11):
            read(cache, ids, Walk(start, 10, True))

        assert found(cache, Walk(26, 10, True)) == list(range(25, 14, -1))
        assert found(cache, Walk(15, 10, False)) == list(range(16, 27))
        assert found(cache, Walk(5, 20, True)) == [4, 3, 2, 1]
        # What comes after the greatest id was never read.
        assert found(cache, Walk(25, 10, False)) is None
        read(cache, ids, Walk(27, 10, False))
        assert found(cache, Walk(25, 10, False)) == list(range(26, 31))

    def test_page_with_a_gap_is_not_composed(self) -> None:
        cache = RangeCache()
        read(cache, range(1, 31), Walk(31, 10, True))
        read(cache, range(1, 31), Walk(20, 10, True))

        # 20 was on neither page.
        assert found(cache, Walk(26, 3, True)) == [25, 24, 23, 22]
        assert found(cache, Walk(26, 10, True)) is None

    def test_later_range_replaces_the_overlap_of_earlier_ones(self) -> None:
        cache = RangeCache()
        read(cache, range(1, 31), Walk(31, 20, True))
        changed = ChangeId(8, "b")
        read(cache, [*range(1, 18), 22], Walk(25, 5, True), changed)

        request = request_of(Walk(30, 9, True))
        ranges = cache.find(request)
        assert ranges is not None
        assert [(each.first, each.last, each.change) for each in ranges] == [
            (25, 30, CHANGE),
            (14, 24, changed),
        ]
        assert found(cache, Walk(30, 9, True)) == [29, 28, 27, 26, 25, 22, 17, 16, 15, 14]

    def test_many_empty_ranges_are_not_looked_through(self) -> None:
        cache = RangeCache()
        for number in range(1, MAX_RANGES + 1):
            cache.add(CachedRange(CHANGE, number, number, array("q"), []))
        assert found(cache, Walk(MAX_RANGES + 1, 5, True)) == []
        cache.add(CachedRange(CHANGE, MAX_RANGES + 1, MAX_RANGES + 1, array("q"), []))
        assert found(cache, Walk(MAX_RANGES + 2, 5, True)) is None

    def test_end_of_the_ids_is_the_end_of_the_list(self) -> None:
        cache = RangeCache()
        read(cache, [MAX_ID - 1, MAX_ID], Walk(MAX_ID - 2, 5, False))

        assert found(cache, Walk(MAX_ID - 1, 5, False)) == [MAX_ID]

    async def test_thousands_of_ranges_are_replaced_in_one_short_step(self) -> None:
        cache = RangeCache()
        for number in range(1, 40_001):
            cache.add(CachedRange(CHANGE, number, number, array("q", [number]), [b"{}"]))

        with Watchdog():
            cache.add(CachedRange(CHANGE, 1, 40_000, array("q"), []))

        assert found(cache, Walk(40_001, 5, True)) == []


class TestCapacity:
    def test_least_recently_used_range_is_evicted_first(self) -> None:
        ranges = [
            CachedRange(CHANGE, first, first + 9, array("q", [first]), [b'{"id":%d}' % first])
            for first in (1, 11, 21)
        ]
        cache = RangeCache(max_bytes=sum(each.size for each in ranges[:2]))
        cache.add(ranges[0])
        cache.add(ranges[1])
        cache.use([ranges[0]], CHANGE)

        cache.add(ranges[2])

        assert found(cache, Walk(10, 1, False)) is None
        assert found(cache, Walk(11, 1, True)) == [1]
        assert found(cache, Walk(31, 1, True)) is None

    def test_range_larger_than_the_cache_is_not_kept(self) -> None:
        cache = RangeCache(max_bytes=1000)
        cache.add(CachedRange(CHANGE, 1, 10, array("q", [1]), [b"x" * 1000]))
        assert found(cache, Walk(11, 1, True)) is None

    @pytest.mark.parametrize("products", [0, 1, 20])
    def test_size_covers_the_memory_that_is_taken(self, products: int) -> None:
        cache = RangeCache()

        with memory_traced() as grown:
            for number in range(2000):
                first = 1_000_000 + 100 * number
                ids = array("q", range(first, first + products))
                objects = [b'{"id":%d,"name":"%b"}' % (each, b"x" * 100) for each in ids]
                change = ChangeId(first, f"token {first}")
                cache.add(CachedRange(change, first, first + 99, ids, objects))

        assert grown() < sum(each.size for each in cache._ranges.values()) < 1.5 * grown()


class TestRanges:
    @pytest.mark.parametrize(
        "given",
        [{"min_price": "1"}, {"max_price": "1"}, {"q": "lamp"}, {"ids": "1"}, {"total": "true"}],
        ids=str,
    )
    def test_filtered_and_counted_pages_are_no_ranges(self, given: dict[str, str]) -> None:
        assert not request_of(Walk(0, 5, False), **given).is_range

    def test_page_of_the_newest_is_no_range(self) -> None:
        assert not request_of(Walk(0, 5, True)).is_range
        assert request_of(Walk(9, 5, True)).is_range
        assert request_of(Walk(0, 5, False)).is_range

    def test_chosen_fields_are_those_of_the_products(self) -> None:
        cache = RangeCache()
        read(cache, range(1, 31), Walk(0, 10, False))
        request = request_of(Walk(3, 2, False), fields="name,id")
        ranges = cache.find(request)
        assert ranges is not None
        rows = rows_of(request, ranges)
        assert orjson.loads(rows.json(2, ["name", "id"])) == [
            {"name": "name 4", "id": 4},
            {"name": "name 5", "id": 5},
        ]
