"""Lists of products: their filters, and all of one as a stream."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from catalog.client.models import Product, Sort
from catalog.client.read_ahead import ReadAhead
from catalog.client.responses import parsed
from catalog.client.transport import Request, lines_of


class Export:
    """All products of a list, as they are read.

    They are read ahead, into a temporary file if they are many, so that a slow loop gets all.

    Attributes:
        change: the change from which to follow, so that nothing is missed.
    """

    def __init__(self, change: str, body: ReadAhead) -> None:
        self.change = change
        self._body = body

    async def __aiter__(self) -> AsyncIterator[Product]:
        """Yield the products.

        Raises:
            ConnectionFailed: the connection ended before the list did.
            UnexpectedResponse: the list is not the service's.
        """
        async for line in lines_of(aiter(self._body)):
            yield parsed(line, Product.from_json)


def list_path(*, mine: bool) -> str:
    return "/api/products/my" if mine else "/api/products"


def export_request(filters: Mapping[str, Any], *, mine: bool) -> Request:
    """Return the request of all products that match."""
    accept = {"Accept": "application/x-ndjson"}
    return Request("GET", list_path(mine=mine), is_public=not mine, params=filters, headers=accept)


def filters_of(
    sort: Sort,
    q: str | None,
    min_price: float | None,
    max_price: float | None,
    user_id: int | None,
    ids: Sequence[int] | None,
    **others: object,
) -> Mapping[str, Any]:
    filters = {
        "sort": None if sort == "-id" else sort,
        "q": q,
        "min_price": min_price,
        "max_price": max_price,
        "user_id": user_id,
        "ids": None if ids is None else ",".join(map(str, ids)),
        **others,
    }
    return {name: value for name, value in filters.items() if value is not None}
