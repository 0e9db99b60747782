"""Request for one page of a list: filters, sort order, position and fields."""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from catalog.http.pagination import Cursors, Place
from catalog.http.request import parse_query
from catalog.products.queries import FEW_ROWS
from catalog.products.schemas import PATH, ListQuery, MyListQuery
from catalog.products.selection import Position, Selection

MY_PATH = f"{PATH}/my"

MAX_CACHED = 1024
MAX_QUERY_BYTES = 512
"""Cached requests of a kind, and the length of their queries."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Parsed request for one page of a list.

    Attributes:
        query: the validated query parameters.
        selection: filters and sort order.
        place: the position at which the page begins.
        query_string: the parameters as the client wrote them, for the link to the next page.
        key: the cache key of the page.
    """

    query: MyListQuery
    selection: Selection
    place: Place
    query_string: bytes
    key: Hashable

    @property
    def given(self) -> Iterable[tuple[str, str]]:
        """The parameters as the client sent them."""
        return parse_query(self.query_string).items(multi=True)

    @property
    def after(self) -> Position | None:
        """The keyset position after which the page begins; None for the first page."""
        return tuple(self.place.after) if self.place.after else None

    @property
    def is_light(self) -> bool:
        """Whether the page is fast to read, so that it can be batched with others."""
        is_short = self.query.limit <= FEW_ROWS and not self.query.total
        return is_short and not self.selection.terms

    @property
    def is_range(self) -> bool:
        """Whether the page has all products in a range of ids, other than that of the newest."""
        selection = self.selection
        is_filtered = bool(selection.filters or selection.terms)
        is_newest = selection.sort == "-id" and self.after is None
        return selection.sort_column == "id" and not (is_filtered or is_newest or self.query.total)

    @property
    def after_id(self) -> int:
        """The id after which a range begins; 0 for the start."""
        return int(self.after[-1]) if self.after else 0

    @property
    def is_descending(self) -> bool:
        """Whether smaller values of the sort column follow."""
        return self.selection.sort.startswith("-")


class PageRequests:
    """Builder of page requests.

    They are cached by their query, because many clients ask for the same page, and one for its own
    page again and again.

    Args:
        cursors: verifies the clients' cursors.
    """

    def __init__(self, cursors: Cursors) -> None:
        self._cursors = cursors
        # Apart from each other, so that owners do not evict what all clients ask for.
        self._cached: OrderedDict[Hashable, PageRequest] = OrderedDict()
        self._cached_own: OrderedDict[Hashable, PageRequest] = OrderedDict()

    def for_all(self, query: ListQuery, query_string: bytes, *, prefix: str) -> PageRequest:
        """Return the request for a page of all products.

        Args:
            query: the validated query.
            query_string: the query as the client wrote it.
            prefix: the path under which the service is published, for the link to the next page.

        Raises:
            InvalidCursor: the cursor is invalid or belongs to another list.
        """
        # Pages under different prefixes differ in that link.
        key = None, prefix, query_string
        cached = self._cached.get(key)
        if cached is not None:
            return cached
        selection = Selection.of(query, user_id=query.user_id)
        bound_to = selection.bound_to(PATH)
        place = Place(self._cursors, query.cursor, path=prefix + PATH, bound_to=bound_to)
        return _stored(self._cached, PageRequest(query, selection, place, query_string, key))

    def for_owner(
        self, query: MyListQuery, query_string: bytes, owner_id: int, *, prefix: str
    ) -> PageRequest:
        """Return the request for a page of an owner's products in the owner's own list.

        Raises:
            InvalidCursor: the cursor is invalid or belongs to another list.
        """
        key = owner_id, prefix, query_string
        cached = self._cached_own.get(key)
        if cached is not None:
            return cached
        # Bound to the list and not to the caller: the list shows only the caller's own anyway.
        bound_to = Selection.of(query, user_id=None).bound_to(MY_PATH)
        place = Place(self._cursors, query.cursor, path=prefix + MY_PATH, bound_to=bound_to)
        selection = Selection.of(query, user_id=owner_id)
        return _stored(self._cached_own, PageRequest(query, selection, place, query_string, key))


def _stored(cache: OrderedDict[Hashable, PageRequest], request: PageRequest) -> PageRequest:
    """Cache a request, unless its query is long."""
    if len(request.query_string) <= MAX_QUERY_BYTES:
        cache[request.key] = request
        if len(cache) > MAX_CACHED:
            cache.popitem(last=False)
    return request
