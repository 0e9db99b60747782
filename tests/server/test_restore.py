"""Restore of a backup under the running service: nothing of the lost history is served."""

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import URL, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth.models import User
from catalog.db.database import Database
from catalog.products import service as rules
from catalog.products.models import NewProduct
from tests.db.support import run_on
from tests.engines import Engine, connected, migrate, settings_for
from tests.numbers import Numbers
from tests.server.nginx import Nginx, needs_cache, nginx
from tests.server.service import Catalog, Connection, Service
from tests.support import until

PATH = "/api/products"
PAGE = f"{PATH}?fields=name"
OLDEST = f"{PATH}?fields=name&sort=id&limit=3"
"""A page that stays cached while products are created."""
FRESH = "Cache-Control: no-cache"

KEPT = ["Kept 1", "Kept 2"]
LOST = ["Lost 1", "Lost 2", "Lost 3"]
OTHER = ["Other 1", "Other 2", "Other 3"]

HOW_TO = (Path(__file__).parents[2] / "docs/deployment/backup.md").read_text(encoding="utf-8")

CONNECTIONS = 12
"""Enough for each of two workers to answer some."""

AROUND_SECONDS = 0.25
"""The bound, by contract, after which a write that bypassed nginx is visible through it."""


@dataclass
class Shop:
    """The service with two workers, and a second database to restore from.

    Attributes:
        backup: a copy of the service's database with ``KEPT``.
    """

    engine: Engine
    url: URL
    backup: URL
    service: Service
    token: str

    async def create(self, names: list[str]) -> str:
        """Create products by the API, one commit each; return the last change."""
        change = ""
        connection = await Connection.open(self.service.url)
        for name in names:
            lamp = {"name": name, "price": 1}
            answer = await connection.ask("POST", PATH, token=self.token, body=lamp)
            assert answer.status == 201, answer.body
            change = answer.headers.get("catalog-change", answer.headers["catalog-position"])
        await connection.close()
        return change

    async def create_in_backup(self, names: list[str]) -> None:
        """Create products in the backup, one commit each."""
        database = Database(settings_for(self.backup))

        async def owner_of(connection: AsyncConnection) -> int:
            return (await connection.scalars(select(User.id).where(User.username == "ada"))).one()

        async def create(session: AsyncSession, new_product: NewProduct) -> None:
            await rules.insert_products(session, [new_product])

        try:
            owner_id = await run_on(database.connection(), owner_of)
            for name in names:
                await database.transaction(create, NewProduct(name, None, 1.0, owner_id))
        finally:
            await database.close()

    async def back_up(self) -> None:
        """Copy the service's database into the backup."""
        if self.engine.name == "sqlite":
            copy_file(self.url, self.backup)
            return
        await migrate(self.backup)
        async with connected(self.backup) as cursor:
            await cursor.execute("SET foreign_key_checks = 0")
            for table in await tables_of(self.backup):
                await cursor.execute(f"DELETE FROM {table}")  # noqa: S608 (a name from the schema)
                rows = f"SELECT * FROM {self.url.database}.{table}"  # noqa: S608 (the same)
                await cursor.execute(f"INSERT INTO {table} {rows}")

    async def restore(self) -> None:
        """Replace the service's database by the backup, as in docs/deployment/backup.md."""
        if self.engine.name == "sqlite":
            copy_file(self.backup, self.url)
            return
        aside = await self.engine.create_database(Path())
        names = {"": self.url, "_restored": self.backup, "_lost": aside}
        async with connected(self.url) as cursor:
            for statement in swap(lambda suffix: str(names[suffix].database)):
                await cursor.execute(statement)
            (renaming,) = await cursor.fetchone()
            await cursor.execute(renaming)
        await self.engine.drop_database(aside)


def swap(name: Callable[[str], str]) -> list[str]:
    """Return the page's statements that write the one that swaps all tables.

    Args:
        name: of the database that the page calls "catalog" with the suffix.
    """
    (page,) = re.findall(r'^mysql -N -e "([^"]*)" \| mysql$', HOW_TO, re.MULTILINE)
    named = re.sub(r"\bcatalog(_restored|_lost|)\b", lambda found: name(found[1]), page)
    return named.split(";")


def copy_file(source: URL, target: URL) -> None:
    """Copy a SQLite database in one transaction of the target."""
    with (
        closing(sqlite3.connect(str(source.database))) as origin,
        closing(sqlite3.connect(str(target.database), timeout=30)) as copy,
    ):
        origin.backup(copy)


async def tables_of(url: URL) -> list[str]:
    async with connected(url) as cursor:
        await cursor.execute("SHOW TABLES")
        return [name for (name,) in await cursor.fetchall()]


@pytest.fixture
async def shop(engine: Engine, tmp_path: Path) -> AsyncIterator[Shop]:
    async with AsyncExitStack() as stack:
        urls = []
        for name in ("live", "backup"):
            (tmp_path / name).mkdir()
            urls.append(await engine.create_database(tmp_path / name))
            stack.push_async_callback(engine.drop_database, urls[-1])
        service = await stack.enter_async_context(
            Catalog(tmp_path).start(
                "--workers=2", DATABASE_URL=urls[0].render_as_string(hide_password=False)
            )
        )
        await service.serving()
        shop = Shop(engine, urls[0], urls[1], service, await service.sign_up())
        await shop.create(KEPT)
        await shop.back_up()
        yield shop


async def restored_to_less(shop: Shop) -> None:
    """Restore, and let the service reach the same position again."""
    await shop.restore()
    await shop.create(OTHER)


async def restored_to_the_same(shop: Shop) -> None:
    """Restore a backup at the same position, so that the position is never seen to go down."""
    await shop.create_in_backup(OTHER)
    await shop.restore()


def names_in(body: bytes) -> list[str]:
    return sorted(product["name"] for product in json.loads(body)["products"])


async def pages(url: str, *fields: str, path: str = PAGE) -> list[list[str]]:
    """Return the names on a page that each of several connections gets."""
    found = []
    connections = [await Connection.open(url) for _ in range(CONNECTIONS)]
    for connection in connections:
        answer = await connection.get(path, *fields)
        assert answer.status == 200, answer.body
        found.append(names_in(answer.body))
    for connection in connections:
        await connection.close()
    return found


@asynccontextmanager
async def events(url: str, since: str) -> AsyncIterator[Callable[[], "asyncio.Future[bytes]"]]:
    """Open an event stream; yield a function that reads it to its end."""
    connection = await Connection.open(url)
    head = f"GET {PATH}/changes HTTP/1.1\r\nHost: catalog\r\nAccept: text/event-stream\r\n"
    await connection.send(f"{head}Last-Event-ID: {since}\r\n\r\n".encode())
    begin = await connection.reader.readuntil(b"\r\n\r\n")
    assert begin.startswith(b"HTTP/1.1 200"), begin
    yield lambda: asyncio.ensure_future(connection.reader.readuntil(b"event: end"))
    await connection.close()


async def counts_followers(service: Service, count: int) -> bool:
    """Tell whether all workers together have that many followers of the changes."""
    numbers = Numbers((await service.get("/metrics")).body.decode())
    return numbers.total("change_subscribers") == count


class TestRestore:
    @pytest.mark.parametrize("restored", [restored_to_less, restored_to_the_same])
    async def test_pages_show_the_new_history(
        self, shop: Shop, restored: Callable[[Shop], Awaitable[None]]
    ) -> None:
        before = await shop.create(LOST)
        for fields in ((), (FRESH,)):
            assert await pages(shop.service.url, *fields) == [KEPT + LOST] * CONNECTIONS

        await restored(shop)

        for fields in ((), (FRESH,)):
            assert await pages(shop.service.url, *fields) == [KEPT + OTHER] * CONNECTIONS
        after = (await shop.service.get(PATH)).headers["catalog-change"]
        assert after != before
        assert after.partition(".")[0] == before.partition(".")[0] == "5"

    @pytest.mark.parametrize("restored", [restored_to_less, restored_to_the_same])
    async def test_pages_that_outlive_creates_show_the_new_history(
        self, shop: Shop, restored: Callable[[Shop], Awaitable[None]]
    ) -> None:
        for name in LOST:
            await shop.create([name])
            await pages(shop.service.url, path=OLDEST)
        lost = await pages(shop.service.url, path=OLDEST)
        assert lost == [[*KEPT, LOST[0]]] * CONNECTIONS

        await restored(shop)

        assert await pages(shop.service.url, path=OLDEST) == [[*KEPT, OTHER[0]]] * CONNECTIONS

    async def test_followers_of_the_lost_history_start_over(self, shop: Shop) -> None:
        before = await shop.create(LOST)
        async with AsyncExitStack() as stack:
            ends = [
                await stack.enter_async_context(events(shop.service.url, since))
                for since in (before, "5")
                for _ in range(CONNECTIONS // 2)
            ]
            waiting = asyncio.create_task(
                shop.service.get(f"{PATH}/changes?since={before}&wait=25")
            )
            stack.callback(waiting.cancel)
            await until(partial(counts_followers, shop.service, CONNECTIONS + 1))
            # Twenty polls of the log: the first one gives the token of the last change to followers
            # that began at a bare position. No metric shows that they have it.
            await asyncio.sleep(2)

            await restored_to_the_same(shop)

            async with asyncio.timeout(60):
                streams = await asyncio.gather(*(end() for end in ends))
                polled = await waiting
        assert not any(b"Other" in stream for stream in streams)
        assert polled.status == 410
        for since in (before, f"4{before[1:]}", f"1{before[1:]}"):
            answer = await shop.service.get(f"{PATH}/changes?since={since}")
            assert answer.status == 410, since
            assert json.loads(answer.body)["code"] == "changes-gone"
        whole = json.loads((await shop.service.get(f"{PATH}/changes?since=0")).body)
        assert [each["product"]["name"] for each in whole["changes"]] == KEPT + OTHER
        now = await shop.service.get(f"{PATH}/changes?since={whole['change']}")
        assert (now.status, json.loads(now.body)["changes"]) == (200, [])

    @needs_cache
    async def test_nginx_shows_the_new_history(self, shop: Shop) -> None:
        before = await shop.create(LOST)
        async with nginx(shop.service.url) as proxy:
            await cached(proxy)
            for fields in ((), (FRESH,)):
                assert await pages(proxy.url, *fields) == [KEPT + LOST] * CONNECTIONS

            await restored_to_the_same(shop)

            assert await pages(proxy.url, FRESH) == [KEPT + OTHER] * CONNECTIONS
            await asyncio.sleep(AROUND_SECONDS)
            assert await pages(proxy.url) == [KEPT + OTHER] * CONNECTIONS
            await cached(proxy)
            assert await pages(proxy.url) == [KEPT + OTHER] * CONNECTIONS
            answer = await _get(proxy.url, f"{PATH}/changes?since={before}")
            assert answer == 410


async def cached(proxy: Nginx) -> None:
    """Wait until nginx has cached the page."""
    connection = await Connection.open(proxy.url)
    hits = proxy.answers()["HIT"]
    async with asyncio.timeout(60):
        while proxy.answers()["HIT"] == hits:
            await connection.get(PAGE)
    await connection.close()


async def _get(url: str, path: str) -> int:
    connection = await Connection.open(url)
    answer = await connection.get(path)
    await connection.close()
    return answer.status
