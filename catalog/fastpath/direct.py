"""Direct path: answers a hot request in one call, around the middleware.

Each layer of middleware around the framework costs two coroutines and a copy of the response's head
for every request. A request whose whole body has arrived needs none of that: here the same parts of
the middleware are called one after the other.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    HTTPScope,
    Scope,
)

from catalog.errors import CatalogError
from catalog.fastpath.dispatch import Dispatcher, Match
from catalog.fastpath.response import Response
from catalog.http.middleware.concurrency_limit import ConcurrencyLimit
from catalog.http.middleware.cors import Cors
from catalog.http.middleware.exchange import ExchangeMiddleware
from catalog.http.middleware.proxies import TrustedProxies, published_under
from catalog.http.middleware.request_body import MAX_BODY_BYTES
from catalog.http.replies.problems import problem_reply, to_problem
from catalog.http.request import ROUTE, annotate, fields_of
from catalog.observability import metrics

Send = Callable[[Response], Awaitable[None]]

Traced = Callable[[HTTPScope], AbstractContextManager[Callable[[int], None]]]
"""Context of a request that is traced; to be called with the status code of the response."""

HotRequest = tuple[HTTPScope, Match]
"""The scope of a hot request as its client sent it, and its operation.

A plain tuple: one with names takes a microsecond more for every request.
"""


class DirectPath:
    """ASGI application around the middleware: answers hot requests, and passes on all others.

    Args:
        app: the application with its middleware.
        dispatcher: knows the hot operations.
        proxies: reads what trusted proxies say about a request.
        exchanges: sets the current request, counts and logs.
        limit: bounds the requests in progress.
        cors: adds the headers for pages of other origins, if there are any.
        root_path: the prefix under which the service is published; empty at the root.
        traced: makes the span of a request, if requests are traced.
    """

    def __init__(
        self,
        app: ASGIFramework,
        *,
        dispatcher: Dispatcher,
        proxies: TrustedProxies,
        exchanges: ExchangeMiddleware,
        limit: ConcurrencyLimit,
        cors: Cors | None,
        root_path: str,
        traced: Traced | None,
    ) -> None:
        self._app = app
        self._dispatcher = dispatcher
        self._proxies = proxies
        self._exchanges = exchanges
        self._limit = limit
        self._cors = cors
        self._root_path = root_path
        self._traced = traced

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Serve one request, connection for a WebSocket, or lifespan."""
        found: HotRequest | None = None
        if scope["type"] == "http" and not _may_have_body(scope):
            found = self.find(scope)
        if found is None:
            await self._app(scope, receive, send)
            return

        async def send_events(response: Response) -> None:
            status, fields = response.reply.status, response.fields
            await send({"type": "http.response.start", "status": status, "headers": fields})
            await send({"type": "http.response.body", "body": response.body, "more_body": False})

        await self.answer(found, b"", send_events)

    def find(self, scope: Any, body: bytes = b"") -> HotRequest | None:
        """Return a hot request; None for any other.

        Args:
            scope: the request.
            body: its whole body.
        """
        if not self._is_hot(scope):
            return None
        if body and (len(body) > MAX_BODY_BYTES or b"content-encoding" in fields_of(scope)):
            return None
        seen: HTTPScope = self._proxies.seen(scope)
        match = self._dispatcher.match(seen)
        return None if match is None else (seen, match)

    def _is_hot(self, scope: Any) -> bool:
        if self._root_path:
            scope = published_under(self._root_path, scope)
        return self._dispatcher.match(scope) is not None

    def answer(self, hot: HotRequest, body: bytes, send: Send) -> Awaitable[None]:
        """Answer a hot request.

        Args:
            hot: the request, as ``find`` returns it.
            body: its whole body.
            send: sends the response.
        """
        scope, match = hot
        return self._reply(scope, body, match, send)

    def refuse(self, scope: Any, error: CatalogError, send: Send) -> Awaitable[None]:
        """Answer a request that the server refuses for its head."""
        return self._reply(self._proxies.seen(scope), b"", error, send)

    def _reply(
        self, scope: HTTPScope, body: bytes, found: Match | CatalogError, send: Send
    ) -> Awaitable[None]:
        if self._traced is None:
            return self._respond(scope, body, found, send)
        return self._respond_traced(self._traced, scope, body, found, send)

    async def _respond_traced(
        self, traced: Traced, scope: HTTPScope, body: bytes, found: Match | CatalogError, send: Send
    ) -> None:
        with traced(scope) as note_status:

            async def send_noting(response: Response) -> None:
                note_status(response.reply.status)
                await send(response)

            await self._respond(scope, body, found, send_noting)

    async def _respond(
        self, scope: HTTPScope, body: bytes, found: Match | CatalogError, send: Send
    ) -> None:
        with self._exchanges.exchange(scope) as exchange:
            exchange.request.body = body
            try:
                if isinstance(found, CatalogError):
                    annotate(scope, ROUTE, metrics.OTHER)
                    reply = problem_reply(found)
                else:
                    annotate(scope, ROUTE, found.target.rule)
                    with self._limit.admit(scope):
                        reply = await found.target.view(**found.arguments)
            except Exception as fault:  # noqa: BLE001 (it is reported to the client, and logged)
                reply = problem_reply(to_problem(fault))
            exchange.status = reply.status
            exchange.count()
            own = exchange.own
            if self._cors is not None:
                own += self._cors.headers(exchange.request.fields)
            has_body = scope["method"] != "HEAD"
            await send(Response(reply, own, exchange.is_private, has_body))


def _may_have_body(scope: HTTPScope) -> bool:
    fields = fields_of(scope)
    is_announced = b"content-length" in fields or b"transfer-encoding" in fields
    # Such a request may have a body without an announcement in HTTP/2.
    return is_announced or scope["method"] not in {"GET", "HEAD"}
