"""Tracing: spans join the client's trace."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from quart import Quart
from structlog.testing import capture_logs

from catalog.app import create_app
from catalog.settings import Settings
from tests.support import Caller

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
IN_TRACE = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


class Collector:
    """Collector of spans by OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        self.port = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length: ")[2].split("\r\n")[0])
                request = ExportTraceServiceRequest.FromString(await reader.readexactly(length))
                for resource in request.resource_spans:
                    for attribute in resource.resource.attributes:
                        if attribute.key == "service.name":
                            self.services.add(attribute.value.string_value)
                    for scope in resource.scope_spans:
                        self.spans += scope.spans
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()


def attributes_of(span: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    collector = Collector()
    server = await asyncio.start_server(collector.take, "127.0.0.1", 0)
    collector.port = server.sockets[0].getsockname()[1]
    yield collector
    server.close()
    server.close_clients() if hasattr(server, "close_clients") else None


@asynccontextmanager
async def traced(settings: Settings) -> AsyncIterator[Quart]:
    """Run an app with tracing; all spans have been exported when the block ends."""
    app = create_app(settings.model_copy(update={"tracing": "otlp"}))
    async with app.test_app():
        yield app


@pytest.fixture(autouse=True)
def environment(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")


class TestSpans:
    async def test_request_spans_join_the_client_trace_with_statements_as_children(
        self, settings: Settings, collector: Collector
    ) -> None:
        async with traced(settings) as app:
            ada = await Caller.signed_up(app, "ada")
            created = await ada.post(
                "/api/products", json={"name": "Lamp", "price": 1}, headers=IN_TRACE
            )
            read = await ada.get(f"/api/products/{created.json['id']}", headers=IN_TRACE)
            assert (created.status_code, read.status_code) == (201, 200)

        mine = [span for span in collector.spans if span.trace_id.hex() == TRACE]
        requests = {span.name: span for span in mine if span.kind == span.SPAN_KIND_SERVER}
        assert set(requests) == {"POST /api/products", "GET /api/products/<id>"}
        for span in requests.values():
            assert span.parent_span_id.hex() == PARENT
        attributes = attributes_of(requests["GET /api/products/<id>"])
        assert attributes["http.route"] == "/api/products/<id>"
        assert attributes["http.request.method"] == "GET"
        assert attributes["http.response.status_code"] == 200

        statements = [span for span in mine if span.kind == span.SPAN_KIND_CLIENT]
        parents = {span.parent_span_id for span in statements}
        # A read of a product may be shared, so it belongs to no request.
        assert parents == {requests["POST /api/products"].span_id}
        texts = {attributes_of(span)["db.query.text"] for span in statements}
        assert any(text.startswith("SELECT") for text in texts)
        assert not any("Lamp" in text for text in texts)
        assert collector.services == {"catalog"}

    async def test_trace_is_started_without_a_valid_parent(
        self, settings: Settings, collector: Collector
    ) -> None:
        async with traced(settings) as app:
            for parent in (None, f"00-{'0' * 32}-{PARENT}-01", "nonsense"):
                headers = {"traceparent": parent} if parent else {}
                await Caller(app).get("/livez", headers=headers)

        spans = [span for span in collector.spans if span.name == "GET /livez"]
        assert len({span.trace_id for span in spans}) == 3
        assert not any(span.parent_span_id for span in spans)

    async def test_failures_are_recorded_in_spans(
        self, settings: Settings, collector: Collector
    ) -> None:
        async with traced(settings) as app:

            @app.get("/unforeseen")
            async def unforeseen() -> str:
                raise RuntimeError

            await Caller(app).get("/unforeseen")
            await Caller(app).send("BREW", "/nowhere/4711")

        spans = {span.name: span for span in collector.spans}
        assert spans["GET /unforeseen"].status.code == 2
        assert attributes_of(spans["GET /unforeseen"])["error.type"] == "500"
        assert attributes_of(spans["HTTP"])["http.request.method"] == "_OTHER"
        assert "http.route" not in attributes_of(spans["HTTP"])

    async def test_spans_hold_no_query_string_and_no_text_of_an_error(
        self, settings: Settings, collector: Collector
    ) -> None:
        async with traced(settings) as app:
            await Caller.signed_up(app, "ada")
            await Caller(app).get("/api/products?q=confidential")
            body = {"username": "adam", "email": "ada@example.com", "password": "fine-weather-4711"}
            # An engine's error for a duplicate may quote the address.
            assert (await Caller(app).post("/api/auth/signup", json=body)).status_code == 409

        failed = [span for span in collector.spans if span.status.code == 2]
        assert {attributes_of(span)["error.type"] for span in failed} == {"IntegrityError"}
        assert {span.status.message for span in failed} == {""}
        assert not any(span.events for span in collector.spans)
        assert not any("confidential" in str(span) for span in collector.spans)
        assert not any("ada@example.com" in str(span) for span in collector.spans)

    async def test_log_lines_of_a_request_carry_the_ids_of_its_span(
        self, settings: Settings, collector: Collector
    ) -> None:
        merge = structlog.contextvars.merge_contextvars

        async with traced(settings.model_copy(update={"access_log": "all"})) as app:
            with capture_logs(processors=[merge]) as logged:
                await Caller(app).get("/api/products", headers=IN_TRACE)

        (line,) = [event for event in logged if event["event"] == "request"]
        (span,) = [span for span in collector.spans if span.name == "GET /api/products"]
        assert (line["trace_id"], line["span_id"]) == (TRACE, span.span_id.hex())

    async def test_unreachable_collector_delays_nothing(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        began = asyncio.get_running_loop().time()

        async with traced(settings) as app:
            assert (await Caller(app).get("/api/products")).status_code == 200

        assert asyncio.get_running_loop().time() - began < 5


class TestOff:
    def test_start_names_the_missing_packages(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "catalog.http.middleware.tracing", None)

        with pytest.raises(Exception, match=r"catalog\[otel\]"):
            create_app(settings.model_copy(update={"tracing": "otlp"}))
