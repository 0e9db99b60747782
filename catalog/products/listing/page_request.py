"""What a client asks of a list: filters, order, place and fields of one page."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Self

from catalog.http.pagination import Cursors, Place
from catalog.products.listing.page_reader import PageQuery
from catalog.products.queries import Selection
from catalog.products.schemas import PATH, ListQuery, MyListQuery

MY_PATH = f"{PATH}/my"


@dataclass(frozen=True, slots=True)
class PageRequest:
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
    def wanted(self) -> PageQuery:
        """The same as what there is to read."""
        after = tuple(self.place.after) if self.place.after else None
        return PageQuery(self.selection, after, self.query.limit, self.query.total)
