"""Which representation a client wants: ``Accept`` (RFC 9110, section 12.5.1).

Everything under ``/api`` is JSON; a view that can answer with more says so by ``@offers``.
"""

import re
from collections.abc import Callable
from typing import Any, TypeVar

from quart import Quart, current_app, request

from catalog.errors import NotAcceptable

F = TypeVar("F", bound=Callable[..., Any])

JSON = "application/json"
NDJSON = "application/x-ndjson"
CSV = "text/csv"
EVENT_STREAM = "text/event-stream"

_ATTRIBUTE = "catalog_offers"
_WEIGHT = re.compile(r"q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")


def offers(*media_types: str) -> Callable[[F], F]:
    """Declare what a view can answer with besides JSON."""

    def decorator(view: F) -> F:
        setattr(view, _ATTRIBUTE, (JSON, *media_types))
        return view

    return decorator


def offered_by(view: Callable[..., Any]) -> tuple[str, ...]:
    """The media types that a view can answer with, the usual one first."""
    offered: tuple[str, ...] = getattr(view, _ATTRIBUTE, (JSON,))
    return offered


def configure_negotiation(app: Quart) -> None:
    """Refuse a client that can read none of what a view offers, before its work is done."""
    app.before_request(_only_what_is_accepted)


def wanted() -> str:
    """The media type to answer this request with.

    Raises:
        NotAcceptable: none that the view offers will do (RFC 9110, section 15.5.7).
    """
    assert request.url_rule is not None  # noqa: S101 (called by views; tells mypy)
    offered = offered_by(current_app.view_functions[request.url_rule.endpoint])
    best = best_of(offered, ",".join(request.headers.getlist("Accept")))
    if best is None:
        raise NotAcceptable(f"This resource is {' or '.join(offered)}.")
    return best


def best_of(offered: tuple[str, ...], accept: str) -> str | None:
    """The offer that a client likes best; of equals the one it names, then the first.

    A media range's parameters other than the weight are ignored, because clients write
    ``charset=utf-8`` there, and a weight that cannot be read counts as 1.
    """
    if not accept.strip():
        return offered[0]
    weights: dict[str, float] = {}
    for item in accept.lower().split(","):
        media_range, *parameters = (part.strip() for part in item.split(";"))
        found = [weight for each in parameters if (weight := _WEIGHT.fullmatch(each))]
        weights[media_range] = float(found[0].group(1)) if found else 1.0
    best, best_rank = None, (0.0, 0)
    for media_type in offered:
        # The most specific range decides.
        kind = media_type.partition("/")[0]
        for specificity, media_range in ((3, media_type), (2, f"{kind}/*"), (1, "*/*")):
            if media_range in weights:
                rank = (weights[media_range], specificity)
                if rank[0] > 0 and rank > best_rank:
                    best, best_rank = media_type, rank
                break
    return best


async def _only_what_is_accepted() -> None:
    # By the rule and not by the path, of which werkzeug drops doubled slashes at its begin.
    if request.url_rule is not None and request.url_rule.rule.startswith("/api/"):
        wanted()
