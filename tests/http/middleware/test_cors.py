"""Cross-origin requests: preflights, and the headers of every response."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from quart import Quart

from catalog import app as composition
from catalog.http.middleware.cors import EXPOSED
from tests.http.kinds import KINDS, Kind
from tests.http.wire import JSON, Header, app_without_database, exchange
from tests.support import Response

PAGE = "http://localhost:3000"
OTHER_PAGE = "https://app.example.com"
STRANGE_PAGE = "https://evil.example"
BOTH = (PAGE, OTHER_PAGE)

SIGN_UP = Kind(429, "POST", "/api/auth/signup", (JSON,), b"{}")
NOT_FOUND = Kind(404, "GET", "/nowhere")
CORS_HEADERS = "access-control-"

every_kind = pytest.mark.parametrize(
    "kind",
    [
        *KINDS.values(),
        Kind(304, "GET", "/openapi.json", ((b"if-none-match", b"*"),)),
        Kind(401, "GET", "/api/auth/me"),
        SIGN_UP,
    ],
    ids=[*KINDS, "304", "401-to-a-read", "429"],
)


@asynccontextmanager
async def app_for(folder: Path, *origins: str) -> AsyncIterator[Quart]:
    """Run an app that admits pages of these origins, and one sign-up a day."""
    app = app_without_database(folder, cors_origins=origins, signup_limit="1/day")

    @app.get("/unforeseen")
    async def fail() -> str:
        raise RuntimeError

    async with app.test_app():
        yield app


@pytest.fixture(scope="module")
async def sharing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Quart]:
    """Return an app that admits pages of two origins, and takes no more sign-ups today."""
    async with app_for(tmp_path_factory.mktemp("sharing"), *BOTH) as app:
        await ask(app, SIGN_UP)
        yield app


async def ask(app: Quart, kind: Kind, *origins: str, headers: Sequence[Header] = ()) -> Response:
    fields = [(b"origin", origin.encode()) for origin in origins]
    body = [kind.body] if kind.body else []
    return await exchange(
        app, kind.method, kind.path, headers=[*kind.headers, *fields, *headers], body=body
    )


async def preflight(
    app: Quart, origin: str, path: str = "/api/products", *headers: Header
) -> Response:
    requested = [
        (b"access-control-request-method", b"POST"),
        (b"access-control-request-headers", b"authorization,content-type"),
    ]
    return await ask(app, Kind(204, "OPTIONS", path), origin, headers=[*requested, *headers])


def shared_with(answer: Response) -> tuple[str | None, bool]:
    """Return the origin that may read a response, and whether caches keep origins apart."""
    varies = "Origin" in [name.strip() for name in ",".join(varying(answer)).split(",")]
    return answer.headers.get("Access-Control-Allow-Origin"), varies


def varying(answer: Response) -> list[str]:
    values: list[str] = answer.headers.getlist("Vary")
    return values


def cors_headers(answer: Response) -> dict[str, Any]:
    return {k: v for k, v in answer.headers.items() if k.lower().startswith(CORS_HEADERS)}


class TestEveryResponse:
    @every_kind
    async def test_admitted_page_may_read_the_response(self, sharing: Quart, kind: Kind) -> None:
        answer = await ask(sharing, kind, OTHER_PAGE)

        assert answer.status_code == kind.status
        assert shared_with(answer) == (OTHER_PAGE, True)
        assert answer.headers["Access-Control-Expose-Headers"].split(", ") == list(EXPOSED)
        assert answer.headers["X-Request-ID"]

    @every_kind
    @pytest.mark.parametrize(
        "origins",
        [(), (STRANGE_PAGE,), ("null",), ("*",), (PAGE.upper(),), (f"{PAGE}/",), (PAGE, PAGE)],
        ids=str,
    )
    async def test_other_page_may_not(
        self, sharing: Quart, kind: Kind, origins: tuple[str, ...]
    ) -> None:
        answer = await ask(sharing, kind, *origins)

        assert answer.status_code == kind.status
        assert shared_with(answer) == (None, True)
        assert cors_headers(answer) == {}

    async def test_variation_by_media_type_is_kept(self, tmp_path: Path) -> None:
        async with app_for(tmp_path, *BOTH) as app:

            @app.get("/varying")
            async def vary() -> tuple[str, dict[str, str]]:
                return "", {"Vary": "Accept"}

            answer = await ask(app, Kind(200, "GET", "/varying"), PAGE)

        assert varying(answer) == ["Accept", "Origin"]

    async def test_headers_of_a_shared_reply_do_not_grow(self, sharing: Quart) -> None:
        one = await ask(sharing, NOT_FOUND, PAGE)
        other = await ask(sharing, NOT_FOUND, PAGE)

        assert len(one.headers) == len(other.headers)

    @every_kind
    async def test_default_admits_no_page(self, app_that_admits_none: Quart, kind: Kind) -> None:
        answer = await ask(app_that_admits_none, kind, PAGE)

        assert answer.status_code == kind.status
        assert shared_with(answer) == (None, False)
        assert cors_headers(answer) == {}


@pytest.fixture(scope="module")
async def app_that_admits_none(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Quart]:
    async with app_for(tmp_path_factory.mktemp("none")) as app:
        await ask(app, SIGN_UP)
        yield app


class TestPreflight:
    @pytest.mark.parametrize("path", ["/api/products", "/api/products/7", "/api/auth/me", "/x"])
    async def test_admitted_page_may_send_any_method_and_header(
        self, sharing: Quart, path: str
    ) -> None:
        answer = await preflight(sharing, PAGE, path)

        assert (answer.status_code, answer.body) == (204, b"")
        assert shared_with(answer) == (PAGE, True)
        methods = answer.headers["Access-Control-Allow-Methods"].split(", ")
        assert {"GET", "HEAD", "POST", "PATCH", "DELETE"} <= set(methods)
        headers = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
        # A wildcard does not stand for Authorization, and old browsers do not know it.
        assert {"authorization", "content-type", "if-match", "last-event-id", "*"} <= set(headers)
        assert int(answer.headers["Access-Control-Max-Age"]) > 0
        assert answer.headers["X-Request-ID"]

    async def test_other_page_gets_the_usual_answer(self, sharing: Quart) -> None:
        answer = await preflight(sharing, STRANGE_PAGE)

        assert answer.status_code == 204
        assert answer.headers["Allow"] == "GET, HEAD, OPTIONS, POST"
        assert shared_with(answer) == (None, True)
        assert cors_headers(answer) == {}

    async def test_options_without_a_requested_method_is_no_preflight(self, sharing: Quart) -> None:
        answer = await ask(sharing, KINDS["204"], PAGE)

        assert answer.headers["Allow"] == "GET, HEAD, OPTIONS, POST"
        assert shared_with(answer) == (PAGE, True)
        assert "Access-Control-Allow-Methods" not in answer.headers

    async def test_preflight_is_answered_while_no_request_is_admitted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(composition, "MAX_READS", 0)
        async with app_for(tmp_path, *BOTH) as app:
            refused = await ask(app, Kind(503, "GET", "/api/auth/sessions"), PAGE)
            answer = await preflight(app, PAGE, "/api/auth/sessions")

        assert refused.status_code == 503
        assert shared_with(refused) == (PAGE, True)
        assert answer.status_code == 204

    async def test_page_on_the_internet_may_reach_a_private_network_if_it_is_named(
        self, sharing: Quart, tmp_path: Path
    ) -> None:
        requested = (b"access-control-request-private-network", b"true")
        async with app_for(tmp_path, "*") as open_to_all:
            named = await preflight(sharing, PAGE, "/api/products", requested)
            unnamed = await preflight(open_to_all, PAGE, "/api/products", requested)

        assert named.headers["Access-Control-Allow-Private-Network"] == "true"
        assert "Access-Control-Allow-Private-Network" not in unnamed.headers
        plain = await preflight(sharing, PAGE)
        assert "Access-Control-Allow-Private-Network" not in plain.headers


class TestAnyOrigin:
    @pytest.mark.parametrize("origins", [(), (PAGE,), (STRANGE_PAGE,), ("null",)], ids=str)
    async def test_wildcard_admits_every_page_without_vary(
        self, tmp_path: Path, origins: tuple[str, ...]
    ) -> None:
        async with app_for(tmp_path, "*") as app:
            answer = await ask(app, NOT_FOUND, *origins)

        assert shared_with(answer) == ("*", False)
        assert answer.headers["Access-Control-Expose-Headers"].split(", ") == list(EXPOSED)

    async def test_preflight_of_every_page_is_admitted(self, tmp_path: Path) -> None:
        async with app_for(tmp_path, "*") as app:
            answer = await preflight(app, STRANGE_PAGE)

        assert shared_with(answer) == ("*", False)
        assert "Access-Control-Allow-Methods" in answer.headers
        assert "Access-Control-Allow-Credentials" not in answer.headers
