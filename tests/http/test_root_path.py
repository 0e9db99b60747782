"""The service under a path, named by the setting or by a proxy: all links of a response have it."""

import re
from ipaddress import ip_network
from typing import Any

import pytest
from quart import Quart

from catalog.app import direct_path
from catalog.http.context import app_state
from catalog.settings import Settings
from tests.db.support import on_sqlite
from tests.http.wire import JSON, Header, exchange
from tests.support import Caller, Response, problem_of

# Links are the same on every engine.
pytestmark = on_sqlite

PROXY = "192.0.2.1"
PREFIXES = ["", "/shop", "/a/b.c"]
# The path as a client requests it, and as a proxy that removes the prefix forwards it.
WAYS = ["kept", "removed"]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Return settings that trust the peer of the tests' requests."""
    return settings.model_copy(update={"trusted_proxies": (ip_network(PROXY),)})


class Published:
    """The service under a prefix, seen by a client of its proxy."""

    def __init__(self, app: Quart, prefix: str, way: str, token: str | None = None) -> None:
        self.app = app
        self.prefix = prefix
        self._way = way
        self._token = token

    async def ask(
        self, method: str, url: str, *headers: Header, body: bytes = b"", named: bool = True
    ) -> Response:
        """Send a request for a URL that a response contained."""
        assert url.startswith(f"{self.prefix}/"), url
        path = url.removeprefix(self.prefix) if self._way == "removed" else url
        fields = [*headers]
        if named and self.prefix:
            fields.append((b"x-forwarded-prefix", self.prefix.encode()))
        if self._token:
            fields.append((b"authorization", f"Bearer {self._token}".encode()))
        if body:
            fields += [JSON, (b"content-length", b"%d" % len(body))]
        return await exchange(self.app, method, path, headers=fields, body=[body] if body else [])

    async def get(self, url: str, *headers: Header, **options: Any) -> Response:
        return await self.ask("GET", url, *headers, **options)


@pytest.fixture(params=PREFIXES)
def prefix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=WAYS)
async def published(
    request: pytest.FixtureRequest, app: Quart, ada: Caller, prefix: str
) -> Published:
    for number in range(3):
        await ada.create_product(f"Lamp {number}")
    return Published(app, prefix, request.param, ada.access_token)


class TestLinks:
    async def test_list_is_walked_by_next_and_link(self, published: Published) -> None:
        names = []
        url = f"{published.prefix}/api/products?limit=1"
        for _ in range(3):
            page = await published.get(url)
            names += [product["name"] for product in page.json["products"]]
            if page.json["next"]:
                assert page.headers["Link"] == f'<{page.json["next"]}>; rel="next"'
                url = page.json["next"]

        assert names == ["Lamp 2", "Lamp 1", "Lamp 0"]
        assert page.json["next"] is None

    async def test_own_list_is_walked_by_next(self, published: Published) -> None:
        page = await published.get(f"{published.prefix}/api/products/my?limit=2")
        rest = await published.get(page.json["next"])

        assert [product["name"] for product in rest.json["products"]] == ["Lamp 0"]

    async def test_location_leads_to_the_created_product(self, published: Published) -> None:
        created = await published.ask(
            "POST", f"{published.prefix}/api/products", body=b'{"name": "New", "price": 1}'
        )

        assert created.status_code == 201
        read = await published.get(created.headers["Location"])
        assert read.json["name"] == "New"

    @pytest.mark.parametrize("path", ["/api/products/99", "/nowhere", "/api/products?limit=0"])
    async def test_type_of_a_problem_leads_to_its_explanation(
        self, published: Published, path: str
    ) -> None:
        refused = await published.get(published.prefix + path)
        explained = await published.get(refused.json["type"])

        assert refused.json["type"] == f"{published.prefix}/problems/{refused.json['code']}"
        assert explained.json["type"] == refused.json["type"]

    async def test_document_names_the_prefix_as_server(self, published: Published) -> None:
        document = (await published.get(f"{published.prefix}/openapi.json")).json

        assert document["servers"][0]["url"] == (published.prefix or "/")

    @pytest.mark.parametrize("page", ["/", "/docs", "/sign-in"])
    async def test_pages_refer_to_paths_under_the_prefix(
        self, published: Published, page: str
    ) -> None:
        text = (await published.get(published.prefix + page)).body.decode()

        references = re.findall(r'(?:href|src|action|data-document)="(/[^"]*)"', text)
        assert references
        for reference in references:
            answer = await published.get(reference)
            assert answer.status_code == 200, reference

    async def test_document_names_the_host_and_scheme_of_the_proxy(
        self, published: Published
    ) -> None:
        host = (b"x-forwarded-host", b"shop.example:8443")
        scheme = (b"x-forwarded-proto", b"https")
        document = (await published.get(f"{published.prefix}/openapi.json", host, scheme)).json

        server = f"https://shop.example:8443{published.prefix}"
        assert document["servers"][0]["url"] == server

    async def test_prefix_itself_is_the_home_page(self, published: Published) -> None:
        if published.prefix:
            fields = [(b"x-forwarded-prefix", published.prefix.encode())]
            answer = await exchange(published.app, "GET", published.prefix, headers=fields)
            assert b"<h1>Products</h1>" in answer.body


class TestCachedPages:
    async def test_page_is_not_served_under_another_prefix(self, app: Quart, ada: Caller) -> None:
        for number in range(3):
            await ada.create_product(f"Lamp {number}")

        async def read(prefix: str, path: str, token: str | None) -> str:
            page = await Published(app, prefix, "removed", token).get(f"{prefix}{path}?limit=1")
            assert page.status_code == 200
            return str(page.json["next"])

        for token, path in ((None, "/api/products"), (ada.access_token, "/api/products/my")):
            for _ in range(2):
                for prefix in PREFIXES:
                    assert (await read(prefix, path, token)).startswith(f"{prefix}{path}?cursor=")

    async def test_cursor_is_good_under_every_prefix(self, app: Quart, ada: Caller) -> None:
        for number in range(3):
            await ada.create_product(f"Lamp {number}")
        first = await Published(app, "/shop", "removed").get("/shop/api/products?limit=1")

        rest = await Published(app, "", "kept").get(first.json["next"].removeprefix("/shop"))

        assert [product["name"] for product in rest.json["products"]] == ["Lamp 1"]


class TestSetting:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"root_path": "/shop", "trusted_proxies": ()})

    @pytest.mark.parametrize("way", WAYS)
    async def test_setting_needs_no_proxy(self, app: Quart, ada: Caller, way: str) -> None:
        await ada.create_product("Lamp")
        await ada.create_product("Lamp")
        published = Published(app, "/shop", way)

        page = await published.get("/shop/api/products?limit=1", named=False)
        rest = await published.get(page.json["next"], named=False)
        missing = await published.get("/shop/nowhere", named=False)

        assert len(rest.json["products"]) == 1
        assert problem_type(missing) == "/shop/problems/not-found"

    async def test_prefixed_request_takes_the_fast_path(self, app: Quart) -> None:
        is_on = app_state(app).settings.fast_path == "on"

        def is_quick(path: str) -> bool:
            scope: Any = {"type": "http", "method": "GET", "path": path}
            scope |= {"query_string": b"", "headers": []}
            return direct_path(app).find(scope) is not None

        assert is_quick("/shop/api/products") is is_on
        assert is_quick("/api/products") is is_on
        assert not is_quick("/shopping/api/products")


def problem_type(answer: Response) -> str:
    return str(answer.json["type"])


class TestStranger:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"trusted_proxies": ()})

    async def test_prefix_of_an_untrusted_peer_is_ignored(self, app: Quart) -> None:
        fields = [(b"x-forwarded-prefix", b"/evil")]
        refused = await exchange(app, "GET", "/api/products/1", headers=fields)
        under = await exchange(app, "GET", "/evil/api/products", headers=fields)

        assert problem_of(refused) == (404, "not-found")
        assert problem_of(under) == (404, "not-found")
