"""Path converter for ids, and route templates for logs and metrics."""

from collections.abc import Callable
from functools import lru_cache

from quart import Quart, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import IntegerConverter, RequestRedirect

from catalog.db.columns import MAX_ID
from catalog.http.request import ROUTE, annotate


def _up_to(largest: int) -> str:
    """Return a pattern for the integers from 1 to ``largest``, without leading zeros."""
    digits = str(largest)
    shorter = f"[1-9][0-9]{{0,{len(digits) - 2}}}"
    # Of the same length: equal up to some digit, and smaller at that digit.
    smaller = [
        f"{digits[:place]}[{0 if place else 1}-{int(digit) - 1}][0-9]{{{len(digits) - place - 1}}}"
        for place, digit in enumerate(digits)
        if int(digit) > (0 if place else 1)
    ]
    return f"(?:{'|'.join([shorter, *smaller, digits])})"


class IdConverter(IntegerConverter):
    """A positive 64-bit integer in canonical decimal form; anything else matches no route.

    The stock converter also accepts leading zeros and the digits of other scripts, so that one
    product would have many URLs, and numbers too large for any column.
    """

    # The pattern alone decides. If a number were refused after matching, a path that several routes
    # share would answer 405 to some methods, as if the resource existed.
    regex = _up_to(MAX_ID)


KNOWN_PATHS = 1024
"""Paths whose routes are cached."""


def routes_of(app: Quart) -> Callable[[str], str | None]:
    """Return a cached function that maps a path to its route's template, or to None.

    The method of the request does not matter.
    """

    @lru_cache(KNOWN_PATHS)
    def route_of(path: str) -> str | None:
        adapter = app.url_map.bind("")
        try:
            try:
                rule, _ = adapter.match(path, method="GET", return_rule=True)
            except MethodNotAllowed as error:
                method = next(iter(error.valid_methods or ()), "GET")
                rule, _ = adapter.match(path, method=method, return_rule=True)
        except (HTTPException, RequestRedirect):
            return None
        return rule.rule

    return route_of


def configure_routing(app: Quart) -> None:
    """Set up path matching before any route is added."""
    app.url_map.converters["id"] = IdConverter
    # A path with a trailing slash is the same resource, and no path is redirected.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    # OPTIONS is answered where unknown methods are, in http/replies/problems.py.
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.before_request(_remember_route)


async def _remember_route() -> None:
    """Store the matched route on the scope for the access log, outside the framework."""
    if request.url_rule is not None:
        annotate(request.scope, ROUTE, request.url_rule.rule)
