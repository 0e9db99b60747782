"""OpenTelemetry tracing: the exporter, and a span for each SQL statement.

Imported only when tracing is on: its packages are an optional extra and slow to import.
"""

import asyncio
import time
from collections.abc import Iterable
from importlib.metadata import version
from threading import Thread
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

_SPAN = "catalog_span"

_UNNAMED = "unknown_service"


class Tracing:
    """Tracer and exporter of one app.

    Args:
        commit: the commit from which the build was made.
    """

    def __init__(self, commit: str) -> None:
        # Exporter, sampler and limits read the OTEL_ variables themselves.
        self._provider = TracerProvider(resource=_resource(commit), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer: Tracer = self._provider.get_tracer("catalog", version("catalog"))

    def watch(self, engines: Iterable[AsyncEngine]) -> None:
        """Create a span for each statement on these engines."""
        for engine in engines:
            _watch(engine, self.tracer)

    async def close(self, *, within: float = 2.0) -> None:
        """Flush unsent spans for at most ``within`` seconds; the rest is lost."""
        # A daemon thread does not block the exit when the collector is unreachable.
        sending = Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        deadline = time.monotonic() + within
        while sending.is_alive() and time.monotonic() < deadline:  # noqa: ASYNC110 (it sets no event)
            await asyncio.sleep(0.005)


def _resource(commit: str) -> Resource:
    resource = Resource.create(
        {"service.version": version("catalog"), "vcs.ref.head.revision": commit}
    )
    if str(resource.attributes.get(SERVICE_NAME, _UNNAMED)).startswith(_UNNAMED):
        resource = resource.merge(Resource({SERVICE_NAME: "catalog"}))
    return resource


def _without_values(statement: str) -> str:
    """Return a statement's text without users' data.

    Values are passed to the driver as parameters, except those of bulk inserts.
    """
    head, values, _ = statement.partition(" VALUES ")
    return f"{head}{values}..." if values else head


def _watch(engine: AsyncEngine, tracer: Tracer) -> None:
    # From the dialect's name and not from the URL, which holds a password.
    system = {"sqlite": "sqlite", "mariadb": "mariadb"}.get(engine.dialect.name, "mysql")

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def _begin(
        _connection: object,
        _cursor: object,
        statement: str,
        _values: object,
        context: Any,
        _many: bool,
    ) -> None:
        operation = statement.split(maxsplit=1)[0].upper()
        attributes = {
            "db.system.name": system,
            "db.operation.name": operation,
            "db.query.text": _without_values(statement),
        }
        span = tracer.start_span(operation, kind=SpanKind.CLIENT, attributes=attributes)
        setattr(context, _SPAN, span)

    @event.listens_for(engine.sync_engine, "after_cursor_execute")
    def _end(
        _connection: object,
        _cursor: object,
        _statement: str,
        _values: object,
        context: Any,
        _many: bool,
    ) -> None:
        span: Span | None = getattr(context, _SPAN, None)
        if span is not None:
            span.end()

    @event.listens_for(engine.sync_engine, "handle_error")
    def _fail(failure: Any) -> None:
        span: Span | None = getattr(failure.execution_context, _SPAN, None)
        if span is not None:
            # The error's text may hold values.
            span.set_attribute("error.type", type(failure.original_exception).__qualname__)
            span.set_status(Status(StatusCode.ERROR))
            span.end()
