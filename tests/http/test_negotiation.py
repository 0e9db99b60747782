"""Which representation a client gets."""

from pathlib import Path

import pytest
from quart import Quart
from structlog.testing import capture_logs

from catalog.http.negotiation import CSV, JSON, NDJSON, best_of
from tests.http.wire import app_without_database, exchange
from tests.support import Caller, problem_of


class TestBestOf:
    @pytest.mark.parametrize(
        ("accept", "best"),
        [
            ("", JSON),
            ("*/*", JSON),
            ("application/*", JSON),
            ("text/csv", CSV),
            ("text/*", CSV),
            ("TEXT/CSV; charset=utf-8", CSV),
            ("text/csv, application/json", JSON),
            ("application/json;q=0.5, text/csv;q=0.4", JSON),
            ("application/json;q=0.5, text/csv;q=0.6", CSV),
            ("text/csv, */*", CSV),
            ("text/csv;q=0.1, */*", JSON),
            ("application/x-ndjson, */*;q=0.1", NDJSON),
            ("application/json;q=0, */*", NDJSON),
            ("application/*;q=0, */*", CSV),
            ("text/csv;q=high", CSV),
            ("text/html, image/png", None),
            ("*/*;q=0", None),
            ("application/json;q=0.000", None),
        ],
    )
    def test_weight_counts_then_how_exactly_it_is_named_then_our_order(
        self, accept: str, best: str | None
    ) -> None:
        assert best_of((JSON, NDJSON, CSV), accept) == best


class TestAccept:
    @pytest.mark.parametrize(
        "accept",
        [
            "text/html",
            "image/*",
            "application/xml",
            "application/json;q=0",
            "application/json; q=0.0, text/html",
            "*/*;q=0",
            "application/jsonp",
            "application/json-seq",
            "image/png, text/html;q=0.5",
        ],
    )
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/api/products"),
            ("HEAD", "/api/products"),
            ("POST", "/api/products"),
            ("DELETE", "/api/products/7"),
            ("POST", "/api/auth/login"),
            ("GET", "/api/auth/refresh"),
        ],
    )
    async def test_without_json_nothing_is_done(
        self, stranger: Caller, method: str, path: str, accept: str
    ) -> None:
        answer = await stranger.send(method, path, headers={"Accept": accept})

        assert problem_of(answer) == (406, "not-acceptable")

    @pytest.mark.parametrize(
        "accept",
        [
            None,
            "",
            "*/*",
            "application/*",
            "application/json",
            "APPLICATION/JSON",
            "application/json; charset=utf-8",
            "text/html, application/json;q=0.1",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        ],
    )
    async def test_with_json_it_is_done(self, stranger: Caller, accept: str | None) -> None:
        headers = {} if accept is None else {"Accept": accept}

        answer = await stranger.get("/api/products/my", headers=headers)

        assert problem_of(answer) == (401, "token-missing")

    @pytest.mark.parametrize("path", ["/", "/docs", "/livez", "/openapi.json"])
    async def test_pages_and_health_are_what_they_are(self, stranger: Caller, path: str) -> None:
        answer = await stranger.get(path, headers={"Accept": "image/png"})

        assert answer.status_code == 200

    async def test_two_headers_are_one_list(self, bare_app: Quart) -> None:
        headers = [(b"accept", b"text/html"), (b"accept", b"application/json")]

        answer = await exchange(bare_app, "GET", "/api/products/my", headers=headers)

        assert problem_of(answer) == (401, "token-missing")

    async def test_a_refusal_is_logged_under_its_route(self, tmp_path: Path) -> None:
        app = app_without_database(tmp_path, access_log="all")

        with capture_logs() as logs:
            await Caller(app).send("DELETE", "/api/products/7", headers={"Accept": "text/html"})

        assert [event["route"] for event in logs] == ["/api/products/<id>"]
