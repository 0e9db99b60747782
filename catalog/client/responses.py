"""Successes as objects; those that the service does not send are errors of the client."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from catalog.client.errors import MALFORMED, UnexpectedResponse

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


def change_of(response: httpx.Response) -> str:
    """Return the change that a list includes, from which to follow.

    Raises:
        UnexpectedResponse: the response does not name it.
    """
    change: str | None = response.headers.get("Catalog-Change")
    if change is None:
        raise UnexpectedResponse("A list without Catalog-Change", status=response.status_code)
    return change
