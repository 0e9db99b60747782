"""Pages of other origins get the same headers directly and through nginx, also from its cache."""

import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import httpx
import pytest

from catalog.http.middleware.cors import EXPOSED
from tests.server.nginx import SHIPPED, Nginx, needs_cache, nginx, site_conf
from tests.server.service import TIMEOUT_SECONDS, Catalog, Service

PATH = "/api/products"
PAGE = f"{PATH}?limit=2"

LOCAL = "http://localhost:3000"
APP = "https://app.example.com"
STRANGE = "https://evil.example"
# None stands for no header.
ORIGINS = (LOCAL, APP, STRANGE, None)

LONG = "x" * 300_000


@dataclass(frozen=True)
class Hops:
    """The service, and nginx in front of it with the same origins."""

    service: Service
    proxy: Nginx
    token: str

    def client(self, url: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=url, timeout=30)


async def hops_for(folder: pytest.TempPathFactory, origins: str) -> AsyncIterator[Hops]:
    variables = {"CATALOG_CORS_ORIGINS": origins}
    catalog = Catalog(folder.mktemp("hops"))
    async with catalog.start(**variables) as service:
        await service.serving()
        token = await service.sign_up()
        async with nginx(service.url, variables=variables) as proxy:
            await proxy.caching()
            yield Hops(service, proxy, token)


@pytest.fixture(scope="module")
async def hops(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hops]:
    async for hops in hops_for(tmp_path_factory, f"{LOCAL},{APP}"):
        yield hops


@pytest.fixture(scope="module", params=["listed", "any"])
async def each_hops(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Hops]:
    origins = {"listed": f"{LOCAL},{APP}", "any": "*"}
    async for hops in hops_for(tmp_path_factory, origins[request.param]):
        yield hops


def of(origin: str | None) -> dict[str, str]:
    return {} if origin is None else {"Origin": origin}


def sharing(answer: httpx.Response) -> tuple[int, dict[str, str], bool]:
    """Return the status, the headers for pages of other origins, and whether caches keep apart."""
    headers = {k: v for k, v in answer.headers.items() if k.startswith("access-control-")}
    varies = "origin" in answer.headers.get("vary", "").lower().split(", ")
    return answer.status_code, headers, varies


PRODUCT = {"name": "Lamp", "price": 1}
REQUESTS = {
    "page": (200, "GET", PAGE, {}, None),
    "head": (200, "HEAD", PAGE, {}, None),
    "page-not-modified": (304, "GET", PAGE, {"If-None-Match": "*"}, None),
    "page-past-the-cache": (200, "GET", PAGE, {"Cache-Control": "no-cache"}, None),
    "export": (200, "GET", PATH, {"Accept": "text/csv"}, None),
    "missing-product": (404, "GET", f"{PATH}/999", {}, None),
    "missing-path": (404, "GET", "/nowhere", {}, None),
    "without-token": (401, "POST", PATH, {}, PRODUCT),
    "not-acceptable": (406, "GET", PATH, {"Accept": "text/html"}, None),
    "options": (204, "OPTIONS", PATH, {}, None),
    "preflight": (204, "OPTIONS", PATH, {"Access-Control-Request-Method": "POST"}, None),
    "preflight-elsewhere": (
        *(204, "OPTIONS", "/api/auth/login", {"Access-Control-Request-Method": "POST"}, None),
    ),
    "too-large": (413, "POST", PATH, {}, {"name": "Lamp", "price": 1, "description": LONG}),
}


@needs_cache
class TestSharing:
    @pytest.mark.parametrize("name", REQUESTS)
    async def test_headers_are_the_same_straight_and_through_nginx(
        self, each_hops: Hops, name: str
    ) -> None:
        hops = each_hops
        status, method, path, headers, body = REQUESTS[name]

        async with hops.client(hops.service.url) as one, hops.client(hops.proxy.url) as other:
            for origin in (*ORIGINS, *ORIGINS):
                given = {**headers, **of(origin)}
                straight = await one.request(method, path, headers=given, json=body)
                through = await other.request(method, path, headers=given, json=body)

                assert straight.status_code == status
                # nginx's own refusals are never cached, so they need not vary.
                kept = 2 if name == "too-large" else 3
                assert sharing(through)[:kept] == sharing(straight)[:kept]

    async def test_page_from_the_cache_names_the_origin_of_its_request(self, hops: Hops) -> None:
        hits = set()
        async with hops.client(hops.proxy.url) as anyone:
            for turn in range(40):
                origin = ORIGINS[turn % 4]
                name = uuid4().hex
                answer = await anyone.get(PAGE, headers={**of(origin), "X-Request-ID": name})

                admitted = origin if origin in {LOCAL, APP} else None
                assert answer.headers.get("access-control-allow-origin") == admitted
                assert sharing(answer)[2]
                if await hops.proxy.source_of(name) == "HIT":
                    hits.add(origin)

        assert hits == set(ORIGINS)

    async def test_cached_page_of_another_origin_shows_without_the_distinction(
        self, hops: Hops
    ) -> None:
        """Control: if the copy kept the header of the request that fetched it."""

        def careless(text: str) -> str:
            text = text.replace("proxy_hide_header Access-Control-Allow-Origin;", "")
            return text.replace("include catalog/cors.conf;", "")

        seen = set()
        async with nginx(hops.service.url, edit=careless) as proxy:
            await proxy.caching()
            async with hops.client(proxy.url) as anyone:
                for turn in range(40):
                    answer = await anyone.get(PAGE, headers=of(ORIGINS[turn % 2]))
                    seen.add((ORIGINS[turn % 2], answer.headers["access-control-allow-origin"]))

        assert seen & {(LOCAL, APP), (APP, LOCAL)}

    async def test_preflight_names_what_a_page_may_send(self, hops: Hops) -> None:
        headers = {"Access-Control-Request-Method": "PATCH", "Origin": LOCAL}
        for url in (hops.service.url, hops.proxy.url):
            async with hops.client(url) as page:
                answer = await page.options(f"{PATH}/7", headers=headers)

            assert answer.headers["access-control-allow-origin"] == LOCAL
            assert "PATCH" in answer.headers["access-control-allow-methods"]
            assert "Authorization" in answer.headers["access-control-allow-headers"]
            assert "access-control-allow-credentials" not in answer.headers

    @pytest.mark.parametrize("hop", ["service", "proxy"])
    async def test_event_stream_may_be_read(self, hops: Hops, hop: str) -> None:
        url = getattr(hops, hop).url
        headers = {"Accept": "text/event-stream", "Origin": LOCAL}
        async with hops.client(url) as page:
            events = page.stream("GET", f"{PATH}/changes?since=0", headers=headers)
            async with events as stream:
                assert stream.headers["access-control-allow-origin"] == LOCAL

    @pytest.mark.parametrize("hop", ["service", "proxy"])
    async def test_response_of_the_fast_path_may_be_read(self, hops: Hops, hop: str) -> None:
        url = getattr(hops, hop).url
        token = {"Authorization": f"Bearer {hops.token}", "Origin": LOCAL}
        async with hops.client(url) as page:
            created = await page.post(PATH, json=PRODUCT, headers=token)
            mine = await page.get(f"{PATH}/my", headers=token)

        for answer, status in ((created, 201), (mine, 200)):
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == LOCAL
            assert answer.headers["vary"].lower().split(", ").count("origin") == 1

    async def test_refusal_while_no_instance_is_up_may_be_read(self) -> None:
        variables = {"CATALOG_CORS_ORIGINS": LOCAL}
        async with (
            nginx("http://127.0.0.1:9", variables=variables) as proxy,
            httpx.AsyncClient(base_url=proxy.url, timeout=TIMEOUT_SECONDS) as page,
        ):
            answer = await page.get("/metrics", headers={"Origin": LOCAL})
            down = await page.post(PATH, json=PRODUCT, headers={"Origin": LOCAL})

        assert (answer.status_code, down.status_code) == (404, 503)
        assert answer.headers["access-control-allow-origin"] == LOCAL
        assert down.headers["access-control-allow-origin"] == LOCAL
        assert "Retry-After" in down.headers["access-control-expose-headers"]


class TestShippedFiles:
    def test_nginx_exposes_the_same_headers_as_the_service(self) -> None:
        text = (SHIPPED / "catalog" / "http.conf").read_text()

        assert f'default "{", ".join(EXPOSED)}";' in text


class TestSiteConf:
    def test_origins_become_a_map(self) -> None:
        text = site_conf({"CATALOG_CORS_ORIGINS": f"{LOCAL}, {APP},{LOCAL}"})

        assert text.count(f'    "{LOCAL}" "{LOCAL}";\n') == 1
        assert text.count(f'    "{APP}" "{APP}";\n') == 1

    @pytest.mark.parametrize("value", ['http://a";}', "*,http://a", "http://a{}", "$host", "A"])
    def test_other_values_are_refused(self, value: str) -> None:
        with pytest.raises(subprocess.CalledProcessError):
            site_conf({"CATALOG_CORS_ORIGINS": value})

    def test_default_is_the_shipped_file(self) -> None:
        shipped = (SHIPPED / "catalog" / "site.conf").read_text()
        lines = [line for line in shipped.splitlines(keepends=True) if line.strip(" #\n")]

        assert site_conf({}) == "".join(line for line in lines if not line.startswith("#"))
