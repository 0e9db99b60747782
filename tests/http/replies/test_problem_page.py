"""Problems as pages: the path and ``Accept`` tell browsers from other clients."""

import time

import pytest

from catalog.http.replies.problem_page import BROWSER, wants_page
from tests.support import handling


class TestBrowser:
    @pytest.mark.parametrize(
        "accept",
        [
            "text/html",
            "TEXT/HTML",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "text/html, application/json;q=0.5",
            "application/xml,application/xhtml+xml,text/html;q=0.9,text/plain;q=0.8,*/*;q=0.5",
            "text/html ; q=1.0, */*;q=0.1",
            "text/html;q=0.001",
        ],
    )
    def test_client_that_prefers_html_is_a_browser(self, accept: str) -> None:
        assert BROWSER.match(accept)

    @pytest.mark.parametrize(
        "accept",
        [
            "",
            "*/*",
            "application/json",
            "text/html, application/json",
            "application/problem+json, text/html",
            "text/html;q=0",
            "text/html;q=0.000, */*;q=0.1",
            "text/html;q=0.5, application/json",
            "application/problem+json;q=0.9, text/html;q=0.5",
            "*/*, text/html;q=0.5",
            "application/*, text/html;q=0.5",
        ],
    )
    def test_other_client_is_not_a_browser(self, accept: str) -> None:
        assert not BROWSER.match(accept)

    @pytest.mark.parametrize(
        "part",
        ["text/html", "text/html;", "text/html;q=0.0", "application/json;", "*/*;", " ", "0"],
    )
    def test_hostile_value_is_matched_in_linear_time(self, part: str) -> None:
        began = time.thread_time()

        BROWSER.match("text/html" + part * (8192 // len(part)) + "x")

        assert time.thread_time() - began < 0.02


class TestPath:
    @pytest.mark.parametrize("path", ["/", "/docs", "/apis", "/products/api"])
    def test_browser_gets_a_page_outside_of_the_api(self, path: str) -> None:
        headers = [(b"accept", b"text/html"), (b"accept", b"*/*;q=0.1")]

        with handling(path=path, headers=headers) as request:
            assert wants_page(request)
        with handling(path=path) as request:
            assert not wants_page(request)

    @pytest.mark.parametrize("path", ["/api", "/api/", "/api/products"])
    def test_browser_gets_json_from_the_api(self, path: str) -> None:
        with handling(path=path, headers=[(b"accept", b"text/html")]) as request:
            assert not wants_page(request)
