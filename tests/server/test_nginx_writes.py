"""Writes through nginx that end early: its cache serves no page from before them."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from tests.server.nginx import impatient, needs_cache, needs_nginx, nginx, without_polls
from tests.server.service import TIMEOUT_SECONDS, Catalog, Connection
from tests.server.shop import PATH, Shop
from tests.server.slow_page import SlowPage

pytestmark = [needs_nginx, needs_cache]


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
