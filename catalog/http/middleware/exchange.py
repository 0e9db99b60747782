"""ASGI middleware for the exchange of each request and its response.

Sets the current request, assigns request ids, writes the access log, and counts requests.
"""

import re
import time
from collections.abc import Callable, Container
from http import HTTPStatus
from secrets import token_hex
from types import TracebackType
from typing import Any, Self

import structlog
from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    HTTPScope,
    Scope,
)
from quart import Quart

from catalog.http.context import app_state
from catalog.http.middleware.response_headers import with_common_headers
from catalog.http.middleware.trace_context import trace_id_of
from catalog.http.request import (
    ROUTE,
    USER_ID,
    Fields,
    Header,
    Request,
    fields_of,
    reset_current_request,
    set_current_request,
)
from catalog.observability import metrics

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")

# Headers that describe content, and so are dropped from responses without any.
_OF_CONTENT = {b"content-length", b"content-type"}


class ExchangeMiddleware:
    """ASGI middleware: request id, security headers, ``Connection: close``, access log, metrics.

    Args:
        asgi_app: the wrapped application.
        app: the app that handles the requests.
        quiet: paths that are polled, and logged only when the request fails.
        route_of: returns the route template of a path, for requests that were refused before
            routing.

    Attributes:
        in_progress: requests whose response has not ended.
    """

    def __init__(
        self,
        asgi_app: ASGIFramework,
        app: Quart,
        *,
        quiet: Container[str],
        route_of: Callable[[str], str | None],
    ) -> None:
        self.in_progress = 0
        self._asgi_app = asgi_app
        self._app = app
        self._state = app_state(app)
        self._quiet = quiet
        self._route_of = route_of
        settings = self._state.settings
        self._is_tracing = settings.tracing != "off"
        self._log_from_status = {"all": 0, "errors": 400, "off": 1000}[settings.access_log]

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":
            # WebSockets are not supported; the server turns this event into a 403.
            metrics.count_request("GET", metrics.OTHER, HTTPStatus.FORBIDDEN, 0.0)
            await send({"type": "websocket.close", "code": 1000, "reason": None})
            return
        if scope["type"] != "http":
            await self._asgi_app(scope, receive, send)
            return
        length = -1
        with self.exchange(scope) as exchange:

            async def send_with_headers(message: ASGISendEvent) -> None:
                nonlocal length
                if message["type"] == "http.response.start":
                    exchange.status = message["status"]
                    headers = list(message["headers"])
                    if exchange.status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
                        # The framework adds a Content-Length of 0; RFC 9110, section 8.6 forbids
                        # it.
                        headers = [header for header in headers if header[0] not in _OF_CONTENT]
                    length = _length_in(headers)
                    headers = [
                        *with_common_headers(headers, is_private=exchange.is_private),
                        *exchange.own,
                    ]
                    await send({**message, "headers": headers})
                    return
                if message["type"] == "http.response.body":
                    length -= len(message.get("body", b""))
                    if length == 0 or not message.get("more_body", False):
                        exchange.count()
                await send(message)

            await self._asgi_app(scope, receive, send_with_headers)

    def exchange(self, scope: HTTPScope) -> "Exchange":
        """Return the context of one request and its response."""
        return Exchange(self, Request(self._app, scope, _request_id(fields_of(scope))))

    @property
    def is_draining(self) -> bool:
        """Whether responses close their connections."""
        return self._state.draining

    def log(self, request: Request, status: int, seconds: float) -> None:
        """Write a line of the access log, if the settings ask for it."""
        if status >= self._log_from_status and self._is_news(request.scope, status):
            self._log(request, status, seconds)

    def count(self, scope: Any, status: int, seconds: float) -> None:
        """Count a request."""
        route = scope.get(ROUTE)
        if route is None and status != HTTPStatus.NOT_FOUND:
            route = self._route_of(scope["path"])
        metrics.count_request(
            scope["method"], route or metrics.OTHER, status or metrics.GONE, seconds
        )

    def _is_news(self, scope: HTTPScope, status: int) -> bool:
        return status >= HTTPStatus.BAD_REQUEST or scope["path"] not in self._quiet

    def _log(self, request: Request, status: int, seconds: float) -> None:
        scope = request.scope
        client = request.client
        fields = {
            "method": request.method,
            "route": metrics.label_of(scope.get(ROUTE, metrics.OTHER)),
            "path": scope["path"][:200],
            "status": status,
            "duration_ms": round(seconds * 1000, 2),
            "client": client[0] if client else None,
            "user_id": int(scope[USER_ID]) if USER_ID in scope else None,
        }
        # To collect what is bound costs more than to make the line.
        is_traced = self._is_tracing or b"traceparent" in request.fields
        bound = None if is_traced else {"request_id": request.request_id}
        self._state.access_log.request(fields, bound)


class Exchange:
    """Context of a request and its response: sets the current request, counts and logs.

    Attributes:
        request: the request.
        status: status code of the response; 0 before it begins.
    """

    __slots__ = (
        "_current",
        "_is_counted",
        "_observer",
        "_started",
        "_trace_id",
        "request",
        "status",
    )

    def __init__(self, observer: ExchangeMiddleware, request: Request) -> None:
        self.request = request
        self.status = 0
        self._observer = observer
        self._is_counted = False

    def __enter__(self) -> Self:
        """Begin the request."""
        self._started = time.perf_counter()
        self._current = set_current_request(self.request)
        structlog.contextvars.bind_contextvars(request_id=self.request.request_id)
        self._trace_id = _trace_id(self.request.fields)
        if self._trace_id is not None:
            structlog.contextvars.bind_contextvars(trace_id=self._trace_id)
        self._observer.in_progress += 1
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Count and log the request."""
        self._observer.in_progress -= 1
        if isinstance(error, Exception):
            # The server answers such a request itself.
            self.status = self.status or HTTPStatus.INTERNAL_SERVER_ERROR
        self.count()
        self._observer.log(self.request, self.status, time.perf_counter() - self._started)
        # The next request on the connection may run in the same context.
        reset_current_request(self._current)
        self.request.release()
        if self._trace_id is not None:
            structlog.contextvars.unbind_contextvars("trace_id")

    def count(self) -> None:
        """Count the request, once.

        To be called before the last bytes are sent, so that a response that a client has received
        is counted even if the process stops right afterwards.
        """
        if not self._is_counted:
            self._is_counted = True
            seconds = time.perf_counter() - self._started
            self._observer.count(self.request.scope, self.status, seconds)

    @property
    def is_private(self) -> bool:
        """Whether the request has a token: its response is private, even that of a public page."""
        return b"authorization" in self.request.fields

    @property
    def own(self) -> list[Header]:
        """Header fields of this response alone."""
        request = self.request
        fields = [(b"x-request-id", request.request_id.encode())]
        for name, value in request.limit_headers.items():
            fields.append((name.lower().encode(), value.encode()))
        if self._observer.is_draining:
            fields.append((b"connection", b"close"))
        return fields


def _length_in(headers: list[Header]) -> int:
    """Return the announced length of the body; -1 without ``Content-Length``."""
    return next((int(value) for name, value in headers if name == b"content-length"), -1)


def _request_id(fields: Fields) -> str:
    """Return the client's request id if it is valid, else a new one; of several the last one."""
    for value in reversed(fields.get(b"x-request-id", ())):
        if _REQUEST_ID.fullmatch(value):
            return value.decode("ascii")
    return token_hex(16)


def _trace_id(fields: Fields) -> str | None:
    parents = fields.get(b"traceparent", ())
    # Of two it is unclear which one applies.
    return trace_id_of(parents[0]) if len(parents) == 1 else None
