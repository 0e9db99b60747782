"""Spans of requests: what they hold, and what is left when they end."""

from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from catalog.http.middleware.tracing import TracedRequests
from catalog.http.request import ROUTE
from catalog.observability.metrics import OTHER

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
START = {"type": "http.response.start", "status": 201, "headers": []}
BODY = {"type": "http.response.body", "body": b"x", "more_body": False}


class Traced:
    """Requests to an app that sends some events, or fails, and their spans."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.answer: list[Any] = [START, BODY]
        self.failure: Exception | None = None
        self.route = ""
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.middleware = TracedRequests(self.app, provider.get_tracer("catalog"))

    async def app(self, scope: Any, _receive: Any, send: Any) -> None:
        if self.route:
            scope[ROUTE] = self.route
        for event in self.answer:
            await send(event)
        if self.failure is not None:
            raise self.failure

    async def ask(self, method: str = "GET", **scope: Any) -> list[Any]:
        """Send a request, and return the events of its response."""
        sent: list[Any] = []

        async def send(event: Any) -> None:
            sent.append(event)

        request = {
            "type": "http",
            "method": method,
            "scheme": "https",
            "path": "/api/products",
            "http_version": "1.1",
            "headers": [],
            **scope,
        }
        await self.middleware(request, None, send)  # type: ignore[arg-type]  # never received
        return sent


@pytest.fixture
def traced() -> Iterator[Traced]:
    structlog.contextvars.clear_contextvars()
    yield Traced()
    structlog.contextvars.clear_contextvars()


class TestSpan:
    async def test_response_is_passed_on_and_its_status_noted(self, traced: Traced) -> None:
        assert await traced.ask("POST") == [START, BODY]

        (span,) = traced.spans.get_finished_spans()
        assert (span.name, span.kind) == ("POST", SpanKind.SERVER)
        assert dict(span.attributes or {}) == {
            "http.request.method": "POST",
            "url.scheme": "https",
            "url.path": "/api/products",
            "network.protocol.version": "1.1",
            "http.response.status_code": 201,
        }

    async def test_route_is_part_of_the_name(self, traced: Traced) -> None:
        traced.route = "/api/products"
        await traced.ask()
        traced.route = OTHER
        await traced.ask()

        first, other = traced.spans.get_finished_spans()
        assert first.name == "GET /api/products"
        assert (first.attributes or {})["http.route"] == "/api/products"
        assert other.name == "GET"
        assert "http.route" not in (other.attributes or {})

    @pytest.mark.parametrize(("count", "is_joined"), [(1, True), (2, False)])
    async def test_trace_of_the_client_is_joined_if_there_is_one(
        self, traced: Traced, count: int, is_joined: bool
    ) -> None:
        parents = [(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())] * count
        await traced.ask(headers=[(b"accept", b"*/*"), *parents, (b"tracestate", b"a=1,b=2")])

        (span,) = traced.spans.get_finished_spans()
        assert span.context is not None
        assert (f"{span.context.trace_id:032x}" == TRACE) == is_joined
        assert (span.parent is not None) == is_joined
        assert dict(span.context.trace_state) == ({"a": "1", "b": "2"} if is_joined else {})

    async def test_unknown_method_is_no_name(self, traced: Traced) -> None:
        await traced.ask("BREW")

        (span,) = traced.spans.get_finished_spans()
        assert span.name == "HTTP"
        assert (span.attributes or {})["http.request.method"] == "_OTHER"

    @pytest.mark.parametrize(("answer", "status"), [([], 500), ([START], 201)])
    async def test_failure_is_raised_with_the_status_that_was_sent(
        self, traced: Traced, answer: list[Any], status: int
    ) -> None:
        traced.answer, traced.failure = answer, ValueError("broken")

        with pytest.raises(ValueError, match="broken"):
            await traced.ask()

        (span,) = traced.spans.get_finished_spans()
        assert (span.attributes or {})["http.response.status_code"] == status
        assert (span.status.status_code is StatusCode.ERROR) == (status == 500)

    async def test_only_requests_have_spans(self, traced: Traced) -> None:
        assert await traced.ask(type="lifespan") == [START, BODY]

        assert not traced.spans.get_finished_spans()


class TestLog:
    async def test_ids_are_bound_inside_a_request_and_not_after_it(self, traced: Traced) -> None:
        scope = {"method": "GET", "scheme": "http", "path": "/", "http_version": "2", "headers": []}

        with traced.middleware.traced(scope):
            inside = structlog.contextvars.get_contextvars()

        (span,) = traced.spans.get_finished_spans()
        assert span.context is not None
        assert inside == {
            "trace_id": f"{span.context.trace_id:032x}",
            "span_id": f"{span.context.span_id:016x}",
        }
        assert not structlog.contextvars.get_contextvars()
