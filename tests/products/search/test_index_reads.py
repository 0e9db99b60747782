"""Reads of the full-text index that miss rows.

InnoDB misses rows for some microseconds, at a moment that no test can choose. A row that is not
committed yet, or has other words for a moment, takes their place.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.db.database import Database
from catalog.products import queries
from catalog.products.models import NewProduct, ProductWords
from catalog.products.search import index_reads, planner
from catalog.products.search.tokenizer import own_token, terms_of, text_of, tokens_of
from catalog.products.selection import Selection
from catalog.products.service import insert_products
from tests.db.support import on_servers, run_on
from tests.support import Caller

NAMES = ("Oak lamp", "Brass lamp", "Zinc lamp")
SELECTION = Selection(sort="price", terms=terms_of("lamp"))
LONGER_THAN_INDEXED = "7" * 90

Search = Callable[[], Awaitable[int]]


class Products:
    """Products that a search for ``lamp`` finds."""

    def __init__(self, database: Database, owner_id: int) -> None:
        self._database = database
        self._owner_id = owner_id
        self.ids: list[int] = []

    async def create(self, *names: str) -> None:
        new_products = [NewProduct(name, None, 1.0, self._owner_id) for name in names]
        self.ids += (await self._database.transaction(insert_products, new_products)).ids

    async def rewrite(self, words: str, *, more: str = "") -> None:
        """Replace the words of the last product."""
        product_id = self.ids[-1]
        tokens = tokens_of(text_of(words, None), product_id)
        tokens = f"{tokens} {own_token(product_id, 1)}{more}"

        async def store(session: AsyncSession) -> None:
            rows = update(ProductWords).where(ProductWords.product_id == product_id)
            await session.execute(rows.values(words=tokens))

        await self._database.transaction(store)


@pytest.fixture
async def products(ada: Caller, database: Database) -> Products:
    assert ada.user_id
    products = Products(database, ada.user_id)
    await products.create(*NAMES)
    return products


@pytest.fixture(params=["page", "total"])
def search(
    request: pytest.FixtureRequest, database: Database, monkeypatch: pytest.MonkeyPatch
) -> Search:
    """Return a function that searches in the index, and returns how many products it found."""
    for name in ("_LOOKED_UP", "_FOUND_BY_KEY", "_BUCKET", "NEAR"):
        monkeypatch.setattr(planner, name, 0)

    async def count() -> int:
        if request.param == "total":
            return await run_on(database.connection(), planner.count, SELECTION)
        rows = await run_on(
            database.connection(),
            planner.find,
            SELECTION,
            after=None,
            limit=10,
            max_bytes=queries.PAGE_BYTES,
        )
        return len(rows)

    return count


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the numbers of rows of all reads of a search."""
    counts: list[int] = []
    read = index_reads.rows_of

    async def rows_of(*arguments: Any) -> Sequence[Any]:
        rows = await read(*arguments)
        counts.append(len(rows))
        return rows

    monkeypatch.setattr(index_reads, "rows_of", rows_of)
    return counts


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Awaitable[None]]]:
    """Return functions that are run after the first read, the second one, and so on."""
    actions: list[Callable[[], Awaitable[None]]] = []
    are_found = index_reads.are_found

    async def after_action(connection: AsyncConnection, tokens: set[str]) -> bool:
        if actions:
            await actions.pop(0)()
        return await are_found(connection, tokens)

    monkeypatch.setattr(index_reads, "are_found", after_action)
    return actions


@on_servers
class TestReads:
    async def test_product_that_the_first_read_missed_is_found(
        self, products: Products, search: Search, between: list[Any]
    ) -> None:
        await products.rewrite("Zinc")
        between.append(lambda: products.rewrite("Zinc lamp"))

        assert await search() == len(NAMES)

    async def test_single_read_misses_that_product(
        self,
        products: Products,
        search: Search,
        between: list[Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Control: without the second read, as before, the product is missed."""
        await products.rewrite("Zinc")
        between.append(lambda: products.rewrite("Zinc lamp"))
        monkeypatch.setattr(index_reads, "_QUIET", timedelta(-1))

        assert await search() == len(NAMES) - 1

    async def test_product_that_the_second_read_missed_is_found(
        self, products: Products, search: Search, between: list[Any]
    ) -> None:
        between.append(lambda: products.rewrite("Zinc"))
        between.append(lambda: products.rewrite("Zinc lamp"))

        assert await search() == len(NAMES)

    async def test_second_read_waits_until_the_newest_products_are_found(
        self, products: Products, search: Search, between: list[Any], reads: list[int]
    ) -> None:
        await products.rewrite("Zinc", more=LONGER_THAN_INDEXED)
        at_check: list[int] = []

        async def look() -> None:
            at_check.append(len(reads))

        async def mend() -> None:
            await look()
            await products.rewrite("Zinc lamp")

        between += [look, look, mend]

        assert await search() == len(NAMES)
        assert at_check == [1, 1, 1]
        assert len(reads) == 2

    async def test_search_ends_although_a_product_is_never_found(
        self, products: Products, search: Search
    ) -> None:
        await products.rewrite("Zinc lamp", more=LONGER_THAN_INDEXED)

        assert await search() == len(NAMES)

    @pytest.mark.usefixtures("products")
    async def test_rows_without_a_token_of_their_own_are_read_twice(
        self, search: Search, reads: list[int], database: Database
    ) -> None:
        """A release without these tokens has written them."""

        async def strip(session: AsyncSession) -> None:
            await session.execute(update(ProductWords).values(words=" 00_lamp"))

        await database.transaction(strip)

        assert await search() == len(NAMES)
        assert len(reads) == 2

    async def test_index_is_read_once_if_nothing_was_written_lately(
        self,
        products: Products,
        search: Search,
        reads: list[int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        assert products.ids

        await search()
        after_a_write = len(reads)
        monkeypatch.setattr(index_reads, "_QUIET", timedelta(-1))
        await search()

        assert (after_a_write, len(reads) - after_a_write) == (2, 1)
