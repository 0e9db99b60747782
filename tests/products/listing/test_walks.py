"""Walks over all pages during writes, and the query plans of deep pages.

``CATALOG_TEST_PRODUCTS`` sets the number of products that are walked through.
"""

import asyncio
import os
from collections import Counter
from itertools import count
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.database import Database
from catalog.products import queries
from catalog.products.models import NewProduct
from catalog.products.schemas import Sort
from catalog.products.selection import Selection
from catalog.products.service import insert_products
from tests.db.support import run_on
from tests.products.listing.lists import LIST, SORTS
from tests.support import Caller

PRODUCTS = int(os.environ.get("CATALOG_TEST_PRODUCTS", "600"))
WRITERS = 4
DEEP: dict[str, Any] = {"id": 500, "name": "M", "price": 50.0, "created_at": "2026-01-01T00:00:00Z"}


class TestWalk:
    @pytest.mark.parametrize("sort", SORTS)
    async def test_lasting_products_are_seen_exactly_once_during_writes(
        self, ada: Caller, anyone: Caller, database: Database, sort: str
    ) -> None:
        # Names and prices repeat, so that the id breaks ties.
        new_products = [
            NewProduct(f"Product {number % 50}", None, number % 7, ada.user_id or 0)
            for number in range(PRODUCTS)
        ]
        ids = (await database.transaction(insert_products, new_products)).ids
        doomed = set(ids[:: len(ids) // 60])
        staying = set(ids) - doomed
        is_over = False

        async def write(number: int) -> None:
            """Insert and delete products, and change lasting ones without moving them."""
            mine = sorted(doomed)[number::WRITERS]
            others = sorted(staying)[number::WRITERS]
            for turn in count():
                if is_over:
                    return
                new = (await ada.create_product(f"Product {turn % 50}", price=turn % 7)).json["id"]
                path = f"{LIST}/{others[turn * 7 % len(others)]}"
                await ada.send("PATCH", path, json={"description": f"Change {turn}"})
                await ada.delete(mine.pop() if mine else new)

        writers = [asyncio.create_task(write(number)) for number in range(WRITERS)]
        seen: Counter[int] = Counter()
        pages = 0
        url = f"{LIST}?sort={sort}&limit={max(20, PRODUCTS // 30)}"
        while url:
            answer = await anyone.get(url)
            if answer.status_code == 503:
                # The machine's disk may be busy: retry, as clients do.
                continue
            page = answer.json
            seen.update(product["id"] for product in page["products"])
            url, pages = page["next"], pages + 1
        is_over = True
        await asyncio.gather(*writers)

        assert pages >= 30
        assert staying <= seen.keys()
        assert {seen[product_id] for product_id in seen} == {1}


class TestPlans:
    """Query plans: every sort is read from an index, entered at the page's position."""

    @pytest.mark.parametrize("sort", SORTS)
    async def test_page_is_read_from_an_index(
        self, ada: Caller, database: Database, sort: Sort
    ) -> None:
        new_products = [
            NewProduct(f"{chr(65 + number % 26)} {number}", None, number % 100, ada.user_id or 0)
            for number in range(2000)
        ]
        await database.transaction(insert_products, new_products)
        selection = Selection(sort=sort)
        after = (500,) if selection.sort_column == "id" else (DEEP[selection.sort_column], 500)
        statement = queries.page(sort=sort, filters=frozenset(), resumed=True)
        values = {**selection.values_after(after), "limit": 100}

        async def explained(connection: AsyncConnection) -> str:
            is_sqlite = connection.dialect.name == "sqlite"
            prefix = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN "
            compiled = statement.params(values).compile(
                dialect=connection.dialect, compile_kwargs={"literal_binds": True}
            )
            rows = await connection.exec_driver_sql(
                prefix + str(compiled).replace("%%", "%"),
                execution_options={"no_parameters": True},
            )
            return "\n".join(str(dict(row._mapping)) for row in rows)

        plan = await run_on(database.connection(), explained)

        column = selection.sort_column
        index = "PRIMARY" if column == "id" else f"ix_products_{column}_id"
        assert index in plan.replace("INTEGER PRIMARY KEY", "PRIMARY"), plan
        # MariaDB, MySQL and SQLite show a sort by one of these words.
        assert not any(words in plan for words in ("filesort", "Sort:", "TEMP B-TREE")), plan
        # They show a seek into the index by one of these.
        assert any(words in plan for words in ("'range'", "range scan", "SEARCH")), plan
