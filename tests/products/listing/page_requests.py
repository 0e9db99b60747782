"""Requests of pages, parsed as the routes do."""

from urllib.parse import urlencode

from quart import Quart

from catalog.products.context import products
from catalog.products.listing.page_request import PageRequest
from catalog.products.schemas import ListQuery


def page_request(app: Quart, **given: str) -> PageRequest:
    query_string = urlencode(given).encode()
    query = ListQuery.model_validate(given)
    return products(app).page_requests.for_all(query, query_string, prefix="")
