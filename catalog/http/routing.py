"""What a path may hold in an id's place, and which answers a client accepts."""

import re

from quart import Quart, request
from werkzeug.routing import IntegerConverter

from catalog.db.columns import MAX_ID
from catalog.errors import NotAcceptable
from catalog.http.headers import annotate

_NO_WEIGHT = re.compile(r"q\s*=\s*0(\.0*)?")


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


def configure_routing(app: Quart) -> None:
    """Set up path matching before any route is added."""
    app.url_map.converters["id"] = IdConverter
    # A trailing slash answers like the path without it, and no path answers with a redirect.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    # OPTIONS is answered where unknown methods are, in http/problems.py.
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.before_request(_remember_route)
    app.before_request(_only_what_is_accepted)


def _accepts_json(accept: str) -> bool:
    """Whether JSON is acceptable; the most specific range decides (RFC 9110, section 12.5.1).

    Parameters other than the weight are ignored, because clients write ``charset=utf-8`` there.
    """
    accepted = {}
    for item in accept.lower().split(","):
        media_range, *parameters = (part.strip() for part in item.split(";"))
        accepted[media_range] = not any(_NO_WEIGHT.fullmatch(each) for each in parameters)
    for media_range in ("application/json", "application/*", "*/*"):
        if media_range in accepted:
            return accepted[media_range]
    return not accept


async def _only_what_is_accepted() -> None:
    """Refuse a client that cannot read JSON before doing its work (RFC 9110, section 15.5.7)."""
    # By the rule and not by the path, of which werkzeug drops doubled slashes at its begin.
    if request.url_rule is None or not request.url_rule.rule.startswith("/api/"):
        return
    if not _accepts_json(",".join(request.headers.getlist("Accept"))):
        raise NotAcceptable("This resource is application/json.")


async def _remember_route() -> None:
    """Leave the matched route where the access log finds it, outside the framework."""
    if request.url_rule is not None:
        annotate(request.scope, route=request.url_rule.rule)
