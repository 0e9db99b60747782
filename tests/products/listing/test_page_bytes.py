"""Byte limit of pages, besides the limit on the number of products."""

from itertools import pairwise
from typing import Any

import orjson
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.database import Database
from catalog.products.listing import page_reader
from catalog.products.models import NewProduct
from catalog.products.queries import PAGE_BYTES
from catalog.products.selection import Selection
from catalog.products.service import insert_products
from tests.db.support import on_servers, run_on
from tests.products.listing.lists import LIST, SORTS
from tests.support import Caller, at_once
from tests.watchdog import Watchdog

PRODUCTS = 130
# One byte, four bytes, and a character that JSON escapes to six bytes.
LETTERS = ("x", "\N{ELECTRIC LIGHT BULB}", "\x01")


@pytest.fixture
async def ids(ada: Caller, database: Database) -> list[int]:
    """Insert products of all lengths up to the longest; return their ids."""
    new_products = [
        NewProduct(
            f"Lamp {number % 40}",
            LETTERS[number % 3] * (16_383 if number % 5 else number),
            number % 7,
            ada.user_id or 0,
        )
        for number in range(PRODUCTS)
    ]
    return (await database.transaction(insert_products, new_products)).ids


async def walk(caller: Caller, url: str) -> list[dict[str, Any]]:
    """Return all pages from a URL on."""
    pages = []
    next_url: str | None = url
    while next_url:
        answer = await caller.get(next_url)
        assert answer.status_code == 200, answer.json
        pages.append(answer.json)
        next_url = answer.json["next"]
    return pages


def size_of(page: dict[str, Any]) -> int:
    return len(orjson.dumps(page["products"]))


class TestManyPages:
    @on_servers
    @pytest.mark.parametrize("fields", ["", "&fields=id"])
    async def test_pages_read_together_do_not_block_the_event_loop(
        self, ada: Caller, database: Database, fields: str
    ) -> None:
        new_products = [
            NewProduct(f"Lamp {number}", "\x01" * 16_383, 1.0, ada.user_id or 0)
            for number in range(70)
        ]
        await database.transaction(insert_products, new_products)
        path = f"{LIST}?limit=100&sort=id{fields}"
        await ada.get(path)

        with Watchdog():
            answers = await at_once(20, lambda number: ada.get(f"{path}&max_price={number + 1}"))

        assert {answer.status_code for answer in answers} == {200}


class TestPage:
    @pytest.mark.parametrize("path", [LIST, f"{LIST}/my"])
    async def test_walk_shows_long_products_once_each(
        self, ada: Caller, ids: list[int], path: str
    ) -> None:
        orders = [f"sort={sort}" for sort in SORTS]
        for query in (*orders, "q=lamp", "q=lamp&sort=name"):
            for limit in (100, 1000):
                await self._check_walk(ada, ids, f"{path}?{query}&limit={limit}", limit)

    async def _check_walk(self, ada: Caller, ids: list[int], url: str, limit: int) -> None:
        pages = await walk(ada, f"{url}&total=true")

        seen = [product["id"] for page in pages for product in page["products"]]
        assert sorted(seen) == ids
        assert {page["total"] for page in pages} == {PRODUCTS}
        assert all(0 < size_of(page) <= PAGE_BYTES + 2 for page in pages)
        # Every page but the last is full: the next product would not fit.
        for page, following in pairwise(pages):
            extended = [*page["products"], following["products"][0]]
            assert len(extended) > limit or len(orjson.dumps(extended)) > PAGE_BYTES

    async def test_page_ends_do_not_depend_on_the_fields_shown(
        self, anyone: Caller, ids: list[int]
    ) -> None:
        whole = await walk(anyone, f"{LIST}?limit=1000")
        narrow = await walk(anyone, f"{LIST}?limit=1000&fields=id")

        assert len(whole) > 3
        assert [[each["id"] for each in page["products"]] for page in whole] == [
            [each["id"] for each in page["products"]] for page in narrow
        ]
        assert sum(len(page["products"]) for page in narrow) == len(ids)

    async def test_database_sends_little_more_than_a_page(
        self, database: Database, ids: list[int]
    ) -> None:
        async def read(connection: AsyncConnection) -> Any:
            return await page_reader.read_rows(
                connection, selection=Selection(), after=None, limit=1001
            )

        rows = await run_on(database.connection(), read)

        sizes = [len(row[1].encode()) + len((row[2] or "").encode()) for row in rows]
        assert len(rows) < len(ids)
        assert sum(sizes[:-1]) <= PAGE_BYTES < sum(sizes)


class TestChanges:
    async def test_changes_show_long_products_once_each(
        self, anyone: Caller, ids: list[int]
    ) -> None:
        since, more, seen, answers = 0, True, [], 0
        while more:
            answer = await anyone.get(f"{LIST}/changes?since={since}&limit=1000")
            assert len(answer.body) <= PAGE_BYTES + 200
            since, more = answer.json["position"], answer.json["more"]
            seen += [change["id"] for change in answer.json["changes"]]
            answers += 1

        assert seen == ids
        assert answers > 3
