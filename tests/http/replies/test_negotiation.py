"""Content negotiation."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quart import Quart
from structlog.testing import capture_logs

from catalog.http.replies.negotiation import CSV, JSON, NDJSON, best_of, offered_by
from tests.http.replies.accept_cases import ACCEPT_CASES, AcceptCase
from tests.http.wire import app_to_read, app_without_database, exchange
from tests.support import Caller, problem_of

HOSTILE = {
    "commas": ",",
    "semicolons": ";",
    "blanks": " ",
    "quotes": '"',
    "escapes": '\\"',
    "open quotes": ',"',
    "blanks before a weight": "a/b;q ",
    "ranges": "a/b,",
    "weights": ";q=0",
}


class TestBestOf:
    @pytest.mark.parametrize("case", ACCEPT_CASES, ids=[case.accept for case in ACCEPT_CASES])
    def test_accept_value_selects_its_media_type(self, case: AcceptCase) -> None:
        assert best_of((JSON, NDJSON, CSV), case.accept) == case.media_type

    @pytest.mark.parametrize("blank", ["\xa0", "\x85", "\x0b", "\x0c"])
    def test_only_http_white_space_is_ignored(self, blank: str) -> None:
        assert best_of((JSON,), f"{blank}application/json{blank}") is None

    @pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE.keys())
    def test_time_is_linear_in_the_length(self, piece: str) -> None:
        began = time.thread_time()

        best_of((JSON, NDJSON, CSV), piece * (2_000_000 // len(piece)))

        # A megabyte takes some 0.3 s; quadratic time would be hours.
        assert time.thread_time() - began < 20

    @given(st.text(alphabet='aj/*,; \t"\\q=01.+n', max_size=40))
    def test_named_range_is_found_after_any_text(self, text: str) -> None:
        # Without quotes, so that the comma is outside of a quoted string.
        text = text.replace('"', "").replace("\\", "")

        assert best_of((JSON,), f"{text},application/json") == JSON


NOT_JSON = (
    "text/html",
    "image/*",
    "application/xml",
    "application/json;q=0",
    "application/json; q=0.0, text/html",
    "*/*;q=0",
    "application/jsonp",
    "application/json-seq",
    "image/png, text/html;q=0.5",
)

WITH_CHOICE = ("/api/products", "/api/products/my", "/api/products/changes")
"""Paths whose responses have a choice of media types."""


class TestAccept:
    @pytest.mark.parametrize("accept", NOT_JSON)
    @pytest.mark.parametrize("path", WITH_CHOICE)
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_request_that_excludes_every_choice_is_not_acceptable(
        self, holder: Caller, method: str, path: str, accept: str
    ) -> None:
        answer = await holder.send(method, path, headers={"Accept": accept})

        assert answer.status_code == 406
        if method == "GET":
            assert problem_of(answer) == (406, "not-acceptable")

    @pytest.mark.parametrize("accept", [*NOT_JSON, "application/problem+json", "text/csv"])
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/api/products"),
            ("DELETE", "/api/products/7"),
            ("POST", "/api/auth/logout"),
            ("POST", "/api/auth/logout-all"),
            ("DELETE", "/api/auth/sessions/7"),
            ("GET", "/api/auth/me"),
            ("GET", "/api/users"),
        ],
    )
    async def test_response_without_a_choice_is_not_negotiated(
        self, stranger: Caller, method: str, path: str, accept: str
    ) -> None:
        answer = await stranger.send(method, path, headers={"Accept": accept})

        assert problem_of(answer) == (401, "token-missing")

    def test_every_other_route_has_no_choice(self) -> None:
        app = app_to_read()

        with_choice = {
            rule.rule
            for rule in app.url_map.iter_rules()
            if len(offered_by(app.view_functions[rule.endpoint])) > 1
        }

        assert with_choice == set(WITH_CHOICE)

    @pytest.mark.parametrize(
        "accept",
        [
            None,
            "",
            "*/*",
            "application/*",
            "application/json",
            "APPLICATION/JSON",
            "application/problem+json",
            "application/json; charset=utf-8",
            "text/html, application/json;q=0.1",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        ],
    )
    async def test_request_that_accepts_json_is_handled(
        self, stranger: Caller, accept: str | None
    ) -> None:
        headers = {} if accept is None else {"Accept": accept}

        # The request reaches the database, which this app does not have.
        answer = await stranger.get("/api/products", headers=headers)

        assert problem_of(answer) == (503, "database-unavailable")

    @pytest.mark.parametrize("accept", ["application/problem+json", "text/html", "*/*;q=0"])
    async def test_sessions_end_whatever_is_accepted(self, app: Quart, accept: str) -> None:
        ada = await Caller.signed_up(app, "ada")
        await ada.create_product("Lamp")
        headers = {"Accept": accept}

        missing = await ada.get("/api/products/99999999", headers=headers)
        deleted = await ada.send("DELETE", "/api/products/1", headers=headers)
        ended = await ada.post("/api/auth/logout", headers=headers)

        assert problem_of(missing) == (404, "not-found")
        assert (deleted.status_code, deleted.json["id"]) == (200, 1)
        assert (ended.status_code, ended.body) == (204, b"")
        assert (await ada.get("/api/auth/me")).status_code == 401

    @pytest.mark.parametrize("path", ["/docs", "/livez", "/openapi.json"])
    async def test_pages_and_health_ignore_accept(self, stranger: Caller, path: str) -> None:
        answer = await stranger.get(path, headers={"Accept": "image/png"})

        assert answer.status_code == 200

    async def test_repeated_headers_are_one_list(self, bare_app: Quart) -> None:
        headers = [(b"accept", b"text/html"), (b"accept", b"application/json")]

        answer = await exchange(bare_app, "GET", "/api/products", headers=headers)

        assert problem_of(answer) == (503, "database-unavailable")

    async def test_not_acceptable_request_is_logged_with_its_route(self, tmp_path: Path) -> None:
        app = app_without_database(tmp_path, access_log="all")

        with capture_logs() as logs:
            await Caller(app).get("/api/products", headers={"Accept": "text/html"})

        assert [event["route"] for event in logs] == ["/api/products"]
