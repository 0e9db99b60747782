"""Successes as objects; those that the service does not send are errors of the client."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import httpx

from catalog.client.errors import MALFORMED, UnexpectedResponse
from catalog.client.models import Product

T = TypeVar("T")

_SHOWN_CHARACTERS = 200


def contents(response: httpx.Response, parse: Callable[[Any], T]) -> T:
    """Return the object of a whole response; see ``parsed``."""
    return parsed(response.content, parse)


def parsed(text: str | bytes, parse: Callable[[Any], T]) -> T:
    """Return the object of a JSON text in a success.

    Args:
        text: the text.
        parse: makes the object, and fails if the JSON has another shape.

    Raises:
        UnexpectedResponse: the text is no JSON, or has another shape.
    """
    try:
        return parse(json.loads(text))
    except MALFORMED as fault:
        start = f"A success with {text[:_SHOWN_CHARACTERS]!r}: {fault!r}"
        raise UnexpectedResponse(start, status=200) from fault


def product_of(response: httpx.Response) -> Product:
    """Return the product of a whole response, with its entity tag."""
    return contents(response, partial(Product.from_json, etag=response.headers.get("ETag")))


def page_of(response: httpx.Response) -> tuple[Sequence[Product], str | None]:
    """Return the products of a page, and the URL of the next one."""

    def parse(members: Mapping[str, Any]) -> tuple[Sequence[Product], str | None]:
        products = [Product.from_json(each) for each in members["products"]]
        # Relative to the host, with the service's own path if it has one.
        return products, str(response.url.join(members["next"])) if members["next"] else None

    return contents(response, parse)


def change_of(response: httpx.Response) -> str:
    """Return the change that a list includes, from which to follow.

    Raises:
        UnexpectedResponse: the response does not name it.
    """
    change: str | None = response.headers.get("Catalog-Change")
    if change is None:
        raise UnexpectedResponse("A list without Catalog-Change", status=response.status_code)
    return change
