"""Content negotiation by ``Accept`` (RFC 9110, section 12.5.1).

Only responses with a choice are negotiated: a view declares other media types than JSON by
``@offers``, and selects one by ``negotiate``.
"""

import re
from collections.abc import Callable
from typing import Any, TypeVar

from catalog.errors import NotAcceptable
from catalog.http.request import current_request

F = TypeVar("F", bound=Callable[..., Any])

JSON = "application/json"
NDJSON = "application/x-ndjson"
CSV = "text/csv"
EVENT_STREAM = "text/event-stream"

_PROBLEM = "application/problem+json"

_ATTRIBUTE = "catalog_offers"
_WEIGHT = re.compile(r"q[ \t]*=[ \t]*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_BLANKS = " \t"
# A comma or a semicolon inside a quoted string is no separator (RFC 9110, section 5.6.4). The
# quantifiers are possessive, so that matching takes linear time however quotes are nested.
_QUOTED = r'"(?:[^"\\]|\\.)*+"?+'
_ITEM = re.compile(rf'(?:[^,"]++|{_QUOTED})++', re.DOTALL)
_PART = re.compile(rf'(?:[^;"]++|{_QUOTED})++', re.DOTALL)


def offers(*media_types: str) -> Callable[[F], F]:
    """Declare the media types that a view offers besides JSON."""

    def decorator(view: F) -> F:
        setattr(view, _ATTRIBUTE, (JSON, *media_types))
        return view

    return decorator


def offered_by(view: Callable[..., Any]) -> tuple[str, ...]:
    """Return the media types that a view offers, the default first."""
    offered: tuple[str, ...] = getattr(view, _ATTRIBUTE, (JSON,))
    return offered


def negotiate(offered: tuple[str, ...]) -> str:
    """Return the media type of the response to the current request.

    Raises:
        NotAcceptable: the client accepts none of those offered (RFC 9110, section 15.5.7).
    """
    values = current_request().header_values("accept")
    best = best_of(offered, ",".join(values)) if values else offered[0]
    if best is None:
        raise NotAcceptable(f"This resource is available as {' or '.join(offered)}.")
    return best


def best_of(offered: tuple[str, ...], accept: str) -> str | None:
    """Return the offer with the highest weight; of equals the most specific, then the first.

    A media range is compared as a whole, so ``xapplication/json`` is not JSON. Its parameters other
    than the weight are ignored, because clients send ``charset=utf-8`` there, and an invalid weight
    counts as 1. ``application/problem+json`` counts as JSON, after other ranges of its weight.
    """
    weights = weights_of(accept)
    if not weights:
        return offered[0]
    best, best_rank = None, (0.0, 0)
    for media_type in offered:
        rank = _rank(media_type, weights)
        if rank[0] > 0 and rank > best_rank:
            best, best_rank = media_type, rank
    return best


def weights_of(accept: str) -> dict[str, float]:
    """Return the weight of each range or coding in ``Accept`` or a field like it, in lower case.

    Not the framework's parser, which takes more than 20 ms for the largest header.
    """
    weights: dict[str, float] = {}
    for item in _ITEM.findall(accept.lower()):
        # Empty elements of a list are ignored (RFC 9110, section 5.6.1.2).
        if not item.strip(_BLANKS):
            continue
        parts = [part.strip(_BLANKS) for part in _PART.findall(item)]
        # A range may be empty before its parameters, and then matches nothing.
        media_range, parameters = ("", parts) if item[0] == ";" else (parts[0], parts[1:])
        found = next((match for each in parameters if (match := _WEIGHT.fullmatch(each))), None)
        weights[media_range] = float(found.group(1)) if found else 1.0
    return weights


def _rank(media_type: str, weights: dict[str, float]) -> tuple[float, int]:
    """Return the weight of a media type, and the specificity of the range that matches it."""
    if media_type in weights:
        return weights[media_type], 3
    kind = media_type.partition("/")[0]
    rank = (0.0, 0)
    for specificity, media_range in ((2, f"{kind}/*"), (1, "*/*")):
        if media_range in weights:
            rank = (weights[media_range], specificity)
            break
    if media_type == JSON and _PROBLEM in weights:
        return max(rank, (weights[_PROBLEM], 0))
    return rank
