"""Cache of products by ranges of ids, of which pages are composed.

Clients that walk through a list begin at different products and choose different limits, so most
deep pages are requested only once; but they overlap. So the products of the pages that were read
are cached, with the ranges of ids in which there are no others.
"""

from array import array
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from catalog.db.columns import MAX_ID
from catalog.products.changes.change_ids import ChangeId
from catalog.products.listing.page_reader import Page
from catalog.products.listing.page_request import PageRequest
from catalog.products.listing.page_rows import with_fields

CACHE_BYTES = 32 * 1024 * 1024
"""Capacity of the cache in one process, some 100,000 products; the least recently used ranges are
evicted first."""

MAX_RANGES = 32
"""Ranges looked through for a page: where many products were deleted, ranges may be empty."""

_BESIDES_PRODUCT = 64
_BESIDES_RANGE = 640
"""Approximate overhead in bytes, besides the JSON."""


@dataclass(slots=True)
class CachedRange:
    """Range of ids and all products in it, as of a change.

    Attributes:
        change: the last change included, with all before it.
        first: the least id of the range.
        last: its greatest id.
        ids: the ids of the products, in ascending order.
        objects: the JSON object of each.
        settled_id: the id up to which creating products has no effect; 0 if it is not known.
        size: approximate size in memory, in bytes.
    """

    change: ChangeId
    first: int
    last: int
    ids: "array[int]"
    objects: list[bytes]
    settled_id: int = 0
    size: int = field(init=False)

    def __post_init__(self) -> None:
        """Compute the size."""
        self.size = sum(map(len, self.objects)) + _BESIDES_PRODUCT * len(self.ids) + _BESIDES_RANGE

    @property
    def span(self) -> range:
        """The ids of all products whose changes affect the range."""
        return range(self.first, self.last + 1)

    def between(self, first: int, last: int) -> "CachedRange":
        """Return the part of the range from one id to another."""
        low, high = bisect_left(self.ids, first), bisect_right(self.ids, last)
        ids, objects = self.ids[low:high], self.objects[low:high]
        return CachedRange(self.change, first, last, ids, objects, self.settled_id)


class CachedRows:
    """Products as JSON objects; implements ``PageRows``.

    Args:
        ids: their ids.
        objects: their JSON objects, in the same order.
    """

    def __init__(self, ids: Sequence[int], objects: list[bytes]) -> None:
        self._ids = ids
        self._objects = objects

    def __len__(self) -> int:
        """Return the number of products."""
        return len(self._objects)

    @property
    def most_bytes(self) -> int:
        """Their size as JSON in bytes."""
        return sum(map(len, self._objects)) + len(self._objects)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the JSON members of one product."""
        product: dict[str, Any] = orjson.loads(self._objects[index])
        return product

    def id_of(self, index: int) -> int:
        """Return the id of one product."""
        return self._ids[index]

    def objects(self, count: int) -> list[bytes]:
        """Return the JSON objects of the first ``count`` products."""
        return self._objects[:count]

    def json(self, count: int, fields: Sequence[str] | None = None) -> bytes:
        """Encode the first ``count`` products as a JSON array; see ``PageRows.json``."""
        array = b"[%b]" % b",".join(self._objects[:count])
        return array if fields is None else with_fields(array, fields)


class RangeCache:
    """Ranges of ids that do not overlap, each with its products.

    It does not know whether they are current: each range has the change of its read.

    Args:
        max_bytes: capacity of the cache.
    """

    def __init__(self, *, max_bytes: int = CACHE_BYTES) -> None:
        self._max_size = max_bytes
        self._size = 0
        # By their least ids, the least recently used first.
        self._ranges: OrderedDict[int, CachedRange] = OrderedDict()
        self._firsts: list[int] = []

    def clear(self) -> None:
        """Drop all ranges."""
        self._ranges.clear()
        self._firsts.clear()
        self._size = 0

    def add(self, added: CachedRange) -> None:
        """Cache a range; of those that overlap it, only the parts outside stay."""
        low = bisect_right(self._firsts, added.first)
        if low and self._ranges[self._firsts[low - 1]].last >= added.first:
            low -= 1
        high = bisect_right(self._firsts, added.last)
        # All at once: where many products were deleted, there may be thousands.
        replaced = [self._ranges.pop(first) for first in self._firsts[low:high]]
        del self._firsts[low:high]
        self._size -= sum(cached.size for cached in replaced)
        if replaced and (cached := replaced[0]).first < added.first:
            self._put(cached.between(cached.first, added.first - 1))
        if replaced and (cached := replaced[-1]).last > added.last:
            self._put(cached.between(added.last + 1, cached.last))
        self._put(added)
        while self._size > self._max_size:
            self.drop(next(iter(self._ranges.values())))

    def find(self, request: PageRequest) -> list[CachedRange] | None:
        """Return the ranges with the products of a page, and one more; None if some are not cached.

        They have fewer products if there are no more.
        """
        found: list[CachedRange] = []
        missing = request.query.limit + 1
        edge = request.after_id + (-1 if request.is_descending else 1)
        while missing > 0 and 1 <= edge <= MAX_ID:
            cached = self._around(edge)
            if cached is None or len(found) == MAX_RANGES:
                return None
            found.append(cached)
            if request.is_descending:
                missing -= bisect_right(cached.ids, edge)
                edge = cached.first - 1
            else:
                missing -= len(cached.ids) - bisect_left(cached.ids, edge)
                edge = cached.last + 1
        return found

    def use(self, ranges: Iterable[CachedRange], change: ChangeId) -> None:
        """Note that ranges are used, and current as of a change."""
        for cached in ranges:
            cached.change = change
            if self._holds(cached):
                self._ranges.move_to_end(cached.first)

    def drop(self, cached: CachedRange) -> None:
        """Drop a range, unless that has happened."""
        if not self._holds(cached):
            return
        del self._ranges[cached.first]
        del self._firsts[bisect_left(self._firsts, cached.first)]
        self._size -= cached.size

    def _holds(self, cached: CachedRange) -> bool:
        return self._ranges.get(cached.first) is cached

    def _around(self, product_id: int) -> CachedRange | None:
        index = bisect_right(self._firsts, product_id) - 1
        cached = self._ranges[self._firsts[index]] if index >= 0 else None
        return cached if cached is not None and cached.last >= product_id else None

    def _put(self, cached: CachedRange) -> None:
        self._ranges[cached.first] = cached
        insort(self._firsts, cached.first)
        self._size += cached.size


def range_of(request: PageRequest, page: Page) -> CachedRange:
    """Return the range of ids whose products are those of a page.

    Args:
        request: a request for a range.
        page: its page, as it was read.
    """
    ids = array("q", map(page.products.id_of, range(page.size)))
    objects = page.products.objects(page.size)
    end = None if page.last is None else int(page.last[-1])
    if request.is_descending:
        ids.reverse()
        objects.reverse()
        first, last = end or 1, request.after_id - 1
    else:
        first, last = request.after_id + 1, end or MAX_ID
    return CachedRange(page.change, first, last, ids, objects, page.settled_id)


def rows_of(request: PageRequest, ranges: Iterable[CachedRange]) -> CachedRows:
    """Return the products of a page, and one more, from the ranges of ``RangeCache.find``."""
    ids: list[int] = []
    objects: list[bytes] = []
    for cached in ranges:
        if request.is_descending:
            behind = slice(bisect_left(cached.ids, request.after_id))
            ids += cached.ids[behind][::-1]
            objects += cached.objects[behind][::-1]
        else:
            behind = slice(bisect_right(cached.ids, request.after_id), None)
            ids += cached.ids[behind]
            objects += cached.objects[behind]
    count = request.query.limit + 1
    return CachedRows(ids[:count], objects[:count])
