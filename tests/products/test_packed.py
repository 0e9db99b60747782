"""A page as one cell shows what its rows do, value for value."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.database import Database
from catalog.products import packed, queries, service
from catalog.products.models import MAX_DESCRIPTION, MAX_NAME, MAX_PRICE, Offer
from catalog.products.packed import MAX_PACKED
from catalog.products.queries import Selection
from catalog.settings import Settings
from tests.products.test_lists import SORTS
from tests.support import Caller

TEXTS = ("Lamp", "=1", "'", '"', "\\", "\x01", "\x1a\x7f", "%s %(x)s", "é\u0301", "\U0001f4a1", " ")
LONGEST = "\U0001f4a1" * MAX_DESCRIPTION
PRICES = (0.0, 5e-324, 1e-7, 0.1, 0.30000000000000004, 24.9, 1 / 3, 131072.01, 123456789.125)


def doubles() -> list[float]:
    """Prices that need all of their digits."""
    bits = (0x3FB999999999999A + 0x000F_3A5C_91E7_0D43 * number for number in range(60))
    return [struct.unpack("<d", struct.pack("<Q", each))[0] for each in bits]


@pytest.fixture
def servers_only(settings: Settings) -> None:
    if settings.embedded:
        pytest.skip("SQLite's pages are not packed")


@pytest.fixture
async def offers(servers_only: None, ada: Caller, bob: Caller, database: Database) -> int:
    """Products with all kinds of texts and prices; returns how many."""
    assert servers_only is None
    prices = [*PRICES, *(price for price in doubles() if price <= MAX_PRICE), MAX_PRICE]
    descriptions = [None, "", *TEXTS]
    offers = [
        Offer(
            TEXTS[number % len(TEXTS)] + str(number % 7),
            descriptions[number % len(descriptions)],
            price,
            (ada.user_id if number % 3 else bob.user_id) or 0,
        )
        for number, price in enumerate(prices)
    ]
    await database.transaction(service.insert_products, offers)
    return len(offers)


async def both(
    database: Database, selection: Selection, after: Any = None, limit: int = 30
) -> tuple[Any, Any]:
    """A page as its cell has it, and as its rows are."""

    async def read(connection: AsyncConnection) -> tuple[Any, Any]:
        shape = {"sort": selection.sort, "filters": selection.filters, "resumed": bool(after)}
        values = {**selection.values, **selection.values_after(after), "limit": limit}
        cell = await connection.scalar(packed.page(**shape), values)
        rows = await connection.execute(queries.page(**shape), values)
        return packed.unpack(cell), [tuple(row) for row in rows]

    return await database.reading(read)


class TestPage:
    async def test_it_is_that_of_the_rows_in_every_order(
        self, offers: int, database: Database, bob: Caller
    ) -> None:
        some: Any = ({}, {"user_id": bob.user_id}, {"min_price": 0.1}, {"ids": (3, 5, 99999)})
        for sort in SORTS:
            for filters in some:
                selection = Selection(**{"sort": sort, **filters})
                cell, rows = await both(database, selection)
                assert cell.rows == rows
                assert cell.position == offers
                last = dict(zip(queries.FIELDS, rows[-1], strict=True))
                cell, rows = await both(database, selection, selection.position_of(last))
                assert cell.rows == rows

    async def test_an_empty_one_has_a_position(self, offers: int, database: Database) -> None:
        cell, rows = await both(database, Selection(ids=(99999,)))

        assert cell == (offers, [])
        assert rows == []

    async def test_the_longest_one_is_whole(
        self, servers_only: None, ada: Caller, database: Database
    ) -> None:
        assert servers_only is None
        longest = Offer("\U0001f4a1" * MAX_NAME, LONGEST, MAX_PRICE, ada.user_id or 0)
        await database.transaction(service.insert_products, [longest] * MAX_PACKED)

        cell, rows = await both(database, Selection(), limit=MAX_PACKED)

        assert cell.rows == rows
        assert len(rows) == MAX_PACKED

    async def test_one_that_the_server_cuts_off_is_read_by_rows(
        self, offers: int, database: Database
    ) -> None:
        options: Any = {"selection": Selection(), "after": None, "limit": 50}
        shape: Any = {"sort": "-id", "filters": frozenset(), "resumed": False}

        async def read(connection: AsyncConnection) -> service.Page:
            await connection.execute(text("SET SESSION group_concat_max_len = 1024"))
            cell = await connection.scalar(packed.page(**shape), {"limit": 50})
            assert packed.unpack(cell) is None
            page = await service.list_products(connection, **options)
            # It is no longer like the others of its pool.
            await connection.invalidate()
            return page

        page = await database.reading(read)

        assert page.position == offers
        assert len(page.products) == 50


class TestUnpack:
    ROW = ("7", "Lamp", "=Oak", "1.5", "1", "2", "then", "now")

    def test_no_part_of_a_cell_passes_for_the_whole(self) -> None:
        cell = "\0".join(("12", "2", *self.ROW, *self.ROW, ""))

        assert packed.unpack(cell) == (12, [(7, "Lamp", "Oak", 1.5, 1, 2, "then", "now")] * 2)
        for length in range(4, len(cell)):
            assert packed.unpack(cell[:length]) is None

    @given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), max_size=3))
    def test_texts_come_back(self, names: list[str]) -> None:
        rows = [part for name in names for part in ("7", name, f"={name}", *self.ROW[3:])]

        unpacked = packed.unpack("\0".join(("12", str(len(names)), *rows, *[""] * bool(names))))

        assert unpacked is not None
        assert [row[1:3] for row in unpacked.rows] == [(name, name) for name in names]
