"""Request for one page of a list: filters, sort order, position and fields."""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from catalog.http.pagination import Cursors, Place
from catalog.http.request import parse_query
from catalog.products.listing.page_reader import PageQuery
from catalog.products.schemas import PATH, ListQuery, MyListQuery
from catalog.products.selection import Selection

MY_PATH = f"{PATH}/my"

MAX_KNOWN = 1024
MAX_KNOWN_BYTES = 512
"""Cached requests, and the length of their queries."""


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
    def wanted(self) -> PageQuery:
        """Database query for this page."""
        after = tuple(self.place.after) if self.place.after else None
        return PageQuery(self.selection, after, self.query.limit, self.query.total)


class PageRequests:
    """Builder of page requests.

    Those for all products are cached by their query, because many clients ask for the same page.

    Args:
        cursors: verifies the clients' cursors.
    """

    def __init__(self, cursors: Cursors) -> None:
        self._cursors = cursors
        self._known: OrderedDict[bytes, PageRequest] = OrderedDict()

    def for_all(self, query: ListQuery, query_string: bytes) -> PageRequest:
        """Return the request for a page of all products.

        Args:
            query: the validated query.
            query_string: the query as the client wrote it.

        Raises:
            InvalidCursor: the cursor is invalid or belongs to another list.
        """
        known = self._known.get(query_string)
        if known is not None:
            return known
        selection = Selection.of(query, user_id=query.user_id)
        place = Place(self._cursors, query.cursor, path=PATH, bound_to=selection.bound_to(PATH))
        request = PageRequest(query, selection, place, query_string, key=(None, query_string))
        if len(query_string) <= MAX_KNOWN_BYTES:
            self._known[query_string] = request
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return request

    def for_owner(self, query: MyListQuery, query_string: bytes, owner_id: int) -> PageRequest:
        """Return the request for a page of an owner's products in the owner's own list.

        Raises:
            InvalidCursor: the cursor is invalid or belongs to another list.
        """
        # Bound to the list and not to the caller: the list shows only the caller's own anyway.
        bound_to = Selection.of(query, user_id=None).bound_to(MY_PATH)
        place = Place(self._cursors, query.cursor, path=MY_PATH, bound_to=bound_to)
        selection = Selection.of(query, user_id=owner_id)
        return PageRequest(query, selection, place, query_string, key=(owner_id, query_string))
