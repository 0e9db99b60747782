"""Inserts, updates and deletions of products, each with its words and its entry in the log."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.db.columns import now
from catalog.db.database import Database
from catalog.db.statements import insert_rows
from catalog.errors import Conflict
from catalog.products import queries, service
from catalog.products.models import NewProduct, Product, ProductChange, ProductWords
from catalog.products.search.tokenizer import own_token, terms_of
from tests.support import Caller

THEN = datetime(2024, 2, 3, 4, 5, 6, 7, UTC)


def lamps(owner: Caller, count: int, **fields: Any) -> list[NewProduct]:
    return [
        NewProduct(f"Lamp {number}", None, 1.5, owner.user_id or 0, **fields)
        for number in range(count)
    ]


async def products_in(database: Database) -> list[dict[str, Any]]:
    statement = select(*queries.COLUMNS).order_by(Product.__table__.c.id)
    async with database.connection() as connection:
        return [queries.members_of(row) for row in await connection.execute(statement)]


async def words_in(database: Database) -> list[str]:
    words = ProductWords.__table__.c
    async with database.connection() as connection:
        return list(await connection.scalars(select(words.words).order_by(words.rowid)))


class TestInsert:
    async def test_products_have_ascending_ids_and_consecutive_changes(
        self, ada: Caller, database: Database
    ) -> None:
        first = await database.transaction(service.insert_products, lamps(ada, 3))
        second = await database.transaction(service.insert_products, lamps(ada, 2))

        ids = [*first.ids, *second.ids]
        assert ids == sorted(set(ids))
        assert (first.last.position, second.last.position) == (3, 5)
        products = await products_in(database)
        assert [each["id"] for each in products] == ids
        assert [each["name"] for each in products] == [*map("Lamp {}".format, (0, 1, 2, 0, 1))]

    async def test_product_is_as_it_is_rendered(self, ada: Caller, database: Database) -> None:
        given = NewProduct("Lamp", "Oak", 2.5, ada.user_id or 0, key="a/1")

        inserted = await database.transaction(service.insert_products, [given])

        assert await products_in(database) == [
            service.rendered(given, inserted.ids[0], inserted.at)
        ]

    async def test_creation_time_is_that_of_the_product_if_it_has_one(
        self, ada: Caller, database: Database
    ) -> None:
        given = [*lamps(ada, 1, created_at=THEN), *lamps(ada, 1)]
        before = now()

        inserted = await database.transaction(service.insert_products, given)

        assert before <= inserted.at <= now()
        assert [each["created_at"] for each in await products_in(database)] == [
            service.rendered(given[0], 1, THEN)["created_at"],
            service.rendered(given[1], 2, inserted.at)["created_at"],
        ]

    async def test_each_product_has_its_words_and_the_last_a_token_of_its_own(
        self, ada: Caller, database: Database
    ) -> None:
        given = [*lamps(ada, 1, words="given words"), *lamps(ada, 2)]

        inserted = await database.transaction(service.insert_products, given)

        first, second, third = await words_in(database)
        assert "given" in first
        (lamp,) = terms_of("lamp")
        assert [lamp in each for each in (first, second, third)] == [False, True, True]
        token = own_token(inserted.ids[-1], 1)
        assert [token in each for each in (first, second, third)] == [False, False, True]

    async def test_callback_runs_after_the_numbering_and_before_the_words(
        self, ada: Caller, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps: list[str] = []

        async def insert_words(*args: Any) -> None:
            steps.append("words")
            await insert_rows(*args)

        monkeypatch.setattr(service, "insert_rows", insert_words)

        async def insert(session: AsyncSession) -> list[int]:
            return await service.insert_unlogged(
                session, lamps(ada, 2), at=THEN, on_numbered=lambda: steps.append("numbered")
            )

        ids = await database.transaction(insert)

        assert steps == ["numbered", "words"]
        assert [each["id"] for each in await products_in(database)] == ids
        async with database.connection() as connection:
            logged = await connection.scalar(select(func.count()).select_from(ProductChange))
        assert logged == 0

    async def test_no_products_are_no_error(self, database: Database) -> None:
        async def insert(session: AsyncSession) -> list[int]:
            return await service.insert_unlogged(session, [], at=THEN)

        assert await database.transaction(insert) == []


class TestDeleteProductsOf:
    async def delete_all(self, database: Database, owner: Caller) -> list[int]:
        """Delete an account's products; return how many were left after each transaction."""
        left, was_last = [], False
        while not was_last:
            was_last = await database.transaction(service.delete_products_of, owner.user_id or 0)
            left.append(len(await products_in(database)))
        return left

    async def test_transaction_deletes_a_bounded_number(
        self, ada: Caller, bob: Caller, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "MAX_DELETED", 2)
        await database.transaction(service.insert_products, [*lamps(ada, 5), *lamps(bob, 1)])

        assert await self.delete_all(database, ada) == [4, 2, 1]

        (left,) = await products_in(database)
        assert left["user_id"] == bob.user_id

    async def test_exactly_as_many_as_fit_need_another_transaction(
        self, ada: Caller, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "MAX_DELETED", 2)
        await database.transaction(service.insert_products, lamps(ada, 2))

        # Whether there are more is known only after the next one.
        assert await self.delete_all(database, ada) == [0, 0]

    async def test_transaction_deletes_a_bounded_size_but_at_least_one(
        self, ada: Caller, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "MAX_DELETED_BYTES", 2 * len("Lamp 0"))
        long = NewProduct("Lamp", "x" * 100, 1.5, ada.user_id or 0)
        given = [*lamps(ada, 3), long, *lamps(ada, 1)]
        await database.transaction(service.insert_products, given)

        assert await self.delete_all(database, ada) == [3, 2, 1, 0]

    async def test_deletions_are_logged_with_the_last_version(
        self, ada: Caller, database: Database
    ) -> None:
        created = await ada.create_product("Lamp")
        path = f"/api/products/{created.json['id']}"
        assert (await ada.send("PATCH", path, json={"price": 2})).status_code == 200

        assert await self.delete_all(database, ada) == [0]

        deleted = (await ada.get("/api/products/changes?since=2")).json["changes"]
        assert [(each["type"], each["id"], each["version"]) for each in deleted] == [
            ("deleted", created.json["id"], 2)
        ]


class TestUpdate:
    async def store(
        self, database: Database, *changed: tuple[dict[str, Any], set[str]], at: datetime = THEN
    ) -> None:
        async def store(session: AsyncSession) -> None:
            await service.store_updates(session, changed, at=at)

        await database.transaction(store)

    async def test_stored_product_is_the_updated_one(self, ada: Caller, database: Database) -> None:
        given = [*lamps(ada, 2), NewProduct("Rug", "Wool", 2.5, ada.user_id or 0, key="a/1")]
        await database.transaction(service.insert_products, given)
        at = now() + timedelta(seconds=1)
        first, second, rug = await products_in(database)
        updates = [
            (service.updated(first, {"price": 3.0}, at), {"price"}),
            (service.updated(second, {"price": 4.0}, at), {"price"}),
            (service.updated(rug, {"name": "Mat", "key": "a/2"}, at), {"name", "key"}),
        ]

        await self.store(database, *updates, at=at)

        assert await products_in(database) == [product for product, _ in updates]
        assert [each["version"] for each in await products_in(database)] == [2, 2, 2]

    async def test_words_follow_the_name_and_the_description(
        self, ada: Caller, database: Database
    ) -> None:
        await database.transaction(service.insert_products, lamps(ada, 3))
        before = await words_in(database)
        edits: list[dict[str, Any]] = [
            {"price": 2.0},
            {"name": "Stool"},
            {"description": "Walnut"},
        ]
        price, name, description = (
            (service.updated(product, edit, THEN), set(edit))
            for product, edit in zip(await products_in(database), edits, strict=True)
        )

        await self.store(database, price, name, description)

        words = await words_in(database)
        assert words[0] == before[0]
        assert [terms_of("stool")[0] in each for each in words] == [False, True, False]
        assert [terms_of("walnut")[0] in each for each in words] == [False, False, True]
        # The last one of a write tells its own rows from those of another.
        assert own_token(description[0]["id"], 2) in words[2]
        assert own_token(name[0]["id"], 2) not in words[1]

    async def test_update_of_a_deleted_product_is_a_conflict(
        self, ada: Caller, database: Database
    ) -> None:
        await database.transaction(service.insert_products, lamps(ada, 1))
        (lamp,) = await products_in(database)
        gone = {**service.updated(lamp, {"price": 2.0}, THEN), "id": lamp["id"] + 1}

        with pytest.raises(Conflict, match="Another request changed the product"):
            await self.store(database, (gone, {"price"}))

        assert await products_in(database) == [lamp]

    async def test_empty_update_is_no_error(self, database: Database) -> None:
        await self.store(database)
