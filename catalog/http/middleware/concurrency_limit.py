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

MAX_READS = 512
"""Reads in progress in one process, but for operations with a capacity of their own.

Half a second's work of a worker: what waits longer is better tried again elsewhere. The capacity of
a service is that of its workers, whose number is a setting.
"""

MAX_WRITES = 768
"""Writes in progress in one process; they never take the place of a read."""

UNBOUNDED = sys.maxsize
"""Bound of operations whose requests are bounded elsewhere."""

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


_UNBOUNDED = Capacity("reads", UNBOUNDED)


def _shared(_: HTTPScope) -> None:
    """Return no capacity: the request shares that of all reads or writes."""


class ConcurrencyLimit:
    """ASGI middleware: answers 503 with ``Retry-After`` while too many requests are in progress.

    A request is in progress from its complete arrival until its response begins. Streaming a
    response does not count; it has bounds of its own. Reads and writes have separate bounds, so
    that neither can starve the other; operations whose requests cost less may each have their own.

    Args:
        app: the wrapped application.
        max_reads: bound on reads in progress in this process.
        max_writes: bound on writes in progress in this process.
        unlimited: beginnings of the paths that are never refused here, such as health checks.
        own_capacity: returns the capacity of a request's operation, if it has one of its own.
    """

    def __init__(
        self,
        app: ASGIFramework,
        *,
        max_reads: int,
        max_writes: int,
        unlimited: tuple[str, ...],
        own_capacity: Callable[[HTTPScope], Capacity | None] = _shared,
    ) -> None:
        self._app = app
        self._reads = Capacity("reads", max_reads)
        self._writes = Capacity("writes", max_writes)
        self._unlimited = unlimited
        self._own_capacity = own_capacity

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
        places = self._own_capacity(scope)
        if places is None:
            if scope["path"].startswith(self._unlimited):
                return _UNBOUNDED
            places = self._reads if scope["method"] in _READS else self._writes
        if places.taken >= places.most:
            count_rejection(places.kind)
            raise Overloaded("Too many requests are in progress.")
        return places
