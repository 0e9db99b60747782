"""Browsers, which get problems as pages, are told from other clients by ``Accept``."""

import time

import pytest

from catalog.http.replies.problem_page import BROWSER


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
        ],
    )
    def test_other_client_is_none(self, accept: str) -> None:
        assert not BROWSER.match(accept)

    @pytest.mark.parametrize(
        "part",
        ["text/html", "text/html;", "text/html;q=0.0", "application/json;", "*/*;", " ", "0"],
    )
    def test_hostile_value_is_matched_in_linear_time(self, part: str) -> None:
        began = time.thread_time()

        BROWSER.match("text/html" + part * (8192 // len(part)) + "x")

        assert time.thread_time() - began < 0.02
