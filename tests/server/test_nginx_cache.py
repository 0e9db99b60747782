"""The cache of nginx with the shipped configuration: pages as fresh as those of the service."""

import asyncio
import re
import sqlite3
from contextlib import closing

import httpx
import pytest

from tests.server.nginx import (
    Edit,
    impatient,
    needs_cache,
    needs_nginx,
    nginx,
    own_folder,
    without_eras,
    without_polls,
)
from tests.server.service import TIMEOUT_SECONDS, Catalog, Connection
from tests.server.shop import PATH, TEXT, Shop
from tests.server.slow_page import SlowPage
from tests.support import until

pytestmark = [needs_nginx, needs_cache]


def patient(text: str) -> str:
    """Make requests wait longer for a page that is being fetched."""
    return text.replace("proxy_cache_lock_timeout 10ms", "proxy_cache_lock_timeout 5s")


def at_first_use(text: str) -> str:
    """Store pages at their first request: the control."""
    return text.replace("proxy_cache_min_uses 2;", "")


def crowded(text: str) -> str:
    """Apply the lock wait for high load at any load."""
    return text.replace("    default 0;", "    default lock_wait_long;")


def unhurried(text: str) -> str:
    """Let idle connections stay, and a request wait long among hundreds of others."""
    text = text.replace("client_header_timeout 5s", "client_header_timeout 90s")
    return re.sub(r"proxy_cache_lock_timeout (30|100)ms", "proxy_cache_lock_timeout 90s", text)


def by_connections(text: str) -> str:
    """Count idle connections as load: the control."""
    in_progress = r"([2-9]\d|\d{3,})"
    assert "$connections_writing" not in text or in_progress in text
    return unhurried(text).replace(in_progress, r"\d+")


def by_many_connections(text: str) -> str:
    """Count idle connections as load, and let a request wait long among 700 others only."""
    return re.sub(r"(lock_wait_short \{[^}]*) 90s", r"\1 30ms", by_connections(text))


def hasty_crowd(text: str) -> str:
    """Shorten that lock wait, so that a late page is requested again: the control."""
    return crowded(text).replace("proxy_cache_lock_timeout 3s", "proxy_cache_lock_timeout 500ms")


def strict(text: str) -> str:
    """Keep a page only if it is current when it arrives, and not when it was requested."""
    return text.replace("= r.variables.catalog_expected", "= expected()")


class TestCache:
    async def test_cached_pages_are_answered_without_the_service(self, shop: Shop) -> None:
        path = await shop.create_product(description=TEXT)
        await shop.proxy.caching()
        async with shop.client() as anyone:
            for page in (path, f"{PATH}?limit=2", f"{PATH}?limit=2&sort=name"):
                for encoding in ("identity", "gzip"):
                    kind = {"Accept-Encoding": encoding, "Accept": "application/json, */*;q=0.5"}
                    # On a busy machine nginx may lose the current position for a moment.
                    async with asyncio.timeout(TIMEOUT_SECONDS):
                        while await shop.asked(anyone, page, **kind):
                            pass
                    again = await anyone.get(page, headers=kind)

                    assert again.headers.get("content-encoding", "identity") == encoding
                    known = {**kind, "If-None-Match": again.headers["etag"]}
                    assert (await anyone.get(page, headers=known)).status_code == 304

    @pytest.mark.parametrize(("edit", "stored"), [(str, 0), (at_first_use, 20)])
    async def test_page_is_stored_if_it_is_requested_again(self, edit: Edit, stored: int) -> None:
        async with (
            SlowPage().run() as service,
            nginx(service.url, edit=lambda text: edit(without_polls(text))) as proxy,
            httpx.AsyncClient(base_url=proxy.url) as anyone,
        ):
            await proxy.caching()
            before = proxy.cached_files()

            for number in range(20):
                await anyone.get(f"{PATH}?limit={20 + number}")
            if stored:
                await until(lambda: proxy.cached_files() == before + stored)
            assert proxy.cached_files() == before + stored

            for number in range(20):
                await anyone.get(f"{PATH}?limit={20 + number}")
            await until(lambda: proxy.cached_files() == before + 20)

    async def test_unnamed_page_is_not_stored_beyond_a_creation(self) -> None:
        async with (
            SlowPage().run() as service,
            nginx(service.url, edit=without_polls) as proxy,
            httpx.AsyncClient(base_url=proxy.url) as anyone,
        ):
            await proxy.caching()
            before = proxy.cached_files()

            # Without Catalog-Unaffected-By, as from an earlier release.
            for path in (f"{PATH}/1", f"{PATH}/2?fields=id", f"{PATH}?limit=9&cursor=.a"):
                for _ in range(3):
                    assert (await anyone.get(path)).status_code == 200
            assert proxy.cached_files() == before

            for _ in range(3):
                assert (await anyone.get(f"{PATH}?cursor=a&sort=name")).status_code == 200
            await until(lambda: proxy.cached_files() == before + 1)

    @pytest.mark.parametrize("edit", [None, without_eras])
    async def test_page_of_older_products_outlives_creations_only(
        self, shop: Shop, edit: Edit | None
    ) -> None:
        paths = [await shop.create_product() for _ in range(4)]
        async with shop.client(token=True) as ada:
            many = b'{"name":"Rug","price":1}\n' * 1000
            ndjson = {"Content-Type": "application/x-ndjson"}
            assert (await ada.post(PATH, content=many, headers=ndjson)).status_code == 200

        def edited(text: str) -> str:
            return without_polls(edit(text) if edit else text)

        async with nginx(shop.service.url, edit=edited) as proxy:
            await proxy.caching()
            through = Shop(shop.service, proxy, shop.token, shop.database)
            async with through.client() as anyone, through.client(token=True) as ada:
                first = f"{PATH}?limit=2"
                # Only the pages behind a thousand products are settled.
                distant = (await anyone.get(f"{PATH}?limit=1000")).json()["next"]
                pages = [
                    (await anyone.get(distant.replace("limit=1000", "limit=1"))).json()["next"],
                    paths[0],
                    paths[1],
                ]
                # Stored at the second request, shortly after its answer.
                for page in pages:
                    async with asyncio.timeout(TIMEOUT_SECONDS):
                        while await through.asked(anyone, page):
                            pass
                for _ in range(3):
                    await through.create_product()
                    assert await through.asked(anyone, first)
                    assert not any([await through.asked(anyone, page) for page in pages])
                imported = await ada.post(PATH, content=many[:50], headers=ndjson)
                assert imported.status_code == 200
                assert not any([await through.asked(anyone, page) for page in pages])

                shown = []
                for price in range(1, 4):
                    await ada.patch(paths[0], json={"price": price})
                    shown.append((await anyone.get(paths[0])).json()["price"])
                await ada.delete(paths[1])
                gone = (await anyone.get(paths[1])).status_code

        assert (shown, gone) == (([0] * 3, 200) if edit else ([1, 2, 3], 404))

    async def test_cached_response_has_headers_of_its_own_request(self, shop: Shop) -> None:
        await shop.proxy.caching()
        async with shop.client() as anyone:
            answers = [await anyone.get(f"{PATH}?limit=1") for _ in range(3)]
            named = await anyone.get(f"{PATH}?limit=1", headers={"X-Request-ID": "mine"})
            plain = {"Accept-Encoding": "identity"}
            direct = await anyone.get(f"{shop.service.url}{PATH}?limit=1", headers=plain)

        ids = [answer.headers.get_list("x-request-id") for answer in answers]
        assert len({each for (each,) in ids}) == 3
        assert named.headers.get_list("x-request-id") == ["mine"]
        # Rate limits count requests at the service, and are not shared with other clients.
        assert "ratelimit" not in named.headers
        theirs = set(direct.headers) - {"ratelimit", "ratelimit-policy", "content-length"}
        assert theirs <= {*named.headers, "connection"}
        assert named.headers["cache-control"] == "no-cache"
        assert len(named.headers.get_list("content-security-policy")) == 1

    @pytest.mark.parametrize("question", ["limit=1", "limit=no"], ids=["page", "error"])
    async def test_security_headers_are_the_services(self, shop: Shop, question: str) -> None:
        await shop.proxy.caching()
        async with shop.client() as anyone:
            direct = await anyone.get(f"{shop.service.url}{PATH}?{question}")
            through = [await anyone.get(f"{PATH}?{question}") for _ in range(3)]
        for name in ("x-content-type-options", "referrer-policy", "content-security-policy"):
            assert [direct.headers[name]] == direct.headers.get_list(name)
            for answer in through:
                assert answer.headers.get_list(name) == [direct.headers[name]], name

    @pytest.mark.parametrize(
        "headers",
        [
            {"Authorization": "Bearer of-nothing"},
            {"Cache-Control": "no-cache"},
            {"Accept": "text/csv"},
            {"Accept": "application/*, */*;q=0.1"},
            {"Accept": "application/json;q=0"},
            {"If-Match": '"x"'},
            {"Range": "bytes=0-3"},
        ],
        ids=lambda headers: "-".join(headers),
    )
    async def test_request_with_special_headers_always_reaches_the_service(
        self, shop: Shop, headers: dict[str, str]
    ) -> None:
        await shop.proxy.caching()
        async with shop.client() as anyone:
            cached = await anyone.get(f"{PATH}?limit=3")
            assert await shop.asked(anyone, f"{PATH}?limit=3", **headers)
            assert (await anyone.get(f"{PATH}?limit=3")).content == cached.content

    async def test_restart_of_nginx_invalidates_older_pages(self, shop: Shop) -> None:
        path = await shop.create_product()
        with own_folder() as folder:
            async with nginx(shop.service.url, folder=folder) as proxy:
                await proxy.caching()
                async with shop.client(proxy.url) as anyone:
                    assert (await anyone.get(path)).json()["price"] == 0
            # A write that bypasses nginx.
            async with shop.client(shop.service.url, token=True) as ada:
                await ada.patch(path, json={"price": 1})
            assert any((folder / "cache").rglob("*"))

            async with nginx(shop.service.url, folder=folder) as proxy:
                await proxy.caching()
                async with shop.client(proxy.url) as anyone:
                    assert (await anyone.get(path)).json()["price"] == 1

    async def test_rollback_of_the_database_is_noticed(self, shop: Shop) -> None:
        path = await shop.create_product()
        await shop.proxy.caching()
        async with shop.client() as anyone:
            position = int((await anyone.get(path)).headers["catalog-position"])
            # closing() closes the connection, the connection itself commits.
            with closing(sqlite3.connect(shop.database)) as backup, backup:
                backup.execute("UPDATE change_counter SET position = position - 1")
                backup.execute("DELETE FROM product_changes WHERE position = ?", [position])
                backup.execute("UPDATE products SET price = 7 WHERE id = ?", path.split("/")[3:])
            async with asyncio.timeout(TIMEOUT_SECONDS):
                while (read := await anyone.get(path)).json()["price"] != 7:
                    await asyncio.sleep(0.01)
        assert int(read.headers["catalog-position"]) == position - 1

    async def test_cache_is_not_served_without_the_service(self, catalog: Catalog) -> None:
        async with catalog.start() as service:
            await service.serving()
            async with (
                nginx(service.url, edit=impatient) as proxy,
                httpx.AsyncClient(base_url=proxy.url) as anyone,
            ):
                await proxy.caching()
                await service.end()

                # Hits continue until the last poll of the service is too old.
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    while (answer := await anyone.get(PATH)).status_code == 200:
                        await asyncio.sleep(0.01)
                assert answer.status_code == 503
                assert answer.json()["code"] == "overloaded"
                assert answer.headers["retry-after"] == "1"

    async def test_writes_through_either_of_two_chained_nginx_show_in_both(
        self, shop: Shop
    ) -> None:
        async with nginx(shop.proxy.url) as outer:
            await outer.caching()
            await shop.proxy.caching()
            path = await shop.create_product(outer.url)
            async with (
                shop.client(outer.url, token=True) as ada,
                shop.client() as anyone,
                shop.client(outer.url) as there,
            ):
                for price in range(1, 50):
                    changed = await ada.patch(path, json={"price": price})
                    assert changed.status_code == 200
                    inner = (await anyone.get(path)).json()["price"]
                    assert (inner, (await there.get(path)).json()["price"]) == (price, price)

    @pytest.mark.parametrize(("edit", "asked"), [(str, 2), (strict, 3)], ids=["shipped", "strict"])
    async def test_overtaken_page_is_served_to_its_waiters_only(
        self, edit: Edit, asked: int
    ) -> None:
        async with (
            SlowPage().run() as service,
            nginx(service.url, edit=lambda text: edit(patient(without_polls(text)))) as proxy,
        ):
            await proxy.caching()
            *readers, writer = [await Connection.open(proxy.url) for _ in range(4)]
            # The first page is not stored; the second one is, and the third reader waits for it.
            await service.is_asked_by(readers[0], asked=1)
            await service.is_asked_by(readers[1], asked=2)
            await service.is_asked_by(readers[2], asked=2)
            # nginx gives no sign that it has the request.
            await asyncio.sleep(0.3)

            changed = await writer.ask("POST", PATH)
            service.delivery.set()

            answers = [await reader.answer() for reader in readers]
            late = await writer.get(SlowPage.PATH)
            for connection in (*readers, writer):
                await connection.close()
        assert changed.headers["catalog-position"] == "6"
        # By contract a page shows the state when it was requested.
        assert [each.headers["catalog-position"] for each in answers[:2]] == ["5", "5"]
        assert late.headers["catalog-position"] == "6"
        assert service.asked == asked + 1

    @pytest.mark.parametrize(("edit", "asked"), [(crowded, 2), (hasty_crowd, 4)])
    async def test_waiters_keep_waiting_for_a_late_page_under_load(
        self, edit: Edit, asked: int
    ) -> None:
        async with (
            SlowPage().run() as service,
            nginx(service.url, edit=lambda text: edit(without_polls(text))) as proxy,
        ):
            await proxy.caching()
            connections = [await Connection.open(proxy.url) for _ in range(4)]
            for number, connection in enumerate(connections):
                await service.is_asked_by(connection, asked=min(number + 1, 2))
            await until(lambda: service.asked == asked)
            if asked == 2:
                # nginx checks a cache lock every 500 ms.
                await asyncio.sleep(0.8)
            service.delivery.set()

            for connection in connections:
                assert (await connection.answer()).status == 200
                await connection.close()
        assert service.asked == asked

    @pytest.mark.parametrize(
        ("edit", "count", "asked"),
        [
            (unhurried, 250, 3),
            (by_connections, 250, 2),
            (by_many_connections, 250, 3),
            (by_many_connections, 750, 2),
        ],
    )
    async def test_idle_connections_do_not_make_requests_wait_for_a_page(
        self, edit: Edit, count: int, asked: int
    ) -> None:
        async with SlowPage().run() as service, nginx(service.url, edit=edit) as proxy:
            await proxy.caching()
            idle = [await Connection.open(proxy.url) for _ in range(count)]
            connections = [await Connection.open(proxy.url) for _ in range(3)]
            for number, connection in enumerate(connections):
                await service.is_asked_by(connection, asked=min(number + 1, 2))
            await until(lambda: service.asked == asked)
            if asked == 2:
                # nginx gives no sign that a request waits.
                await asyncio.sleep(0.5)
            assert service.asked == asked
            service.delivery.set()

            for connection in connections:
                assert (await connection.answer()).status == 200
            for connection in (*connections, *idle):
                await connection.close()
