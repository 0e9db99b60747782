"""Load shedding: beyond a bound on concurrent requests, further ones are refused at once."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    HTTPScope,
    Scope,
)

from catalog.errors import Overloaded
from catalog.http.replies.problems import problem_reply
from catalog.http.replies.reply import send_reply
from catalog.observability.metrics import count_rejection

_READS = {"GET", "HEAD", "OPTIONS"}


@dataclass(slots=True)
class Capacity:
    """Capacity for requests of one kind; a context manager that holds a place in it."""

    kind: Literal["reads", "writes"]
    most: int
    taken: int = 0

    def __enter__(self) -> None:
        self.taken += 1

    def __exit__(self, *_: object) -> None:
        self.taken -= 1


_UNBOUNDED = Capacity("reads", sys.maxsize)


class ConcurrencyLimit:
    """ASGI middleware: answers 503 with ``Retry-After`` while too many requests are in progress.

    A request is in progress from its complete arrival until its response begins. Streaming a
    response does not count; it has bounds of its own. Reads and writes have separate bounds, so
    that neither can starve the other.

    Args:
        app: the wrapped application.
        max_reads: bound on reads in progress in this process.
        max_writes: bound on writes in progress in this process.
        unlimited: beginnings of the paths that are never refused here, such as health checks.
        has_own_bound: whether a request has a bound of its own, so that this one does not apply.
    """

    def __init__(
        self,
        app: ASGIFramework,
        *,
        max_reads: int,
        max_writes: int,
        unlimited: tuple[str, ...],
        has_own_bound: Callable[[HTTPScope], bool] = lambda _: False,
    ) -> None:
        self._app = app
        self._reads = Capacity("reads", max_reads)
        self._writes = Capacity("writes", max_writes)
        self._unlimited = unlimited
        self._has_own_bound = has_own_bound

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            places = self.admit(scope)
        except Overloaded as error:
            await send_reply(send, problem_reply(error))
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

    def admit(self, scope: HTTPScope) -> Capacity:
        """Return the capacity in which a request is to hold a place.

        Raises:
            Overloaded: it is full.
        """
        if self._has_own_bound(scope) or scope["path"].startswith(self._unlimited):
            return _UNBOUNDED
        places = self._reads if scope["method"] in _READS else self._writes
        if places.taken >= places.most:
            count_rejection(places.kind)
            raise Overloaded("Too many requests are in progress.")
        return places
