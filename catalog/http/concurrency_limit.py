"""Load shedding: beyond a bound on concurrent requests, further ones are refused at once."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    Scope,
)

from catalog.errors import Overloaded
from catalog.http.response_headers import send_problem
from catalog.observability.metrics import count_rejection

_READS = {"GET", "HEAD", "OPTIONS"}


@dataclass(slots=True)
class _Capacity:
    """Capacity for requests of one kind."""

    kind: Literal["reads", "writes"]
    most: int
    taken: int = 0


class ConcurrencyLimit:
    """ASGI middleware: answers 503 with ``Retry-After`` while too many requests are in progress.

    A request is in progress from its complete arrival until its response begins. Streaming a
    response does not count; it has bounds of its own. Reads and writes have separate bounds, so
    that neither can starve the other.

    Args:
        app: the wrapped application.
        max_reads: bound on reads in progress in this process.
        max_writes: bound on writes in progress in this process.
        exempt: path prefixes that are never refused: health checks, and long polls.
    """

    def __init__(
        self, app: ASGIFramework, *, max_reads: int, max_writes: int, exempt: tuple[str, ...]
    ) -> None:
        self._app = app
        self._reads = _Capacity("reads", max_reads)
        self._writes = _Capacity("writes", max_writes)
        self._exempt = exempt

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"].startswith(self._exempt):
            await self._app(scope, receive, send)
            return
        places = self._reads if scope["method"] in _READS else self._writes
        if places.taken >= places.most:
            count_rejection(places.kind)
            await send_problem(scope, send, Overloaded("Too many requests are in progress."))
            return
        places.taken += 1
        counts = True

        def leave() -> None:
            nonlocal counts
            places.taken -= counts
            counts = False

        async def send_and_leave(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.OK:
                leave()
            await send(message)

        try:
            await self._app(scope, receive, send_and_leave)
        finally:
            leave()
