"""Lists of products: their filters, and all of one as a stream."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx

from catalog.client.models import Product, Sort
from catalog.client.transport import lines_of


class Export:
    """All products of a list, as they are read.

    Attributes:
        change: the change from which to follow, so that nothing is missed.
    """

    def __init__(self, response: httpx.Response) -> None:
        self.change = response.headers["Catalog-Change"]
        self._response = response

    async def __aiter__(self) -> AsyncIterator[Product]:
        """Yield the products.

        Raises:
            ConnectionFailed: the connection ended before the list did.
        """
        async for line in lines_of(self._response):
            yield Product.from_json(json.loads(line))


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
