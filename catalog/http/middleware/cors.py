"""Cross-origin resource sharing (the Fetch standard, section 3.2), as ASGI middleware.

quart-cors would add its headers in the framework, which sees neither the requests of the fast path
nor those that are refused before it.
"""

from collections.abc import Iterable

from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    HTTPScope,
    Scope,
)

from catalog.http.replies.reply import no_content, send_reply
from catalog.http.request import Fields, Header, fields_of

ANY = b"*"

EXPOSED = (
    *("ETag", "Link", "Location", "Retry-After", "Catalog-Position", "Catalog-Change"),
    *("X-Request-ID", "RateLimit", "RateLimit-Policy", "Idempotency-Replayed"),
)
"""Response headers that pages of other origins may read; docker/nginx/catalog has the same list."""

_METHODS = "GET, HEAD, POST, PATCH, DELETE"

# ``*`` admits every name but Authorization. Browsers before 2022 do not know it, so the list has
# all fields that the service reads.
_REQUEST_HEADERS = (
    "Authorization, Content-Type, Content-Encoding, Cache-Control, Idempotency-Key, If-Match, "
    "If-None-Match, Last-Event-ID, X-Request-ID, traceparent, tracestate, *"
)

_MAX_AGE_SECONDS = 7200
"""Time for which browsers cache a preflight; Chrome caps it there."""


class Cors:
    """ASGI middleware: answers preflights, and lets pages of other origins read responses.

    Never with credentials: tokens are sent in a header, and the service sets no cookies. Any header
    may be sent, because the service ignores those that it does not know.

    A page on the internet may reach a service on a private network (Private Network Access) only if
    its origin is listed by name: ``*`` does not mean to open that network to every page.

    Args:
        app: the wrapped application.
        origins: the admitted origins, or ``*`` alone.
    """

    def __init__(self, app: ASGIFramework, origins: Iterable[str]) -> None:
        self._app = app
        exposed = (b"access-control-expose-headers", ", ".join(EXPOSED).encode())
        # Caches may store a response that was requested without Origin. So with ``*`` all have the
        # same headers, and with a list all vary.
        self._by_origin = {
            origin.encode(): [(b"access-control-allow-origin", origin.encode()), exposed]
            for origin in origins
        }
        self._of_any = self._by_origin.get(ANY)
        self._vary: list[Header] = [] if self._of_any else [(b"vary", b"Origin")]

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        fields = fields_of(scope)

        async def send_admitted(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *self.headers(fields)]}
            await send(message)

        if _is_preflight(scope, fields) and self._admitting(fields):
            await send_reply(send_admitted, no_content(self._preflight_headers(fields)))
        else:
            await self._app(scope, receive, send_admitted)

    def headers(self, fields: Fields) -> list[Header]:
        """Return the headers of the response to a request with these fields."""
        return [*self._admitting(fields), *self._vary]

    def _admitting(self, fields: Fields) -> list[Header]:
        """Return the headers that admit a request's origin; none if it is not admitted."""
        if self._of_any is not None:
            return self._of_any
        origins = fields.get(b"origin", ())
        return self._by_origin.get(origins[0], []) if len(origins) == 1 else []

    def _preflight_headers(self, fields: Fields) -> dict[str, str]:
        headers = {
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": _REQUEST_HEADERS,
            "Access-Control-Max-Age": str(_MAX_AGE_SECONDS),
        }
        if fields.get(b"access-control-request-private-network") == [b"true"] and not self._of_any:
            headers["Access-Control-Allow-Private-Network"] = "true"
        return headers


def _is_preflight(scope: HTTPScope, fields: Fields) -> bool:
    return (
        scope["method"] == "OPTIONS"
        and b"origin" in fields
        and b"access-control-request-method" in fields
    )
