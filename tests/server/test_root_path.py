"""Proxies in front, and a path to be published under: straight and through nginx and its cache."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import httpx
import pytest

from tests.server.nginx import Nginx, needs_cache, nginx
from tests.server.service import TIMEOUT_SECONDS, Catalog, Service
from tests.support import PASSWORD

PATH = "/api/products"
PREFIX = "/shop"
TRUSTED = {"CATALOG_TRUSTED_PROXIES": "127.0.0.1"}
UNDER_PREFIX = {"CATALOG_ROOT_PATH": PREFIX}

METRICS = (
    *("/metrics", "/metrics/", "/%6detrics", "/livez/../metrics"),
    *(f"{PREFIX}/metrics", f"{PREFIX}//metrics/", f"{PREFIX}{PREFIX}/metrics"),
    *(f"{PREFIX}{PREFIX}{PREFIX}/metrics", "/%73hop/metrics", f"{PREFIX}/x/..%2fmetrics"),
)

# What a proxy in front of nginx may say; the tests are that proxy.
FORWARDED = {
    "X-Forwarded-For": "198.51.100.1, 203.0.113.66:5555",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "shop.example:8443",
    "X-Forwarded-Prefix": "/front",
}


def behind_a_proxy(text: str) -> str:
    """Let nginx trust a proxy on this machine, as the site of Kubernetes trusts the Ingress."""
    trust = "set_real_ip_from 127.0.0.1;\nreal_ip_header X-Forwarded-For;\nreal_ip_recursive on;\n"
    is_listen_conf = re.match(r"(#.*\n)*listen ", text) is not None
    return text + trust if is_listen_conf else text


@dataclass(frozen=True)
class Hops:
    """The service, and nginx in front of it."""

    service: Service
    proxy: Nginx
    token: str

    def client(self, hop: str = "proxy", *, token: bool = False) -> httpx.AsyncClient:
        url = self.proxy.url if hop == "proxy" else self.service.url
        headers = {"Authorization": f"Bearer {self.token}"} if token else {}
        return httpx.AsyncClient(base_url=url, headers=headers, timeout=30)

    async def create_product(self, count: int) -> None:
        async with self.client(token=True) as ada:
            for number in range(count):
                answer = await ada.post(PATH, json={"name": f"Lamp {number}", "price": 1})
                assert answer.status_code == 201, answer.text


@pytest.fixture(scope="module")
async def under_prefix(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hops]:
    """Run both with the same setting, without another proxy."""
    catalog = Catalog(tmp_path_factory.mktemp("prefix"))
    async with catalog.start(**TRUSTED, **UNDER_PREFIX) as service:
        await service.serving()
        token = await service.sign_up()
        async with nginx(service.url, variables=UNDER_PREFIX) as proxy:
            hops = Hops(service, proxy, token)
            await hops.create_product(3)
            await proxy.caching()
            yield hops


@pytest.fixture(scope="module")
async def behind(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hops]:
    """Run nginx behind a proxy that it trusts; without a setting."""
    catalog = Catalog(tmp_path_factory.mktemp("behind"))
    async with catalog.start(**TRUSTED) as service:
        await service.serving()
        token = await service.sign_up()
        async with nginx(service.url, edit=behind_a_proxy) as proxy:
            hops = Hops(service, proxy, token)
            await hops.create_product(3)
            yield hops


@needs_cache
class TestRootPath:
    @pytest.mark.parametrize("hop", ["service", "proxy"])
    async def test_list_is_walked_by_next(self, under_prefix: Hops, hop: str) -> None:
        async with under_prefix.client(hop) as anyone:
            for start in (PREFIX, ""):
                url: str | None = f"{start}{PATH}?limit=1"
                names = []
                while url:
                    page = await anyone.get(url)
                    names += [product["name"] for product in page.json()["products"]]
                    url = page.json()["next"]
                    assert url is None or url.startswith(f"{PREFIX}{PATH}?cursor=")

                assert names[-3:] == ["Lamp 2", "Lamp 1", "Lamp 0"]

    async def test_prefixed_page_comes_from_the_cache(self, under_prefix: Hops) -> None:
        async with under_prefix.client() as anyone:
            for _ in range(40):
                name = uuid4().hex
                headers = {"X-Request-ID": name}
                await anyone.get(f"{PREFIX}{PATH}?limit=2", headers=headers)
                if await under_prefix.proxy.source_of(name) == "HIT":
                    return
        pytest.fail("It was never answered from the cache.")

    @pytest.mark.parametrize("method", ["GET", "POST"])
    @pytest.mark.parametrize("body", [b"", b"x"])
    async def test_metrics_are_not_reachable(
        self, under_prefix: Hops, method: str, body: bytes
    ) -> None:
        async with under_prefix.client() as anyone:
            for path in METRICS:
                answer = await anyone.request(method, path, content=body)

                assert answer.status_code == 404, path
                assert answer.json()["type"] == f"{PREFIX}/problems/not-found"

    async def test_metrics_are_unreachable_under_a_prefix_unknown_to_nginx(
        self, under_prefix: Hops
    ) -> None:
        async with (
            nginx(under_prefix.service.url) as untold,
            httpx.AsyncClient(base_url=untold.url) as anyone,
        ):
            for path in METRICS:
                assert (await anyone.get(path)).status_code == 404, path

    @pytest.mark.parametrize("hop", ["service", "proxy"])
    async def test_refusals_lead_to_their_explanation(self, under_prefix: Hops, hop: str) -> None:
        long = {"name": "Lamp", "price": 1, "description": "x" * 300_000}
        async with under_prefix.client(hop, token=True) as ada:
            refused = await ada.post(f"{PREFIX}{PATH}", json=long)
            explained = await ada.get(refused.json()["type"])

        assert refused.status_code == 413
        assert (
            explained.json()["type"]
            == refused.json()["type"]
            == (f"{PREFIX}/problems/body-too-large")
        )

    async def test_import_is_not_bounded_and_shows_at_once(self, under_prefix: Hops) -> None:
        line = json.dumps({"name": "Many", "price": 1, "description": "x" * 1000}).encode() + b"\n"
        ndjson = {"Content-Type": "application/x-ndjson"}
        async with under_prefix.client(token=True) as ada, under_prefix.client() as anyone:
            before = (await anyone.get(f"{PREFIX}{PATH}?limit=1")).json()["products"][0]["id"]
            bulk = await ada.post(f"{PREFIX}{PATH}", content=line * 400, headers=ndjson)
            after = (await anyone.get(f"{PREFIX}{PATH}?limit=1")).json()["products"][0]["id"]

            assert bulk.status_code == 200, bulk.text
            assert after == before + 400
            deleted = await ada.delete(f"{PREFIX}{PATH}/{after}")
            assert deleted.status_code == 200
            assert (await anyone.get(f"{PREFIX}{PATH}/{after}")).status_code == 404

    async def test_events_are_not_buffered(self, under_prefix: Hops) -> None:
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "gzip"}
        async with under_prefix.client() as anyone:
            since = (await anyone.get(f"{PREFIX}{PATH}")).headers["catalog-position"]
            url = f"{PREFIX}{PATH}/changes?since={since}"
            async with (
                anyone.stream("GET", url, headers=headers) as stream,
                asyncio.timeout(TIMEOUT_SECONDS),
            ):
                await under_prefix.create_product(1)
                async for line in stream.aiter_lines():
                    if line.startswith("data:"):
                        break


@needs_cache
class TestFrontProxy:
    async def test_cache_does_not_mix_prefixes_up(self, behind: Hops) -> None:
        hits = set()
        async with behind.client() as anyone:
            for turn in range(60):
                prefix = ("", "/one", "/two")[turn % 3]
                name = uuid4().hex
                headers = {"X-Forwarded-For": "203.0.113.66:5555", "X-Request-ID": name}
                if prefix:
                    headers["X-Forwarded-Prefix"] = prefix
                page = await anyone.get(f"{PATH}?limit=1", headers=headers)

                assert page.json()["next"].startswith(f"{prefix}{PATH}?cursor=")
                if await behind.proxy.source_of(name) == "HIT":
                    hits.add(prefix)

        assert hits == {"", "/one", "/two"}

    async def test_prefix_of_an_untrusted_client_is_ignored_and_not_kept(
        self, under_prefix: Hops
    ) -> None:
        async with under_prefix.client() as anyone:
            for _ in range(4):
                for headers in (FORWARDED, {}):
                    page = await anyone.get(f"{PATH}?limit=1", headers=headers)
                    assert page.json()["next"].startswith(f"{PREFIX}{PATH}?cursor=")

    @pytest.mark.parametrize("start", ["", "/front"])
    async def test_links_are_those_of_the_front(self, behind: Hops, start: str) -> None:
        token = {"Authorization": f"Bearer {behind.token}"}
        async with behind.client() as proxy:
            proxy.headers.update(FORWARDED)
            document = (await proxy.get(f"{start}/openapi.json")).json()
            created = await proxy.post(
                f"{start}{PATH}", json={"name": "Lamp", "price": 1}, headers=token
            )
            missing = await proxy.get(f"{start}/nowhere")
            refused = await proxy.get(f"{start}/metrics")

        assert document["servers"][0]["url"] == "https://shop.example:8443/front"
        assert created.headers["location"].startswith(f"/front{PATH}/")
        assert missing.json()["type"] == refused.json()["type"] == "/front/problems/not-found"

    async def test_untrusted_client_cannot_choose_address_host_and_scheme(
        self, under_prefix: Hops
    ) -> None:
        forged = {**FORWARDED, "Forwarded": "for=203.0.113.77;proto=https;host=evil.example"}
        async with under_prefix.client() as anyone:
            document = (await anyone.get("/openapi.json", headers=forged)).json()

        # With its port, as the client needs it.
        assert document["servers"][0]["url"] == f"{under_prefix.proxy.url}{PREFIX}"


NODES = {
    "IPv4": ("203.0.113.66", "203.0.113.77"),
    "IPv4 and port": ("203.0.113.66:5555", "203.0.113.77:5555"),
    "IPv6": ("2001:db8:66::1", "2001:db8:77::1"),
    "IPv6 and port": ("[2001:db8:66::1]:5555", "[2001:db8:77::1]:5555"),
}
TOO_MANY = 12


class TestClients:
    @pytest.mark.parametrize("hop", ["service", "proxy"])
    @pytest.mark.parametrize("name", NODES)
    async def test_wrong_guesses_of_one_client_do_not_lock_out_another(
        self, behind: Hops, hop: str, name: str
    ) -> None:
        guesser, owner = NODES[name]
        username = f"victim-{uuid4().hex[:8]}"
        account = {"username": username, "email": f"{username}@example.com", "password": PASSWORD}
        async with behind.client(hop) as proxy:
            assert (await proxy.post("/api/auth/signup", json=account)).status_code == 201

            async def log_in(password: str, **headers: str) -> int:
                body = {"username": username, "password": password}
                answer = await proxy.post("/api/auth/login", json=body, headers=headers)
                return answer.status_code

            statuses = [
                await log_in("wrong-guess", **{"X-Forwarded-For": guesser}) for _ in range(TOO_MANY)
            ]

            assert statuses[0] == 401
            assert statuses[-1] == 429
            assert await log_in(PASSWORD, **{"X-Forwarded-For": guesser}) == 429
            assert await log_in(PASSWORD, **{"X-Forwarded-For": owner}) == 200

    @pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
    async def test_unreadable_address_is_logged_once(self, behind: Hops, header: str) -> None:
        value = "unknown" if header == "X-Forwarded-For" else "for=_hidden"
        async with behind.client("service") as proxy:
            for _ in range(3):
                assert (await proxy.get("/livez", headers={header: value})).status_code == 200

        event = await behind.service.event("forwarded_unreadable", header=header)
        assert event["proxy"] == "127.0.0.1"
        assert len(behind.service.logged("forwarded_unreadable", header=header)) == 1
