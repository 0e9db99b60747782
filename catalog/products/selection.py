"""Selection of a list: its filters and sort order, and its keyset positions."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from urllib.parse import urlencode

from sqlalchemy import ColumnElement, bindparam

from catalog.db.columns import Id
from catalog.products.models import Product
from catalog.products.schemas import DEFAULT_SORT, MyListQuery, Sort
from catalog.products.search.tokenizer import terms_of

_table = Product.__table__.c

Position = tuple[int | float | str, ...]
"""Keyset position: a product's value of the sort column, and its id; only the id when sorting by
id. The product may have been deleted since."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Filters and sort order of a list.

    Attributes:
        sort: a column's name; with a leading ``-``, descending.
        min_price: the lowest price.
        max_price: the highest price.
        user_id: the owner's account.
        ids: the only ids to include, in no order.
        client_key: the key that a client gave to the product.
        terms: prefixes, each of which some word of a product must have; from
            ``tokenizer.terms_of``.
    """

    sort: Sort = DEFAULT_SORT
    min_price: float | None = None
    max_price: float | None = None
    user_id: int | None = None
    ids: tuple[int, ...] | None = None
    client_key: str | None = None
    terms: tuple[str, ...] = ()

    @classmethod
    def of(cls, query: MyListQuery, *, user_id: int | None) -> Self:
        """Build the selection of a client's query, for one owner or for all."""
        return cls(
            sort=query.sort,
            min_price=query.min_price,
            max_price=query.max_price,
            user_id=user_id,
            ids=query.ids,
            client_key=query.key,
            terms=terms_of(query.q) if query.q is not None else (),
        )

    @property
    def sort_column(self) -> str:
        """Name of the sort column."""
        return self.sort.removeprefix("-")

    @property
    def filters(self) -> frozenset[str]:
        """Names of the filters that are set."""
        return frozenset(name for name in CONDITIONS if getattr(self, name) is not None)

    @property
    def values(self) -> dict[str, Any]:
        """Bind parameters of this selection's filters."""
        return {name: getattr(self, name) for name in self.filters}

    def bound_to(self, path: str) -> str:
        """Return the text that cursors of this selection are bound to, for a list's path."""
        filters = {name: getattr(self, name) for name in sorted(self.filters)}
        if self.terms:
            filters["terms"] = self.terms
        return f"{path}?{urlencode({'sort': self.sort, **filters})}"

    def position_of(self, product: dict[str, Any]) -> Position:
        """Return the keyset position of a product, given as its JSON members."""
        product_id, column = product["id"], self.sort_column
        return (product_id,) if column == "id" else (product[column], product_id)

    def values_after(self, position: Position | None) -> dict[str, Any]:
        """Return the bind parameters for resuming after a position; none at the start."""
        if position is None:
            return {}
        if self.sort_column == "id":
            return {"after_id": position[-1]}
        value, product_id = position
        after = datetime.fromisoformat(str(value)) if self.sort_column == "created_at" else value
        return {"after_key": after, "after_id": product_id}


CONDITIONS: Mapping[str, ColumnElement[bool]] = {
    "min_price": _table.price >= bindparam("min_price", type_=_table.price.type),
    "max_price": _table.price <= bindparam("max_price", type_=_table.price.type),
    "user_id": _table.user_id == bindparam("user_id", type_=Id),
    "client_key": _table.client_key == bindparam("client_key", type_=_table.client_key.type),
    "ids": _table.id.in_(bindparam("ids", type_=Id, expanding=True)),
}
"""SQL condition of each filter of a ``Selection``."""
