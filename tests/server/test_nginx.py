"""nginx with the shipped configuration, from the clients' point of view."""

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.server.nginx import (
    Edit,
    Nginx,
    impatient,
    needs_cache,
    needs_nginx,
    nginx,
    own_folder,
    without_eras,
    without_polls,
)
from tests.server.service import TIMEOUT_SECONDS, Catalog, Connection, Service, until

INCREMENTS = 100
CLIENTS = 10
PATH = "/api/products"
# Long enough to be compressed.
TEXT = "A lamp that is described at some length. " * 50

pytestmark = needs_nginx


class Shop:
    """The service, nginx in front of it, and an account that creates products."""

    def __init__(self, service: Service, proxy: Nginx, token: str, database: Path) -> None:
        self.database = database
        self.service = service
        self.proxy = proxy
        self.token = token

    def client(self, url: str | None = None, *, token: bool = False) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.token}"} if token else {}
        return httpx.AsyncClient(base_url=url or self.proxy.url, headers=headers, timeout=30)

    async def create_product(self, url: str | None = None, **fields: object) -> str:
        """Create a product, by default through nginx, and return its path."""
        async with self.client(url, token=True) as ada:
            created = await ada.post(PATH, json={"name": "Lamp", "price": 0, **fields})
            assert created.status_code == 201, created.text
            return str(created.headers["location"])

    async def asked(self, client: httpx.AsyncClient, path: str, **headers: str) -> bool:
        """Tell whether a read reached the service."""
        request_id = uuid4().hex
        answer = await client.get(path, headers={"X-Request-ID": request_id, **headers})
        assert answer.status_code < 500, answer.text
        return await self.proxy.source_of(request_id) != "HIT"


class SlowPage:
    """A stub of the service that delays one page, and reads no bodies.

    Args:
        takes_writes: whether it answers writes, or closes the connection.

    Attributes:
        asked: the number of requests for the page.
        delivery: an event that releases the page.
    """

    PATH = f"{PATH}?limit=7"

    def __init__(self, *, takes_writes: bool = True) -> None:
        self.url = ""
        self.asked = 0
        self._takes_writes = takes_writes
        self.delivery = asyncio.Event()
        self._position = 5

    @asynccontextmanager
    async def run(self) -> AsyncIterator["SlowPage"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self

    async def is_asked_by(self, connection: Connection, *, asked: int) -> None:
        """Request the page through nginx, and wait until it was requested here so many times."""
        await connection.send(f"GET {self.PATH} HTTP/1.1\r\nHost: catalog\r\n\r\n".encode())
        await until(lambda: self.asked >= asked)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"POST"):
                    if not self._takes_writes:
                        break
                    self._position += 1
                position = self._position
                if head.startswith(f"GET {self.PATH} ".encode()):
                    self.asked += 1
                    await self.delivery.wait()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
                    b"Catalog-Position: %d\r\n\r\n" % position
                )
                # A poll of the position has no body.
                writer.write(b"" if head.startswith(b"HEAD") else b"{}")
        writer.close()


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


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    catalog = Catalog(tmp_path_factory.mktemp("shop"))
    async with catalog.start("--workers=2", CATALOG_READ_LIMIT="1000000/day") as service:
        await service.serving()
        async with nginx(service.url) as proxy:
            yield Shop(service, proxy, await service.sign_up(), catalog.folder / "catalog.db")


class TestProxy:
    async def test_increments_are_not_lost(self, shop: Shop) -> None:
        refused = 0
        path = await shop.create_product(description=TEXT)

        async with shop.client(token=True) as ada, shop.client() as anyone:

            async def increment() -> None:
                nonlocal refused
                done = 0
                while done < INCREMENTS // CLIENTS:
                    current = await anyone.get(path)
                    # A compressed page has a weak tag.
                    assert current.headers["content-encoding"] == "gzip"
                    assert current.headers["etag"].startswith('W/"')
                    condition = {"If-Match": current.headers["etag"]}
                    price = current.json()["price"] + 1
                    answer = await ada.patch(path, json={"price": price}, headers=condition)
                    if answer.status_code == 200:
                        done += 1
                    else:
                        assert answer.status_code == 412, answer.text
                        refused += 1

            await asyncio.gather(*(increment() for _ in range(CLIENTS)))

            read = await anyone.get(path)
            for each in (read, await anyone.get(PATH), await ada.get(PATH)):
                known = {"If-None-Match": each.headers["etag"]}
                sender = ada if each.request.headers.get("authorization") else anyone
                assert (await sender.get(each.url, headers=known)).status_code == 304

        assert (read.json()["price"], read.json()["version"]) == (INCREMENTS, INCREMENTS + 1)
        assert refused > 0

    async def test_metrics_are_not_reachable(self, shop: Shop) -> None:
        for path in ("/metrics", "/metrics/", "//metrics", "/%6detrics", "/livez/../metrics"):
            connection = await Connection.open(shop.proxy.url)
            answer = await connection.get(path)
            await connection.close()

            assert answer.status == 404
            assert answer.headers["content-type"] == "application/problem+json"
            problem = json.loads(answer.body)
            assert problem["code"] == "not-found"
            assert problem["request_id"] == answer.headers["x-request-id"]

    @pytest.mark.parametrize("path", ["//api/products", "/%2fapi/products"])
    async def test_slashes_before_the_path_are_one_straight_and_through_nginx(
        self, shop: Shop, path: str
    ) -> None:
        lines = b'{"name":"Lamp","price":1}\n' * 20_000
        head = (
            f"POST {path}?dry_run=true HTTP/1.1\r\nHost: catalog\r\n"
            f"Content-Type: application/x-ndjson\r\nAuthorization: Bearer {shop.token}\r\n"
            f"Content-Length: {len(lines)}\r\n\r\n"
        )
        for url in (shop.service.url, shop.proxy.url):
            connection = await Connection.open(url)

            await connection.send(head.encode() + lines)
            imported = await connection.answer()
            missing = await connection.get("//api/nothing", "Accept: text/html")
            await connection.close()

            assert (imported.status, json.loads(imported.body)["created"]) == (200, 20_000)
            assert missing.headers["content-type"] == "application/problem+json"

    async def test_json_body_is_bounded_and_import_is_not(self, shop: Shop) -> None:
        line = json.dumps({"name": "Lamp", "price": 1, "description": TEXT}).encode() + b"\n"
        ndjson = {"Content-Type": "application/x-ndjson"}

        async with shop.client(token=True) as ada:
            long = await ada.post(
                PATH, json={"name": "Lamp", "price": 1, "description": "x" * 300000}
            )
            bulk = await ada.post(f"{PATH}?dry_run=true", content=line * 500, headers=ndjson)

        assert long.status_code == 413
        assert long.json()["code"] == "body-too-large"
        assert bulk.status_code == 200, bulk.text
        assert bulk.json()["created"] == 500

    async def test_events_are_not_buffered(self, shop: Shop) -> None:
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "gzip"}
        async with shop.client() as anyone:
            since = (await anyone.get(PATH)).headers["catalog-position"]
            events = anyone.stream("GET", f"{PATH}/changes?since={since}", headers=headers)
            async with events as stream, asyncio.timeout(TIMEOUT_SECONDS):
                lines = stream.aiter_lines()
                assert await anext(lines) == ":"

                path = await shop.create_product()

                event = [await anext(lines) for _ in range(4)]
                assert event[1] == "retry: 1000"
                assert event[2].startswith("id: ")
                assert f'"id":{path.rpartition("/")[2]}' in event[3]

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
            (b"GET / HTTP/3.7\r\nHost: catalog\r\n\r\n", 505),
            (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: catalog\r\n\r\n", 414),
            (b"get / HTTP/1.1\r\nHost: catalog\r\n\r\n", 400),
            (b"OPTIONS * HTTP/1.1\r\nHost: catalog\r\n\r\n", 400),
            (b"GET /%00 HTTP/1.1\r\nHost: catalog\r\n\r\n", 400),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        ],
    )
    async def test_unreadable_request_line_is_refused_as_a_problem(
        self, shop: Shop, data: bytes, status: int
    ) -> None:
        connection = await Connection.open(shop.proxy.url)

        await connection.send(data)
        answer = await connection.answer()
        await connection.close()

        assert answer.status == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert json.loads(answer.body)["status"] == status

    async def test_smuggled_requests_are_refused(self, shop: Shop) -> None:
        inner = b"GET /metrics HTTP/1.1\r\nHost: catalog\r\n\r\n"
        lengths = b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"
        for fields in (lengths, b"Content-Length: 0\r\n" + b"Content-Length: 5\r\n"):
            connection = await Connection.open(shop.proxy.url)
            await connection.send(
                b"POST /livez HTTP/1.1\r\nHost: catalog\r\n" + fields + b"\r\n0\r\n\r\n" + inner
            )
            answer = await connection.answer()
            assert (answer.status, answer.closes) == (400, True)
            assert await connection.reader.read() == b""
            await connection.close()


@needs_cache
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


class SlowImport:
    """An import through nginx, sent in parts."""

    PATH = f"{PATH}?limit=1"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    async def begin(cls, url: str, token: str) -> "SlowImport":
        connection = await Connection.open(url)
        await connection.send(
            b"POST /api/products HTTP/1.1\r\nHost: catalog\r\nAuthorization: Bearer %b\r\n"
            b"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
            % token.encode()
        )
        return cls(connection)

    async def send(self, lines: int) -> None:
        data = b'{"name":"Lamp","price":1}\n' * lines
        await self._connection.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def answer(self) -> tuple[int, int]:
        """Return the status, and the number of created products in the response."""
        answer = await self._connection.answer()
        await self._connection.close()
        return answer.status, json.loads(answer.body)["created"]


@needs_cache
class TestPartialWrites:
    """nginx learns of a write from its response, whatever its status; polling is disabled here."""

    @asynccontextmanager
    async def _shop(self, catalog: Catalog) -> AsyncIterator[Shop]:
        async with catalog.start(CATALOG_READ_LIMIT="1000000/day") as service:
            await service.serving()
            async with nginx(service.url, edit=without_polls) as proxy:
                token = await service.sign_up()
                yield Shop(service, proxy, token, catalog.folder / "catalog.db")

    async def _products(self, shop: Shop) -> list[object]:
        async with shop.client() as anyone:
            found: list[object] = (await anyone.get(SlowImport.PATH)).json()["products"]
        return found

    async def test_stalled_import_shows_its_created_products(self, catalog: Catalog) -> None:
        catalog.definitions["catalog.http.middleware.request_body"] = "BODY_SECONDS = 1"
        async with self._shop(catalog) as shop:
            await shop.proxy.caching()
            assert await self._products(shop) == []
            lines = await SlowImport.begin(shop.proxy.url, shop.token)
            await lines.send(3000)

            status, created = await lines.answer()

            assert (status, created >= 2000) == (408, True)
            assert len(await self._products(shop)) == 1

    async def test_import_of_a_disabled_account_shows_its_created_products(
        self, catalog: Catalog
    ) -> None:
        async with self._shop(catalog) as shop:
            await shop.proxy.caching()
            assert await self._products(shop) == []
            lines = await SlowImport.begin(shop.proxy.url, shop.token)
            # More lines than are buffered to fill a chunk.
            await lines.send(6000)
            async with asyncio.timeout(TIMEOUT_SECONDS):
                while not self._count(shop.database):
                    await asyncio.sleep(0.01)
            with closing(sqlite3.connect(shop.database, timeout=30)) as database, database:
                database.execute("UPDATE users SET disabled = 1")
            await lines.send(6000)

            status, created = await lines.answer()

            assert (status, created >= 2000) == (401, True)
            assert len(await self._products(shop)) == 1

    def _count(self, database: Path) -> int:
        with closing(sqlite3.connect(database)) as connection:
            (count,) = connection.execute("SELECT COUNT(*) FROM products").fetchone()
        return int(count)

    @pytest.mark.parametrize(("method", "status", "asked"), [("POST", 503, 1), ("GET", 200, 0)])
    async def test_write_without_a_response_begins_a_new_generation(
        self, method: str, status: int, asked: int
    ) -> None:
        async with (
            SlowPage(takes_writes=False).run() as service,
            nginx(
                f"{service.url} max_fails=0", edit=lambda text: without_polls(impatient(text))
            ) as proxy,
        ):
            service.delivery.set()
            connection = await Connection.open(proxy.url)
            # The first response carries the position.
            for _ in range(3):
                await connection.get(SlowPage.PATH)
            before = service.asked

            other = await connection.ask(method, PATH)
            await connection.get(SlowPage.PATH)
            await connection.close()

        assert other.status == status
        assert service.asked == before + asked
