"""Cache of rendered pages, with single-flight reads.

It never serves stale pages, and needs no invalidation. A caller joins only a query that begins
after the call, so the page includes every write acknowledged before it. A cache hit requires that
the last change, also read after the call, still has the position and token of the cached page, or
that the log shows no change since that affects the page. Both reads are small queries, shared by
concurrent callers.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.concurrency.batch_loader import BatchLoader
from catalog.concurrency.fair_semaphore import FairSemaphore
from catalog.concurrency.single_flight import SingleFlight
from catalog.db.database import Database
from catalog.db.deadlines import deadline_start
from catalog.db.error_translation import did_not_answer
from catalog.db.read_connection import ReadConnection
from catalog.errors import DatabaseUnavailable, Overloaded
from catalog.http.pagination import link_headers
from catalog.http.replies.conditional import etag_of
from catalog.http.replies.reply import Reply
from catalog.observability.metrics import PAGES, count_page_hit, count_rejection, observe_position
from catalog.products.changes import change_counter, change_ids
from catalog.products.changes.change_ids import ChangeId
from catalog.products.changes.recent_changes import RecentChanges
from catalog.products.listing import page_reader
from catalog.products.listing.page_reader import page_of
from catalog.products.listing.page_request import PageRequest
from catalog.products.listing.range_cache import CachedRange, RangeCache, range_of, rows_of
from catalog.products.models import ChangeType
from catalog.products.overload import page_expired, too_many

MAX_READS = 512
"""Distinct pages read at a time in one process, most of them waiting for a connection; that many
take about half a second."""

CACHE_BYTES = 16 * 1024 * 1024
"""Capacity of the cache in one process; the least recently used pages are evicted first."""

MAX_ONCE = 512
"""Composed pages of which it is noted that they were requested, so that those requested again are
cached as they are sent."""

_BESIDES_PAGE = 3072
"""Approximate overhead of a cached page in bytes, besides its body, its query and its links: the
header fields, as given and as they are sent."""

_LINKS = 4
"""Copies of the link to the next page, among the header fields."""


@dataclass(frozen=True, slots=True)
class RenderedPage:
    """Page as it is sent.

    Attributes:
        change: the last change included in the page, with all before it.
        reply: the response: JSON, its strong entity tag, and the page's headers.
        size: approximate size in memory, in bytes.
        span: the ids of all products whose changes affect the page; None if any change may.
    """

    change: ChangeId
    reply: Reply
    size: int
    span: range | None = None

    @property
    def body(self) -> bytes:
        """The JSON."""
        body = self.reply.body
        assert isinstance(body, bytes)  # noqa: S101 (tells mypy)
        return body

    def at(self, change: ChangeId) -> "RenderedPage":
        """Return the page with a later change, none up to which has affected it."""
        headers = {**self.reply.headers, **change_ids.position_headers(change)}
        return replace(self, change=change, reply=Reply(self.body, headers=headers))


Connect = Callable[[], AbstractAsyncContextManager[ReadConnection]]
PageLoader = BatchLoader[Hashable, PageRequest, ReadConnection, page_reader.Page, RenderedPage]


class PageCache:
    """Reader, renderer and cache of pages; one per process.

    Args:
        database: the database to read from.
        max_bytes: capacity of the cache.
        max_reads: distinct pages read at a time.
    """

    def __init__(
        self, database: Database, *, max_bytes: int = CACHE_BYTES, max_reads: int = MAX_READS
    ) -> None:
        self._database = database
        self._last_change = SingleFlight(
            database.connection,
            _read_change,
            deadline_seconds=database.deadlines.read,
            timed_out=did_not_answer,
        )
        self._recent = RecentChanges()
        self._log = SingleFlight(
            database.connection,
            self._recent.catch_up,
            deadline_seconds=database.deadlines.read,
            timed_out=did_not_answer,
        )
        self._light = self._loader(
            database.connection,
            max_concurrent_reads=database.max_readers,
            wait_seconds=database.deadlines.checkout,
            expired=page_expired,
        )
        # Slow pages never take the last connection of the pool, and each is read alone.
        self._heavy_permits = FairSemaphore(
            max(1, database.max_readers - 1),
            wait_seconds=database.deadlines.checkout,
            expired=too_many("Too many long pages are being read.", "pages"),
        )
        self._heavy = self._loader(
            self._heavy_connection, max_concurrent_reads=max_reads, max_batch=1
        )
        self._max_reads = max_reads
        self._ranges = RangeCache()
        self._cached: OrderedDict[Hashable, RenderedPage] = OrderedDict()
        self._cached_bytes = 0
        # Keys of the pages that any change affects.
        self._short_lived: set[Hashable] = set()
        self._composed_once: OrderedDict[Hashable, None] = OrderedDict()
        self._max_bytes = max_bytes
        self._reads_before = self._reads_since = 0

    def _loader(self, connect: Connect, *, max_concurrent_reads: int, **options: Any) -> PageLoader:
        return BatchLoader(
            connect,
            page_reader.read_pages,
            self._render,
            max_concurrent_reads=max_concurrent_reads,
            deadline_seconds=self._database.deadlines.read,
            timed_out=did_not_answer,
            **options,
        )

    @asynccontextmanager
    async def _heavy_connection(self) -> AsyncIterator[ReadConnection]:
        async with self._heavy_permits.permit(), self._database.connection() as connection:
            yield connection

    def is_in_demand(self) -> bool:
        """Return whether more than one page was requested since the last commit, or before it.

        A single request does not count: to poll the position, nginx sends ``HEAD`` for a page with
        ``limit=1``, up to 20 times a second.
        """
        return max(self._reads_before, self._reads_since) > 1

    async def read(self, request: PageRequest) -> RenderedPage:
        """Return the current page, from the cache if it is still valid.

        Raises:
            Overloaded: too many distinct pages are being read.
            DatabaseUnavailable, DatabaseBusy: as ``Database.connection``.
        """
        self._reads_since += 1
        began = deadline_start()
        cached = self._cached.get(request.key)
        if cached is not None and (current := await self._current(cached, began)) is not None:
            # Unless another request has read the page meanwhile, or it was dropped.
            if self._cached.get(request.key) is cached:
                self._cached[request.key] = current
                self._cached.move_to_end(request.key)
            count_page_hit()
            return current
        if request.is_range and (composed := await self._composed(request, began, cached)):
            count_page_hit()
            return composed
        loader = self._light if request.is_light else self._heavy
        if request.key not in loader and len(self._light) + len(self._heavy) >= self._max_reads:
            count_rejection("pages")
            raise Overloaded("Too many pages are being read.")
        result = "shared" if loader.is_awaited(request.key) else "miss"
        # All reads of a request have the time limit of one together.
        page = await loader.load(request.key, request, since=began)
        PAGES.labels(result).inc()
        return page

    async def _current(self, page: RenderedPage, began: float) -> RenderedPage | None:
        """Return a page as of the last change or a later one; None if a change has affected it."""
        current = await self._catch_up([page], began)
        if current is None or not self._is_current(page, current):
            return None
        return page if current == page.change else page.at(current)

    async def _composed(
        self, request: PageRequest, began: float, outdated: RenderedPage | None
    ) -> RenderedPage | None:
        """Return a page of cached products; None if some are not cached, or have changed."""
        ranges = self._ranges.find(request)
        newest = max((each.change.position for each in ranges or ()), default=0)
        # What has changed a cached page has changed one of its ranges, unless it was read since.
        if ranges is None or (outdated is not None and newest <= outdated.change.position):
            return None
        # These, although others may be cached meanwhile: on SQLite they may include a later change
        # than the one they are read as of, and a page of both would show half of a transaction.
        current = await self._catch_up(ranges, began)
        if current is None:
            return None
        stale = [each for each in ranges if not self._is_current(each, current)]
        for each in stale:
            # Another request may have found it current as of a later change.
            if each.change.position <= current.position:
                self._ranges.drop(each)
        if stale:
            return None
        self._ranges.use(ranges, current)
        settled_id = max((each.settled_id for each in ranges), default=0)
        rows = rows_of(request, ranges)
        page = _rendered(request, page_of(request, current, rows, settled_id=settled_id))
        if self._is_repeated(request.key):
            self._store(request.key, page)
        return page

    async def _catch_up(
        self, cached: Sequence[RenderedPage | CachedRange], began: float
    ) -> ChangeId | None:
        """Return the last change or a later one, up to which all changes are known.

        None if they are not known, or if it does not matter, because any change affects what is
        cached.
        """
        recent = self._recent
        try:
            last = await self._last_change.load(since=began)
            if all(each.change == last for each in cached):
                return last
            if any(each.span is None for each in cached):
                return None
            if last not in recent:
                recent.begin(min(each.change for each in cached))
                await self._log.load(since=began)
        except DatabaseUnavailable:
            # The database may be restored before it returns, and a release without tokens leaves
            # the token as it is, so that the pages would seem valid.
            self._cached.clear()
            self._short_lived.clear()
            self._cached_bytes = 0
            self._ranges.clear()
            recent.clear()
            raise
        # The log lacks a change that was made by hand, with a position only.
        return recent.last if last in recent else None

    def _is_current(self, cached: RenderedPage | CachedRange, current: ChangeId) -> bool:
        """Return whether nothing has changed what is cached, up to what ``_catch_up`` returned."""
        if cached.change == current:
            return True
        recent, span = self._recent, cached.span
        if span is None or current not in recent or cached.change not in recent:
            return False
        if cached.change.position > current.position:
            return False
        return not recent.affect(span, since=cached.change)

    def note_commit(self) -> None:
        """Drop the pages that any change affects, after a commit.

        This is an optimization: reading the last change would reveal the stale pages anyway, and
        dropping them saves that query.
        """
        for key in tuple(self._short_lived):
            self._evict(key)
        self._reads_before, self._reads_since = self._reads_since, 0

    def _render(self, request: PageRequest, page: page_reader.Page) -> RenderedPage:
        """Render a page, once for all requests that share its read, and cache it."""
        observe_position(page.change.position)
        if request.is_range and request.is_light:
            added = range_of(request, page)
            self._ranges.add(added)
            # Their JSON is made once.
            page = page._replace(products=rows_of(request, [added]))
        rendered = _rendered(request, page)
        self._store(request.key, rendered)
        return rendered

    def _is_repeated(self, key: Hashable) -> bool:
        """Note that a page was composed; return whether that is the second time of late."""
        if key in self._composed_once:
            del self._composed_once[key]
            return True
        self._composed_once[key] = None
        if len(self._composed_once) > MAX_ONCE:
            self._composed_once.popitem(last=False)
        return False

    def _store(self, key: Hashable, page: RenderedPage) -> None:
        self._evict(key)
        if page.size > self._max_bytes // 4:
            # A page this large would evict most others.
            return
        self._cached[key] = page
        self._cached_bytes += page.size
        if page.span is None:
            self._short_lived.add(key)
        while self._cached_bytes > self._max_bytes:
            self._evict(next(iter(self._cached)))

    def _evict(self, key: Hashable) -> None:
        page = self._cached.pop(key, None)
        if page is not None:
            self._cached_bytes -= page.size
            self._short_lived.discard(key)


async def _read_change(connection: AsyncConnection) -> ChangeId:
    change = await change_counter.current_change(connection)
    observe_position(change.position)
    return change


def _rendered(request: PageRequest, page: page_reader.Page) -> RenderedPage:
    is_settled = request.selection.sort == "-id" and page.precedes_settled
    cursor = request.place.next_cursor(page.last, is_settled=is_settled)
    next_url = request.place.next_url(cursor, request.given)
    body = b'{"products":%b,"next":%b,"next_cursor":%b%b}' % (
        page.products.json(page.size, request.query.fields),
        orjson.dumps(next_url),
        orjson.dumps(cursor),
        b"" if page.total is None else b',"total":%d' % page.total,
    )
    link = link_headers(next_url)
    headers = {**change_ids.read_headers(page.change), **link, "ETag": etag_of(body)}
    if page.is_settled:
        headers[change_ids.UNAFFECTED_HEADER] = ChangeType.CREATED.value
    # Queries, and the links that repeat them, are as long as clients make them.
    texts = len(request.query_string) + _LINKS * sum(map(len, link.values()))
    size = len(body) + texts + _BESIDES_PAGE
    return RenderedPage(page.change, Reply(body, headers=headers), size, page.span)
