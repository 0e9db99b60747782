"""Bounded work in progress: beyond it a request is refused at once, and does not wait."""

from http import HTTPStatus

from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    Scope,
)

from catalog.errors import Overloaded
from catalog.http.headers import refuse
from catalog.observability.metrics import shed

_READS = {"GET", "HEAD", "OPTIONS"}


class Admission:
    """ASGI middleware: answers 503 with ``Retry-After`` while too much is in progress already.

    A request is in progress until its answer begins, so what is streamed does not count; it has
    bounds of its own. Reads are refused before writes, which were more work for the client.

    Args:
        app: what answers.
        max_requests: in progress in this process.
        max_reads: the same, from which on reads are refused.
        exempt: beginnings of paths that are always answered: health, and what waits on purpose.
    """

    def __init__(
        self, app: ASGIFramework, *, max_requests: int, max_reads: int, exempt: tuple[str, ...]
    ) -> None:
        self._app = app
        self._max_requests = max_requests
        self._max_reads = max_reads
        self._exempt = exempt
        self._in_progress = 0

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"].startswith(self._exempt):
            await self._app(scope, receive, send)
            return
        is_read = scope["method"] in _READS
        limit = self._max_reads if is_read else self._max_requests
        if self._in_progress >= limit:
            shed("reads" if is_read else "writes")
            await refuse(scope, send, Overloaded("Too many requests are in progress."))
            return
        self._in_progress += 1
        counts = True

        def leave() -> None:
            nonlocal counts
            self._in_progress -= counts
            counts = False

        async def send_and_leave(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.OK:
                leave()
            await send(message)

        try:
            await self._app(scope, receive, send_and_leave)
        finally:
            leave()
