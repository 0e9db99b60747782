"""Request for one page of a list: filters, sort order, position and fields."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Self

from catalog.http.pagination import Cursors, Place
from catalog.http.request import parse_query
from catalog.products.listing.page_reader import PageQuery
from catalog.products.schemas import PATH, ListQuery, MyListQuery
from catalog.products.selection import Selection

MY_PATH = f"{PATH}/my"


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

    @classmethod
    def of_all(cls, query: ListQuery, cursors: Cursors, query_string: bytes) -> Self:
        """Build the request for a page of all products.

        Raises:
            InvalidCursor: the cursor is invalid or belongs to another list.
        """
        selection = Selection.of(query, user_id=query.user_id)
        place = Place(cursors, query.cursor, path=PATH, bound_to=selection.bound_to(PATH))
        return cls(query, selection, place, query_string, key=(None, query_string))

    @classmethod
    def of_one(
        cls, query: MyListQuery, cursors: Cursors, query_string: bytes, owner_id: int
    ) -> Self:
        """Build the request for a page of an owner's products in the owner's own list.

        Raises:
            InvalidCursor: the cursor is invalid or belongs to another list.
        """
        # Bound to the list and not to the caller: the list shows only the caller's own anyway.
        bound_to = Selection.of(query, user_id=None).bound_to(MY_PATH)
        place = Place(cursors, query.cursor, path=MY_PATH, bound_to=bound_to)
        selection = Selection.of(query, user_id=owner_id)
        return cls(query, selection, place, query_string, key=(owner_id, query_string))

    @property
    def given(self) -> dict[str, str]:
        """The parameters by name; the first value of each."""
        return parse_query(self.query_string).to_dict()

    @property
    def wanted(self) -> PageQuery:
        """Database query for this page."""
        after = tuple(self.place.after) if self.place.after else None
        return PageQuery(self.selection, after, self.query.limit, self.query.total)
