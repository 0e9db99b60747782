"""What a path may hold in an id's place, and what a route is called in the log."""

from collections.abc import Callable
from functools import lru_cache

from quart import Quart, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import IntegerConverter, RequestRedirect

from catalog.db.columns import MAX_ID
from catalog.http.response_headers import annotate


def _up_to(largest: int) -> str:
    """A pattern for the whole numbers from 1 to that one, without leading zeros."""
    digits = str(largest)
    shorter = f"[1-9][0-9]{{0,{len(digits) - 2}}}"
    # As long, equal up to some digit and smaller there.
    smaller = [
        f"{digits[:place]}[{0 if place else 1}-{int(digit) - 1}][0-9]{{{len(digits) - place - 1}}}"
        for place, digit in enumerate(digits)
        if int(digit) > (0 if place else 1)
    ]
    return f"(?:{'|'.join([shorter, *smaller, digits])})"


class IdConverter(IntegerConverter):
    """A positive 64-bit integer written the one usual way; anything else matches no route.

    The stock converter also takes leading zeros and the digits of other scripts, so that one
    product would have many URLs, and numbers that no column holds.
    """

    # The pattern alone decides. Were a number refused after it, a path that several routes share
    # would answer 405 to some methods, as if there were such a resource.
    regex = _up_to(MAX_ID)


KNOWN_PATHS = 1024
"""Paths that are remembered with their routes."""


def routes_of(app: Quart) -> Callable[[str], str | None]:
    """What finds the template of a path's route, whatever the method; None if there is none."""

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
    # A trailing slash answers like the path without it, and no path answers with a redirect.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    # OPTIONS is answered where unknown methods are, in http/problems.py.
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.before_request(_remember_route)


async def _remember_route() -> None:
    """Leave the matched route where the access log finds it, outside the framework."""
    if request.url_rule is not None:
        annotate(request.scope, route=request.url_rule.rule)
