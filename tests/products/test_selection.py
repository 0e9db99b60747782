"""Selection of a list: its filters, the text that cursors are bound to, and its positions."""

from datetime import UTC, datetime
from typing import Any

import pytest

from catalog.db.database import Database
from catalog.products import queries
from catalog.products.schemas import MyListQuery, Sort
from catalog.products.search.tokenizer import terms_of
from catalog.products.selection import Position, Selection
from tests.support import Caller

PRODUCT = {"id": 7, "name": "Lamp", "price": 2.5, "created_at": "2026-11-23T09:30:00.000001Z"}


def of(*, user_id: int | None = None, **given: str) -> Selection:
    return Selection.of(MyListQuery.model_validate(given), user_id=user_id)


def test_query_without_parameters_selects_everything_newest_first() -> None:
    everything = of()

    assert everything == Selection(sort="-id")
    assert (everything.filters, everything.values) == (frozenset(), {})


def test_parameters_of_a_query_are_its_filters() -> None:
    query = {"min_price": "1", "max_price": "2.5", "ids": "3,1", "key": "a/1", "sort": "price"}

    some = of(user_id=4, **query)

    assert some.values == {
        "min_price": 1,
        "max_price": 2.5,
        "ids": (3, 1),
        "client_key": "a/1",
        "user_id": 4,
    }
    assert some.filters == some.values.keys()
    assert (some.sort, some.terms) == ("price", ())


def test_terms_of_a_search_are_no_filter() -> None:
    found = of(q="brass Lamp")

    assert found.terms == terms_of("brass Lamp")
    assert found.filters == frozenset()


class TestConditions:
    @pytest.mark.parametrize(
        ("filters", "names"),
        [
            ({}, ["Lamp", "Desk", "Rug"]),
            ({"min_price": 2.0}, ["Desk", "Rug"]),
            ({"max_price": 2.0}, ["Lamp", "Desk"]),
            ({"user_id": 1}, ["Lamp", "Rug"]),
            ({"user_id": 9}, []),
            ({"client_key": "a"}, ["Lamp", "Desk"]),
            ({"ids": (3, 1, 9)}, ["Lamp", "Rug"]),
            ({"user_id": 1, "min_price": 2.0}, ["Rug"]),
        ],
    )
    async def test_filters_keep_matching_products(
        self,
        ada: Caller,
        bob: Caller,
        database: Database,
        filters: dict[str, Any],
        names: list[str],
    ) -> None:
        assert (ada.user_id, bob.user_id) == (1, 2)
        await ada.create_product("Lamp", price=1, key="a")
        await bob.create_product("Desk", price=2, key="a")
        await ada.create_product("Rug", price=3)
        selection = Selection(sort="id", **filters)

        async with database.connection() as connection:
            page = queries.page(sort="id", filters=selection.filters, resumed=False)
            rows = await connection.execute(page, {**selection.values, "limit": 10})

        assert [row.name for row in rows] == names


class TestBoundTo:
    def test_text_has_the_path_the_sort_order_and_the_filters_by_name(self) -> None:
        some = Selection(sort="-price", user_id=4, max_price=2.5)

        assert some.bound_to("/api/products/my") == (
            "/api/products/my?sort=-price&max_price=2.5&user_id=4"
        )

    def test_each_selection_has_its_own_text(self) -> None:
        selections = [
            Selection(),
            Selection(sort="id"),
            Selection(min_price=1),
            Selection(max_price=1),
            Selection(user_id=1),
            Selection(ids=(1,)),
            Selection(client_key="1"),
            Selection(terms=("1",)),
            Selection(terms=("1", "2")),
        ]

        texts = {each.bound_to(path) for each in selections for path in ("/a", "/b")}

        assert len(texts) == 2 * len(selections)


class TestPosition:
    @pytest.mark.parametrize(
        ("sort", "position", "values"),
        [
            ("id", (7,), {"after_id": 7}),
            ("-id", (7,), {"after_id": 7}),
            ("price", (2.5, 7), {"after_key": 2.5, "after_id": 7}),
            ("-name", ("Lamp", 7), {"after_key": "Lamp", "after_id": 7}),
            (
                "created_at",
                (PRODUCT["created_at"], 7),
                {"after_key": datetime(2026, 11, 23, 9, 30, 0, 1, UTC), "after_id": 7},
            ),
        ],
    )
    def test_position_of_a_product_resumes_behind_it(
        self, sort: Sort, position: Position, values: dict[str, Any]
    ) -> None:
        selection = Selection(sort=sort)

        assert selection.position_of(PRODUCT) == position
        assert selection.values_after(position) == values

    def test_start_has_no_values(self) -> None:
        assert Selection(sort="price").values_after(None) == {}
