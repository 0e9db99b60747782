"""Exchanges: request ids, counting, draining, WebSockets."""

import re
from pathlib import Path
from typing import Any

import pytest
from quart import Quart

from catalog.app import begin_drain
from catalog.observability import metrics
from tests.http.kinds import KINDS, Kind, ask, every_kind
from tests.http.wire import Unanswered, app_without_database, exchange
from tests.support import Caller, problem_of


class TestRequestId:
    @every_kind
    async def test_client_request_id_is_echoed(self, app_that_fails: Quart, kind: Kind) -> None:
        answer = await ask(app_that_fails, kind, (b"x-request-id", b"from-Client_1.0"))

        assert answer.headers.getlist("X-Request-ID") == ["from-Client_1.0"]
        if kind.status >= 400:
            assert answer.json["request_id"] == "from-Client_1.0"

    @every_kind
    async def test_request_id_is_generated_if_missing(
        self, app_that_fails: Quart, kind: Kind
    ) -> None:
        first = await ask(app_that_fails, kind)
        second = await ask(app_that_fails, kind)

        for answer in (first, second):
            assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])
        assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]

    @pytest.mark.parametrize("given", ["a", "0", "-", "A.b_c-9", "x" * 128], ids=len)
    async def test_valid_request_id_is_echoed(self, stranger: Caller, given: str) -> None:
        answer = await stranger.get("/livez", headers={"X-Request-ID": given})

        assert answer.headers["X-Request-ID"] == given

    @pytest.mark.parametrize(
        "given",
        [
            b"",
            b" ",
            b"x" * 129,
            b"a b",
            b"a,b",
            b"a/b",
            b'"quoted"',
            b"<script>",
            b"caf\xc3\xa9",
            b"a\tb",
            b"a\x00",
            b"\xff",
        ],
        ids=repr,
    )
    async def test_invalid_request_id_is_replaced(self, bare_app: Quart, given: bytes) -> None:
        answer = await exchange(bare_app, "GET", "/livez", headers=[(b"x-request-id", given)])

        assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])


class TestCounting:
    async def test_request_without_a_response_is_counted_as_499(self, bare_app: Quart) -> None:
        labels = {"method": "POST", "route": "/api/auth/login", "status": "499"}
        name = "catalog_http_requests_total"
        before = metrics.REGISTRY.get_sample_value(name, labels) or 0

        with pytest.raises(Unanswered):
            await exchange(
                bare_app,
                *("POST", "/api/auth/login"),
                headers=[(b"content-length", b"10")],
                body=[b"{"],
                then="hangs up",
            )

        assert metrics.REGISTRY.get_sample_value(name, labels) == before + 1


class TestDraining:
    @pytest.mark.parametrize("name", sorted(set(KINDS) - {"500"}))
    async def test_responses_close_the_connection_while_draining(
        self, tmp_path: Path, name: str
    ) -> None:
        app = app_without_database(tmp_path)
        begin_drain(app)

        answer = await ask(app, KINDS[name])

        assert "close" in answer.headers.getlist("Connection")

    async def test_readiness_fails_while_draining(self, tmp_path: Path) -> None:
        app = app_without_database(tmp_path)
        begin_drain(app)

        answer = await Caller(app).get("/readyz")

        assert problem_of(answer) == (503, "not-ready")
        assert "shutting down" in answer.json["detail"]

    async def test_connections_are_kept_alive_before_draining(self, bare_app: Quart) -> None:
        answer = await ask(bare_app, KINDS["200"])

        assert "Connection" not in answer.headers


class TestWebSocket:
    async def test_websocket_is_closed(self, bare_app: Quart) -> None:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope: Any = {"type": "websocket", "path": "/", "headers": [], "client": None}

        await bare_app.asgi_app(scope, receive, send)

        assert [message["type"] for message in sent] == ["websocket.close"]
