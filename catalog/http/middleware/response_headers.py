"""ASGI middleware around the framework for what all requests and responses share.

Sets the current request, assigns request ids, adds security headers, writes the access log, and
counts requests.
"""

import re
import time
from collections.abc import Callable, Container
from http import HTTPStatus
from typing import Any
from uuid import uuid4

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
from catalog.http.middleware.trace_context import trace_id_of
from catalog.http.request import (
    Fields,
    Request,
    fields_of,
    reset_current_request,
    set_current_request,
)
from catalog.observability import metrics

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")

# The API renders nothing and is never framed; pages set a policy of their own.
API_POLICY = b"default-src 'none'; frame-ancestors 'none'"

_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)

# Headers that describe content, and so are dropped from responses without any.
_OF_CONTENT = {b"content-length", b"content-type"}

Header = tuple[bytes, bytes]


class ResponseHeadersMiddleware:
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
        started = time.perf_counter()
        fields = fields_of(scope)
        request = Request(self._app, scope, _request_id(fields))
        current = set_current_request(request)
        structlog.contextvars.bind_contextvars(request_id=request.request_id)
        trace_id = _trace_id(fields)
        if trace_id is not None:
            structlog.contextvars.bind_contextvars(trace_id=trace_id)
        status = 0
        length = -1
        is_counted = False
        self.in_progress += 1

        async def send_enveloped(message: ASGISendEvent) -> None:
            nonlocal status, length, is_counted
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message["headers"])
                if status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
                    # The framework adds a Content-Length of 0; RFC 9110, section 8.6 forbids it.
                    headers = [header for header in headers if header[0] not in _OF_CONTENT]
                length = _length_in(headers)
                headers = self._enveloped(headers, request)
                await send({**message, "headers": headers})
                return
            if message["type"] == "http.response.body" and not is_counted:
                length -= len(message.get("body", b""))
                # Counted before the last bytes are sent, so that a response that a client has
                # received is counted even if the process stops right afterwards.
                if length == 0 or not message.get("more_body", False):
                    is_counted = True
                    self._count(scope, status, time.perf_counter() - started)
            await send(message)

        try:
            await self._asgi_app(scope, receive, send_enveloped)
        except Exception:
            # The server answers such a request itself.
            status = status or HTTPStatus.INTERNAL_SERVER_ERROR
            raise
        finally:
            self.in_progress -= 1
            seconds = time.perf_counter() - started
            if not is_counted:
                self._count(scope, status, seconds)
            if status >= self._log_from_status and self._is_news(scope, status):
                self._log(request, status, seconds)
            # The next request on the connection may run in the same context.
            reset_current_request(current)
            if trace_id is not None:
                structlog.contextvars.unbind_contextvars("trace_id")

    def _is_news(self, scope: HTTPScope, status: int) -> bool:
        return status >= HTTPStatus.BAD_REQUEST or scope["path"] not in self._quiet

    def _count(self, scope: Any, status: int, seconds: float) -> None:
        route = scope.get("catalog.route")
        if route is None and status != HTTPStatus.NOT_FOUND:
            route = self._route_of(scope["path"])
        metrics.count_request(
            scope["method"], route or metrics.OTHER, status or metrics.GONE, seconds
        )

    def _log(self, request: Request, status: int, seconds: float) -> None:
        scope = request.scope
        client = request.client
        fields = {
            "method": request.method,
            "route": metrics.label_of(scope.get("catalog.route", metrics.OTHER)),
            "path": scope["path"][:200],
            "status": status,
            "duration_ms": round(seconds * 1000, 2),
            "client": client[0] if client else None,
            "user_id": int(scope["catalog.user_id"]) if "catalog.user_id" in scope else None,
        }
        # To collect what is bound costs more than to make the line.
        is_traced = self._is_tracing or b"traceparent" in request.fields
        bound = None if is_traced else {"request_id": request.request_id}
        self._state.access_log.request(fields, bound)

    def _enveloped(self, headers: list[Header], request: Request) -> list[Header]:
        present = {name for name, _ in headers}
        headers.append((b"x-request-id", request.request_id.encode()))
        headers.extend(_ALWAYS)
        for name, value in request.limit_headers.items():
            headers.append((name.lower().encode(), value.encode()))
        if b"content-security-policy" not in present:
            headers.append((b"content-security-policy", API_POLICY))
        if b"authorization" in request.fields:
            # A response to a request with a token is private, even that of a public page.
            headers = [header for header in headers if header[0] != b"cache-control"]
            headers.append((b"cache-control", b"no-store"))
        elif b"cache-control" not in present:
            headers.append((b"cache-control", b"no-store"))
        if self._state.draining:
            headers.append((b"connection", b"close"))
        return headers


def _length_in(headers: list[Header]) -> int:
    """Return the announced length of the body; -1 without ``Content-Length``."""
    return next((int(value) for name, value in headers if name == b"content-length"), -1)


def _request_id(fields: Fields) -> str:
    """Return the client's request id if it is valid, else a new one; of several the last one."""
    for value in reversed(fields.get(b"x-request-id", ())):
        if _REQUEST_ID.fullmatch(value):
            return value.decode("ascii")
    return uuid4().hex


def _trace_id(fields: Fields) -> str | None:
    parents = fields.get(b"traceparent", ())
    # Of two it is unclear which one applies.
    return trace_id_of(parents[0]) if len(parents) == 1 else None


def annotate(scope: Any, **values: str) -> None:
    """Store values on the request's scope for inner and outer layers."""
    for name, value in values.items():
        scope[f"catalog.{name}"] = value
