"""Encoded rows equal decoded ones, value for value."""

import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from catalog.db.database import Database
from catalog.db.raw_rows import TextQuery
from catalog.db.read_connection import ReadConnection
from catalog.http.pagination import Cursors
from catalog.products import queries, service
from catalog.products.changes.change_ids import ChangeId
from catalog.products.listing import page_reader
from catalog.products.listing.encoded_rows import (
    EncodedRows,
    encoded_page,
    read_encoded_pages,
    read_encoded_products,
)
from catalog.products.listing.page_request import PageRequests
from catalog.products.listing.page_rows import DecodedRows, PageRows
from catalog.products.models import MAX_DESCRIPTION, MAX_NAME, MAX_PRICE, NewProduct, Product
from catalog.products.schemas import ListQuery
from catalog.products.selection import Selection
from tests.db.support import on_servers, run_on
from tests.products.awkward_values import PRICES, TEXTS
from tests.products.encoded_texts import SHOWN, text_of
from tests.products.listing.lists import SORTS
from tests.support import Caller

LONGEST = "\U0001f4a1" * MAX_DESCRIPTION


def doubles() -> list[float]:
    """Return prices that need all of their digits."""
    bits = (0x3FB999999999999A + 0x000F_3A5C_91E7_0D43 * number for number in range(60))
    return [struct.unpack("<d", struct.pack("<Q", each))[0] for each in bits]


@pytest.fixture
async def new_products(ada: Caller, bob: Caller, database: Database) -> int:
    """Insert products with all kinds of texts and prices; return their number."""
    prices = [*PRICES, *(price for price in doubles() if price <= MAX_PRICE), MAX_PRICE]
    descriptions = [None, "", *TEXTS]
    new_products = [
        NewProduct(
            TEXTS[number % len(TEXTS)] + str(number % 7),
            descriptions[number % len(descriptions)],
            price,
            (ada.user_id if number % 3 else bob.user_id) or 0,
            key=None if number % 2 else f"{TEXTS[number % len(TEXTS)]}{number}",
        )
        for number, price in enumerate(prices)
    ]
    await database.transaction(service.insert_products, new_products)
    return len(new_products)


async def both(
    database: Database, selection: Selection, after: Any = None, limit: int = 30
) -> tuple[EncodedRows, DecodedRows]:
    """Read a page in both forms, encoded and decoded."""

    async def read(connection: ReadConnection) -> tuple[EncodedRows, DecodedRows]:
        shape = {"sort": selection.sort, "filters": selection.filters, "resumed": bool(after)}
        values = {**selection.values, **selection.values_after(after), "limit": limit}
        rows = await connection.execute(queries.page(**shape), values)
        query = TextQuery(encoded_page(**shape), values)
        (products,) = await read_encoded_pages(connection, [query])
        return products, DecodedRows(rows.all())

    return await run_on(database.connection(), read)


async def rows_of_all(connection: ReadConnection) -> Sequence[Sequence[Any]]:
    """Return the rows of all products, in the order of their ids."""
    statement = select(*queries.COLUMNS).order_by(Product.__table__.c.id)
    return (await connection.execute(statement)).all()


def assert_same(cell: PageRows, rows: PageRows) -> None:
    assert len(cell) == len(rows)
    assert [cell.id_of(n) for n in range(len(cell))] == [rows.id_of(n) for n in range(len(rows))]
    assert [cell[n] for n in range(len(cell))] == [rows[n] for n in range(len(rows))]
    for count in (0, 1, len(rows), 1000):
        assert cell.json(count) == rows.json(count)
    for fields in (("id",), ("price", "name"), ("description", "updated_at", "version", "key")):
        assert cell.json(1000, fields) == rows.json(1000, fields)


@on_servers
class TestProducts:
    @pytest.mark.usefixtures("new_products")
    async def test_chosen_products_are_read_however_many_they_are(self, database: Database) -> None:
        everything = DecodedRows(await run_on(database.connection(), rows_of_all))
        for count in (1, 2, 3, 4, 5, 8, 9, 16, 17, 33):
            ids = range(2, 2 + count)

            found = await run_on(database.connection(), read_encoded_products, ids)

            assert len(found) == count
            # They are in no order.
            assert {*found.objects(count)} == {*everything.objects(1 + count)[1:]}


@on_servers
class TestPage:
    async def test_encoded_page_equals_the_decoded_one_in_every_sort(
        self, new_products: int, database: Database, bob: Caller
    ) -> None:
        some: Any = ({}, {"user_id": bob.user_id}, {"min_price": 0.1}, {"ids": (3, 5, 99999)})
        for sort in SORTS:
            for filters in some:
                selection = Selection(**{"sort": sort, **filters})
                cell, rows = await both(database, selection)
                assert_same(cell, rows)
                assert cell.change.position == new_products
                after = selection.position_of(rows[len(rows) - 1])
                assert_same(*await both(database, selection, after))

    async def test_empty_page_has_a_position(self, new_products: int, database: Database) -> None:
        query = ListQuery.model_validate({"ids": ["99999"]})
        request = PageRequests(Cursors(b"secret")).for_all(query, b"", prefix="")
        (page,) = await run_on(database.connection(), page_reader.read_pages, [request])

        assert page.change.position == new_products
        assert page.products.json(100) == b"[]"

    async def test_longest_page_is_complete(self, ada: Caller, database: Database) -> None:
        longest = NewProduct("\U0001f4a1" * MAX_NAME, LONGEST, MAX_PRICE, ada.user_id or 0)
        await database.transaction(service.insert_products, [longest] * 200)

        cell, rows = await both(database, Selection(), limit=200)

        # Rows beyond the page are dropped as they arrive, all but one.
        assert queries.PAGE_BYTES < cell.most_bytes < 1.2 * queries.PAGE_BYTES
        assert cell.json(len(cell)) == rows.json(len(cell))
        assert len(rows) == 200


class TestJson:
    @given(
        st.lists(
            st.tuples(
                st.text(st.characters(codec="utf-8", exclude_characters="\0")),
                st.none() | st.text('a"\\u0\n\x01é', max_size=8),
                st.floats(0, MAX_PRICE),
                st.none() | st.text('a"\\u0\n\x01é', min_size=1, max_size=8),
            ),
            max_size=4,
        )
    )
    def test_json_of_encoded_rows_equals_that_of_decoded_rows(
        self, products: list[tuple[str, str | None, float, str | None]]
    ) -> None:
        rows = [(7, *each, *SHOWN) for each in products]
        texts = [text_of(*each) for each in products]

        assert_same(EncodedRows(ChangeId(12), texts), DecodedRows(rows))

    @pytest.mark.parametrize("escaped", ["name", "description", "key"])
    def test_one_text_that_must_be_escaped_changes_no_other(self, escaped: str) -> None:
        products = [{"name": "Lamp", "description": "Oak", "key": "null"} for _ in range(3)]
        products[1][escaped] += '"\\\n'
        values = [(each["name"], each["description"], 1.5, each["key"]) for each in products]

        cell = EncodedRows(ChangeId(12), [text_of(*each) for each in values])

        assert_same(cell, DecodedRows([(7, *each, *SHOWN) for each in values]))
