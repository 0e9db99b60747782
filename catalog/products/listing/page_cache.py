"""Rendered pages: equal reads that wait together share one query, and what is true serves again.

Nothing here is ever out of date, and nothing has to be invalidated. A caller joins only a query
that begins after the call, so it is shown every write that had been acknowledged by then. And
bytes serve again only when the last change, read after the call as well, is still the one that they
were made at, position and token; reading it is a share of one tiny query.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.concurrency.batch_loader import BatchLoader
from catalog.concurrency.single_flight import SingleFlight
from catalog.db.database import Database
from catalog.errors import DatabaseUnavailable, Overloaded
from catalog.http.conditional import etag_of
from catalog.http.pagination import link_headers
from catalog.observability.metrics import PAGES, count_kept_page, count_rejection, observe_position
from catalog.products.changes import change_log
from catalog.products.listing import page_reader
from catalog.products.listing.page_request import PageRequest
from catalog.products.models import ChangeId

T = TypeVar("T")

MAX_READS = 384
"""Different pages that are read at a time in one process, most of them waiting for a connection;
that many take about half a second."""

KEPT_BYTES = 16 * 1024 * 1024
"""Of rendered pages in one process; those that were not asked for the longest go first."""

_KEPT_BESIDES = 1024
"""Bytes that a kept page takes besides its body, or about."""


@dataclass(frozen=True, slots=True)
class RenderedPage:
    """A page as it goes out.

    Attributes:
        change: the last one that is included; so are all before it.
        body: JSON.
        etag: the strong entity tag of the body.
        headers: that describe it, besides the tag.
    """

    change: ChangeId
    body: bytes
    etag: str
    headers: dict[str, str]


class Pages:
    """Reads and renders pages; one for each process.

    Args:
        database: where they are read.
        kept_bytes: of pages that may serve again.
        max_reads: different pages that are read at a time.
    """

    def __init__(
        self, database: Database, *, kept_bytes: int = KEPT_BYTES, max_reads: int = MAX_READS
    ) -> None:
        self._database = database
        self._change = SingleFlight(self._read_change, limit=database.read_limit)
        self._together = BatchLoader(
            self._read_together, trips=database.max_readers, patience=database.patience
        )
        self._heavy = asyncio.Semaphore(max(1, database.max_readers - 1))
        self._reads: dict[Hashable, SingleFlight[RenderedPage]] = {}
        self._max_reads = max_reads
        self._kept: OrderedDict[Hashable, RenderedPage] = OrderedDict()
        self._kept_bytes = 0
        self._max_kept_bytes = kept_bytes
        self._reads_before = self._reads_since = 0

    def is_in_demand(self) -> bool:
        """Whether pages were asked for, and not just once, before or since the last commit.

        nginx asks for one, too, to see whether anything has changed.
        """
        return max(self._reads_before, self._reads_since) > 1

    async def read(self, asked: PageRequest) -> RenderedPage:
        """A page as it is now.

        Raises:
            Overloaded: too many others are being read.
            DatabaseUnavailable, DatabaseBusy: as ``Database.reading``.
        """
        self._reads_since += 1
        began = asyncio.get_running_loop().time()
        kept = self._kept.get(asked.key)
        if kept is not None and await self._change.read() == kept.change:
            if asked.key in self._kept:
                self._kept.move_to_end(asked.key)
            count_kept_page()
            return kept
        joined = self._reads.get(asked.key)
        if joined is None:
            if len(self._reads) >= self._max_reads:
                count_rejection("pages")
                raise Overloaded("Too many pages are being read.")
            read = partial(self._read_page, asked)
            joined = SingleFlight(
                read,
                when_idle=partial(self._forget_read, asked.key),
                limit=self._database.read_limit,
            )
            self._reads[asked.key] = joined
        result = "joined" if joined.is_awaited else "read"
        # Both reads together take no longer than one may.
        page = await joined.read(since=began)
        PAGES.labels(result).inc()
        return page

    def forget(self) -> None:
        """Keep nothing of what is kept: something has been committed.

        It would be noticed anyway, by reading the last change; that is what this spares.
        """
        self._kept.clear()
        self._kept_bytes = 0
        self._reads_before, self._reads_since = self._reads_since, 0

    async def _read_change(self, begin: Callable[[], None]) -> ChangeId:
        try:
            last: ChangeId = await self._database.reading(
                _beginning, begin, change_log.current_change
            )
        except DatabaseUnavailable:
            # It may come back restored, by a release that leaves the token as it is.
            self.forget()
            raise
        observe_position(last.position)
        return last

    async def _read_page(self, asked: PageRequest, begin: Callable[[], None]) -> RenderedPage:
        wanted = asked.wanted
        if wanted.is_light:
            page = await self._together.ask(wanted, begin)
        else:
            page = await self._read_heavy(wanted, begin)
        observe_position(page.change.position)
        rendered = _rendered(asked, page)
        self._keep(asked.key, rendered)
        return rendered

    async def _read_heavy(
        self, wanted: page_reader.PageQuery, begin: Callable[[], None]
    ) -> page_reader.Page:
        """Read what takes longer, and leave a connection to all else."""
        try:
            async with asyncio.timeout(self._database.patience):
                await self._heavy.acquire()
        except TimeoutError:
            count_rejection("pages")
            raise Overloaded("Too many long pages are being read.") from None
        try:
            pages: list[page_reader.Page] = await self._database.reading(
                _beginning, begin, page_reader.list_products, wanted
            )
        finally:
            self._heavy.release()
        return pages[0]

    async def _read_together(
        self, take: Callable[[], Sequence[page_reader.PageQuery]]
    ) -> list[page_reader.Page]:
        return await self._database.reading(_taking, take, page_reader.list_products)

    def _forget_read(self, key: Hashable) -> None:
        del self._reads[key]

    def _keep(self, key: Hashable, page: RenderedPage) -> None:
        self._drop(self._kept.pop(key, None))
        if _size(page) > self._max_kept_bytes // 4:
            # It would drive out all others.
            return
        self._kept[key] = page
        self._kept_bytes += _size(page)
        while self._kept_bytes > self._max_kept_bytes:
            self._drop(self._kept.popitem(last=False)[1])

    def _drop(self, page: RenderedPage | None) -> None:
        if page is not None:
            self._kept_bytes -= _size(page)


async def _beginning(
    connection: AsyncConnection, begin: Callable[[], None], work: Any, /, *args: Any
) -> Any:
    """Say that it begins, now that there is a connection, and read."""
    begin()
    return await work(connection, *args)


async def _taking(
    connection: AsyncConnection, take: Callable[[], Sequence[Any]], work: Any, /
) -> Any:
    """Take what there is to read, now that there is a connection, and read it if it is anything."""
    taken = take()
    return await work(connection, *taken) if taken else []


def _size(page: RenderedPage) -> int:
    return len(page.body) + _KEPT_BESIDES


def _rendered(asked: PageRequest, page: page_reader.Page) -> RenderedPage:
    next_url = asked.place.next_url(page.last, asked.given)
    body = b'{"products":%b,"next":%b%b}' % (
        page.products.json(page.size, asked.query.fields),
        orjson.dumps(next_url),
        b"" if page.total is None else b',"total":%d' % page.total,
    )
    headers = {**change_log.headers(page.change), **link_headers(next_url)}
    return RenderedPage(page.change, body, etag_of(body), headers)
