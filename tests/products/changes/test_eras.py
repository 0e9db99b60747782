"""Eras: tokens of equal era have only created products between them."""

from typing import Any

import pytest
from sqlalchemy import delete, insert, update
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.db.columns import now
from catalog.db.database import Database
from catalog.products.changes import change_log
from catalog.products.changes.change_log import LATE_IDS
from catalog.products.models import (
    ERA_LENGTH,
    TOKEN_LENGTH,
    ChangeCounter,
    ChangeId,
    ChangeType,
    Product,
    ProductChange,
)
from tests.db.support import Open, on_servers, run_on
from tests.support import PASSWORD, Caller, Response, at_once

PATH = "/api/products"


def era(answer: Response) -> str:
    """Return the era of a response."""
    token = ChangeId.parse(answer.headers["Catalog-Change"]).token
    assert len(token) == TOKEN_LENGTH
    return token[:ERA_LENGTH]


async def insert_product(session: AsyncSession, owner_id: int | None) -> int:
    """Insert a product, which is not logged yet."""
    instant = now()
    values: dict[str, Any] = {"name": "Late", "price": 1.0, "user_id": owner_id, "version": 1}
    values |= {"created_at": instant, "updated_at": instant}
    inserted = await session.execute(insert(Product).values(values))
    product_id: int = inserted.inserted_primary_key[0]  # type: ignore[attr-defined]  # of CursorResult
    return product_id


async def import_products(caller: Caller, count: int) -> Response:
    """Create products with an import."""
    lines = b'{"name":"Rug","price":1}\n' * count
    answer = await caller.post(PATH, data=lines, headers={"Content-Type": "application/x-ndjson"})
    assert answer.json["created"] == count
    return answer


class TestEra:
    async def test_only_additions_keep_it(self, ada: Caller, bob: Caller) -> None:
        lamp, stool = await ada.create_product("Lamp"), await bob.create_product("Stool")
        path = lamp.headers["Location"]
        imported = await import_products(ada, 150)
        patched = await ada.send("PATCH", path, json={"price": 5})
        desk = await ada.create_product("Desk")
        deleted = await ada.send("DELETE", path)
        await bob.send("DELETE", "/api/auth/me", json={"password": PASSWORD})
        chair = await ada.create_product("Chair")

        eras = [era(each) for each in (lamp, stool, imported, patched, desk, deleted, chair)]
        assert eras[0] == eras[1] == eras[2]
        assert eras[3] == eras[4]
        assert len(set(eras)) == 4

    async def test_every_write_has_the_token_of_the_log(
        self, ada: Caller, bob: Caller, opened: Open
    ) -> None:
        first = (await ada.create_product("Lamp")).json["id"]
        other = opened()

        async def add(session: AsyncSession) -> ChangeId:
            product_id = await insert_product(session, bob.user_id)
            return await change_log.record_created(session, [product_id], at=now())

        async def change(session: AsyncSession) -> ChangeId:
            return await change_log.record(session, ChangeType.UPDATED, [(first, 2)], at=now())

        # Each process finds that the other one has begun an era.
        for work in (add, change, add, add, change, change, add):
            change_id = await other.transaction(work)
            read = await run_on(other.connection(), change_log.current_change)
            created = await ada.create_product("Stool")
            assert read == change_id
            assert era(created) == change_id.token[:ERA_LENGTH]

    async def test_batch_with_an_edit_begins_one(self, ada: Caller) -> None:
        paths = [(await ada.create_product("Lamp")).headers["Location"] for _ in range(4)]
        before = era(await ada.create_product("Stool"))

        async def write(number: int) -> Response:
            if number % 2:
                return await ada.send("PATCH", paths[number // 2], json={"price": number})
            return await ada.create_product(f"Rug {number}")

        answers = await at_once(8, write)

        after = await ada.get(f"{PATH}?limit=1")
        # Those that share a transaction share its era, and the last one is that of the head.
        together = {each.headers["Catalog-Change"].partition(".")[2] for each in answers}
        assert {era(each) for each in answers} - {before}
        assert after.headers["Catalog-Change"].partition(".")[2] in together
        assert era(after) != before

    @pytest.mark.parametrize(("newer", "is_late"), [(LATE_IDS - 1, False), (LATE_IDS, True)])
    @on_servers
    async def test_product_far_below_a_committed_one_begins_one(
        self, ada: Caller, database: Database, newer: int, is_late: bool
    ) -> None:
        before = era(await ada.create_product("Lamp"))

        async def insert_late(session: AsyncSession) -> ChangeId:
            late = await insert_product(session, ada.user_id)
            imported = await import_products(ada, newer)
            assert imported.headers["Catalog-Position"] == f"{1 + newer}"
            assert (await ada.get(f"{PATH}?limit=1")).json["products"][0]["id"] == late + newer
            return await change_log.record_created(session, [late], at=now())

        change = await database.transaction(insert_late)

        assert (change.token[:ERA_LENGTH] != before) is is_late
        assert era(await ada.create_product("Newest")) == change.token[:ERA_LENGTH]

    async def test_change_by_hand_begins_one_with_the_next(
        self, ada: Caller, database: Database
    ) -> None:
        before = era(await ada.create_product("Lamp"))

        async def take(session: AsyncSession) -> None:
            taken = ChangeCounter.position + 1
            await session.execute(update(ChangeCounter).values(position=taken))

        await database.transaction(take)

        after = era(await ada.create_product("Stool"))
        assert after != before
        assert era(await ada.create_product("Rug")) == after


class TestSettledPages:
    async def test_pages_far_below_the_highest_id_and_products_are_named(
        self, ada: Caller, anyone: Caller
    ) -> None:
        await import_products(ada, LATE_IDS + 9)
        ids = [each["id"] for each in (await anyone.get(f"{PATH}?sort=id")).json["products"]]
        page = f"{PATH}?limit={LATE_IDS}"
        first = await anyone.get(page)
        # Behind the product with the tenth id.
        second = await anyone.get(first.json["next"].replace(f"limit={LATE_IDS}", "limit=1"))
        third = await anyone.get(second.json["next"])
        upwards = await anyone.get(f"{PATH}?limit=3&sort=id")
        last = await anyone.get(f"{PATH}?limit=1000&sort=-id&ids={ids[8]}")
        priced = await anyone.get(f"{PATH}?limit=3&sort=price")
        total = await anyone.get(f"{third.json['next']}&total=true")
        product = await anyone.get(f"{PATH}/{ids[0]}")
        missing = await anyone.get(f"{PATH}/{ids[0] + 10**6}")

        assert second.json["products"][0]["id"] == ids[8]
        answers = (first, second, third, upwards, last, priced, total, product, missing)
        named = [each.headers.get("Catalog-Unaffected-By") for each in answers]
        created = "created"
        assert named == [None, None, created, created, created, None, None, created, None]
        marked = [each.json["next_cursor"].startswith(".") for each in (first, second, third)]
        assert marked == [False, True, True]
        # Composed of known products, and kept.
        for _ in range(3):
            again = await anyone.get(second.json["next"].replace("limit=1", "limit=2"))
            assert again.headers["Catalog-Unaffected-By"] == "created"
        # Caches take the mark for a hint, and any other mark is refused.
        unmarked = await anyone.get(second.json["next"].replace("cursor=.", "cursor="))
        assert unmarked.json["products"] == third.json["products"]
        refused = await anyone.get(second.json["next"].replace("cursor=.", "cursor=.."))
        assert refused.status_code == 400

    async def test_page_behind_a_cursor_above_all_products_is_not(
        self, ada: Caller, anyone: Caller, database: Database
    ) -> None:
        await import_products(ada, LATE_IDS + 9)
        oldest = (await anyone.get(f"{PATH}?limit=2&sort=id")).json["products"]
        first = await anyone.get(f"{PATH}?limit={LATE_IDS}")
        behind = (await anyone.get(first.json["next"].replace(f"{LATE_IDS}", "1"))).json["next"]

        async def restore(session: AsyncSession) -> None:
            """Return to an earlier state, as a backup does."""
            kept = oldest[1]["id"]
            await session.execute(delete(Product).where(Product.id > kept))
            await session.execute(delete(ProductChange).where(ProductChange.position > 2))
            values = {"position": 2, "taken_position": 2, "highest_id": kept}
            await session.execute(update(ChangeCounter).values(values))

        await database.transaction(restore)

        page = await anyone.get(behind)
        assert page.json["products"] == [oldest[1]]
        assert "Catalog-Unaffected-By" not in page.headers
