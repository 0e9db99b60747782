"""Lists of products as a client reads them: their paths, sorts, pages and expected order."""

from typing import Any, get_args
from urllib.parse import urlencode

from catalog.http.pagination import MAX_LINK_LENGTH
from catalog.products.schemas import Sort
from tests.support import Caller, Response

SORTS: tuple[str, ...] = get_args(Sort)
LIST, MINE = "/api/products", "/api/products/my"


async def walk(caller: Caller, path: str, **parameters: object) -> list[Response]:
    """Return all pages of a list, following ``next``."""
    pages = [await caller.get(f"{path}?{urlencode(parameters)}")]
    while following := pages[-1].json["next"]:
        link = f'<{following}>; rel="next"' if len(following) <= MAX_LINK_LENGTH else None
        assert pages[-1].headers.get("Link") == link
        pages.append(await caller.get(following))
    assert all(page.status_code == 200 for page in pages)
    return pages


def ids_of(pages: list[Response]) -> list[int]:
    return [product["id"] for page in pages for product in page.json["products"]]


def in_order(products: list[dict[str, Any]], sort: str) -> list[int]:
    """Return the ids in Python's order: text by code point, doubles exactly."""
    key = sort.removeprefix("-")
    ordered = sorted(products, key=lambda product: (product[key], product["id"]))
    return [product["id"] for product in (reversed(ordered) if sort[0] == "-" else ordered)]
