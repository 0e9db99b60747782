"""Request tracing as ASGI middleware (OpenTelemetry's conventions for HTTP servers).

Imported only when tracing is on: its packages are an extra.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import structlog
from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    Scope,
)
from opentelemetry import context, trace
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from catalog.http.request import ROUTE
from catalog.observability.metrics import METHODS, OTHER, label_of

_PROPAGATOR = TraceContextTextMapPropagator()


class TracedRequests:
    """ASGI middleware: one span per request, within the client's trace if there is one.

    Args:
        app: the wrapped application; it leaves the route on the scope.
        tracer: creates the spans.
    """

    def __init__(self, app: ASGIFramework, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self.traced(scope) as note_status:

            async def send_noting(message: ASGISendEvent) -> None:
                if message["type"] == "http.response.start":
                    note_status(message["status"])
                await send(message)

            await self._app(scope, receive, send_noting)

    @contextmanager
    def traced(self, scope: Any) -> Iterator[Callable[[int], None]]:
        """Make the span of a request, which is in progress inside the context.

        Yields:
            a function that is to be called with the status code of the response.
        """
        is_known = scope["method"] in METHODS
        method, name = (scope["method"],) * 2 if is_known else ("_OTHER", "HTTP")
        span = self._tracer.start_span(
            name,
            context=_PROPAGATOR.extract(_carrier(scope["headers"]), context.Context()),
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": method,
                "url.scheme": scope["scheme"],
                "url.path": scope["path"],
                "network.protocol.version": scope["http_version"],
            },
        )
        identity = span.get_span_context()
        # OTEL_SDK_DISABLED makes the span context invalid.
        if identity.is_valid:
            structlog.contextvars.bind_contextvars(
                trace_id=trace.format_trace_id(identity.trace_id),
                span_id=trace.format_span_id(identity.span_id),
            )
        status = 0

        def note_status(code: int) -> None:
            nonlocal status
            status = code

        token = context.attach(trace.set_span_in_context(span, context.Context()))
        try:
            yield note_status
        except Exception:
            status = status or HTTPStatus.INTERNAL_SERVER_ERROR
            raise
        finally:
            context.detach(token)
            structlog.contextvars.unbind_contextvars("trace_id", "span_id")
            route: Any = scope.get(ROUTE)
            if route is not None and route != OTHER:
                span.set_attribute("http.route", label_of(route))
                span.update_name(f"{name} {label_of(route)}")
            if status:
                span.set_attribute("http.response.status_code", int(status))
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                span.set_attribute("error.type", str(int(status)))
                span.set_status(Status(StatusCode.ERROR))
            span.end()


def _carrier(headers: Any) -> dict[str, str]:
    """Return the headers of the trace context; none unless there is one ``traceparent``."""
    parents, states = (
        [value.decode("latin-1") for name, value in headers if name == carrier]
        for carrier in (b"traceparent", b"tracestate")
    )
    if len(parents) != 1:
        return {}
    return {"traceparent": parents[0], "tracestate": ",".join(states)}
