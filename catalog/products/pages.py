"""Rendered pages: equal reads that wait together share one query, and what is true serves again.

Nothing here is ever out of date, and nothing has to be invalidated. A caller joins only a query
that begins after the call, so it is shown every write that had been acknowledged by then. And
bytes serve again only when the last change, read after the call as well, is still the one that they
were made at, position and token; reading it is a share of one tiny query.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Self, TypeVar

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.database import Database
from catalog.db.failures import did_not_answer
from catalog.errors import DatabaseUnavailable, Overloaded, copy_of
from catalog.http.conditional import etag_of
from catalog.http.pagination import Cursors, Place, link_headers
from catalog.observability.metrics import PAGES, count_kept_page, saw_position, shed
from catalog.products import changes, service
from catalog.products.batching import Together
from catalog.products.models import ChangeId
from catalog.products.queries import Selection
from catalog.products.schemas import PATH, ListQuery, MyListQuery

T = TypeVar("T")

MY_PATH = f"{PATH}/my"

MAX_READS = 384
"""Different pages that are read at a time in one process, most of them waiting for a connection;
that many take about half a second."""

KEPT_BYTES = 16 * 1024 * 1024
"""Of rendered pages in one process; those that were not asked for the longest go first."""

_KEPT_BESIDES = 1024
"""Bytes that a kept page takes besides its body, or about."""


class Joined(Generic[T]):
    """Reads of one thing: who asks while one is under way shares the next one.

    Args:
        read: reads it. It calls what it is given at the moment from which on it sees everything
            that has been committed: who asks later is not to share this one.
        when_idle: is called when nobody waits any more.
        limit: seconds after which a caller gets DatabaseUnavailable, whichever read it
            waits for: the one under way may take its whole time before the next one begins.
    """

    def __init__(
        self,
        read: Callable[[Callable[[], None]], Awaitable[T]],
        when_idle: Callable[[], None] = lambda: None,
        limit: float = math.inf,
    ) -> None:
        self._read = read
        self._when_idle = when_idle
        self._limit = limit
        # With the time until which each waits. One timer serves all of them.
        self._waiting: list[tuple[float, asyncio.Future[T]]] = []
        self._sharing: list[tuple[float, asyncio.Future[T]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for the next read to begin."""
        return bool(self._waiting)

    async def read(self, *, since: float | None = None) -> T:
        """What is there now, or was a moment after this was called.

        Args:
            since: from when on the limit counts, by the loop's clock; from now if not given.

        Raises:
            DatabaseUnavailable: there was no answer within the limit.
            CatalogError: what the read that was shared has raised.
        """
        loop = asyncio.get_running_loop()
        # One for each: who is cancelled takes nobody along.
        future: asyncio.Future[T] = loop.create_future()
        until = (loop.time() if since is None else since) + self._limit
        self._waiting.append((until, future))
        if self._timer is None and until < math.inf:
            self._timer = loop.call_at(until, self._give_up)
        if self._task is None:
            # It serves many requests, so it has the context of none.
            self._task = loop.create_task(self._run(), context=Context())
        return await future

    def _give_up(self) -> None:
        """Tell those whose time is over, and come back for the next of the others."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now, following = loop.time(), math.inf
        for until, future in (*self._sharing, *self._waiting):
            if future.done():
                continue
            if until <= now:
                future.set_exception(did_not_answer())
            else:
                following = min(following, until)
        if following < math.inf:
            self._timer = loop.call_at(following, self._give_up)

    async def _run(self) -> None:
        sharing = self._sharing

        def begin() -> None:
            sharing.extend(self._waiting)
            self._waiting.clear()

        try:
            while any(not future.done() for _, future in self._waiting):
                sharing.clear()
                try:
                    result = await self._read(begin)
                except Exception as error:  # noqa: BLE001 (it is told to those who wait)
                    begin()
                    for _, future in sharing:
                        if not future.done():
                            future.set_exception(copy_of(error))
                else:
                    for _, future in sharing:
                        if not future.done():
                            future.set_result(result)
        finally:
            self._task = None
            begin()
            for _, future in sharing:
                future.cancel()
            sharing.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._when_idle()


@dataclass(frozen=True, slots=True)
class Asked:
    """Which page of which list.

    Attributes:
        query: what the client asks for.
        selection: which products that are.
        place: where the page begins.
        given: the parameters as the client wrote them, for the link to the next page.
        key: tells it from every other page.
    """

    query: MyListQuery
    selection: Selection
    place: Place
    given: Mapping[str, str]
    key: Hashable

    @classmethod
    def of_all(cls, query: ListQuery, cursors: Cursors, given: Mapping[str, str]) -> Self:
        """A page of everyone's products.

        Raises:
            InvalidCursor: the cursor belongs elsewhere.
        """
        selection = Selection.of(query, user_id=query.user_id)
        place = Place(cursors, query.cursor, path=PATH, bound_to=selection.bound_to(PATH))
        return cls(query, selection, place, given, key=(None, *given.items()))

    @classmethod
    def of_one(
        cls, query: MyListQuery, cursors: Cursors, given: Mapping[str, str], owner_id: int
    ) -> Self:
        """A page of what somebody offers, as they see it.

        Raises:
            InvalidCursor: the cursor belongs elsewhere.
        """
        # Bound to the list and not to the caller, to whom it shows only their own anyway.
        bound_to = Selection.of(query, user_id=None).bound_to(MY_PATH)
        place = Place(cursors, query.cursor, path=MY_PATH, bound_to=bound_to)
        selection = Selection.of(query, user_id=owner_id)
        return cls(query, selection, place, given, key=(owner_id, *given.items()))

    @property
    def wanted(self) -> service.Wanted:
        """The same as what there is to read."""
        after = tuple(self.place.after) if self.place.after else None
        return service.Wanted(self.selection, after, self.query.limit, self.query.total)


@dataclass(frozen=True, slots=True)
class Rendered:
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
        self._change = Joined(self._read_change, limit=database.read_limit)
        self._together = Together(
            self._read_together, trips=database.max_readers, patience=database.patience
        )
        self._heavy = asyncio.Semaphore(max(1, database.max_readers - 1))
        self._reads: dict[Hashable, Joined[Rendered]] = {}
        self._max_reads = max_reads
        self._kept: OrderedDict[Hashable, Rendered] = OrderedDict()
        self._kept_bytes = 0
        self._max_kept_bytes = kept_bytes
        self._reads_before = self._reads_since = 0

    def is_in_demand(self) -> bool:
        """Whether pages were asked for, and not just once, before or since the last commit.

        nginx asks for one, too, to see whether anything has changed.
        """
        return max(self._reads_before, self._reads_since) > 1

    async def read(self, asked: Asked) -> Rendered:
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
                shed("pages")
                raise Overloaded("Too many pages are being read.")
            read = partial(self._read_page, asked)
            joined = Joined(
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
            last: ChangeId = await self._database.reading(_beginning, begin, changes.current_change)
        except DatabaseUnavailable:
            # It may come back restored, by a release that leaves the token as it is.
            self.forget()
            raise
        saw_position(last.position)
        return last

    async def _read_page(self, asked: Asked, begin: Callable[[], None]) -> Rendered:
        wanted = asked.wanted
        if wanted.is_light:
            page = await self._together.ask(wanted, begin)
        else:
            page = await self._read_heavy(wanted, begin)
        saw_position(page.change.position)
        rendered = _rendered(asked, page)
        self._keep(asked.key, rendered)
        return rendered

    async def _read_heavy(self, wanted: service.Wanted, begin: Callable[[], None]) -> service.Page:
        """Read what takes longer, and leave a connection to all else."""
        try:
            async with asyncio.timeout(self._database.patience):
                await self._heavy.acquire()
        except TimeoutError:
            shed("pages")
            raise Overloaded("Too many long pages are being read.") from None
        try:
            pages: list[service.Page] = await self._database.reading(
                _beginning, begin, service.list_products, wanted
            )
        finally:
            self._heavy.release()
        return pages[0]

    async def _read_together(
        self, take: Callable[[], Sequence[service.Wanted]]
    ) -> list[service.Page]:
        return await self._database.reading(_taking, take, service.list_products)

    def _forget_read(self, key: Hashable) -> None:
        del self._reads[key]

    def _keep(self, key: Hashable, page: Rendered) -> None:
        self._drop(self._kept.pop(key, None))
        if _size(page) > self._max_kept_bytes // 4:
            # It would drive out all others.
            return
        self._kept[key] = page
        self._kept_bytes += _size(page)
        while self._kept_bytes > self._max_kept_bytes:
            self._drop(self._kept.popitem(last=False)[1])

    def _drop(self, page: Rendered | None) -> None:
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


def _size(page: Rendered) -> int:
    return len(page.body) + _KEPT_BESIDES


def _rendered(asked: Asked, page: service.Page) -> Rendered:
    next_url = asked.place.next_url(page.last, asked.given)
    body = b'{"products":%b,"next":%b%b}' % (
        page.products.json(page.size, asked.query.fields),
        orjson.dumps(next_url),
        b"" if page.total is None else b',"total":%d' % page.total,
    )
    headers = {**changes.headers(page.change), **link_headers(next_url)}
    return Rendered(page.change, body, etag_of(body), headers)
