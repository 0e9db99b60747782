"""Change counter: positions in commit order, and eras, between which only products are created."""

import asyncio
import random
from typing import Any

import pytest
from sqlalchemy import BigInteger, Column, MetaData, Table, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.app import create_app
from catalog.db.columns import now
from catalog.db.database import Database
from catalog.errors import DatabaseUnavailable
from catalog.products.changes import change_counter, change_log
from catalog.products.changes.change_counter import LATE_IDS, Head, parse_head
from catalog.products.changes.change_ids import ERA_LENGTH, ChangeId
from catalog.products.changes.log_reader import read_changes
from catalog.products.models import TOKEN_LENGTH, ChangeCounter, ChangeType, Product
from catalog.settings import Settings
from tests.db.support import Open, on_servers, run_on
from tests.products.changes.support import followed
from tests.support import PASSWORD, Caller, Response, at_once, problem_of

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


# Negative control: a log numbered by the engine's auto-increment.
_naive = Table("naive_log", MetaData(), Column("id", BigInteger, primary_key=True))


@on_servers
class TestOrder:
    """Order of positions as readers see it, when commits are delayed."""

    WRITERS = 8
    ROUNDS = 12

    async def _seen(self, settings: Settings, record: Any, current: Any, total: int) -> list[int]:
        """Return the positions that a polling reader sees while writers commit late."""
        seen: list[int] = []
        databases = [Database(settings) for _ in range(2)]
        chance = random.Random(7)  # noqa: S311 (must be repeatable)

        async def write(number: int) -> None:
            async def work(session: AsyncSession) -> None:
                await record(session)
                # Delay the commit, as a slow network would.
                await asyncio.sleep(chance.random() * 0.02)

            for _ in range(self.ROUNDS):
                await databases[number % 2].transaction(work)

        async def follow() -> None:
            while len(seen) < total:
                last = seen[-1] if seen else 0
                found = await run_on(databases[0].connection(), current, since=last)
                seen.extend(found)
                if writing.done() and not found:
                    return

        writing = asyncio.gather(*(write(number) for number in range(self.WRITERS)))
        try:
            await asyncio.gather(writing, follow())
        finally:
            for database in databases:
                await database.close()
        return seen

    async def test_reader_misses_no_position(self, settings: Settings) -> None:
        total = self.WRITERS * self.ROUNDS * 2

        async def record(session: AsyncSession) -> None:
            await change_log.record(session, ChangeType.CREATED, [(7, 1), (8, 1)], at=now())

        async def current(connection: AsyncConnection, *, since: int) -> list[int]:
            found = await read_changes(connection, since=ChangeId(since), limit=5)
            return [entry.change.position for entry in found.entries]

        seen = await self._seen(settings, record, current, total)

        assert seen == [*range(1, total + 1)]

    async def test_reader_misses_positions_numbered_by_auto_increment(
        self, settings: Settings
    ) -> None:
        database = Database(settings)
        table = "naive_log (id BIGINT AUTO_INCREMENT PRIMARY KEY)"

        async def make(session: AsyncSession) -> None:
            await session.execute(text(f"CREATE TABLE {table}"))

        async def drop(session: AsyncSession) -> None:
            await session.execute(text("DROP TABLE naive_log"))

        async def record(session: AsyncSession) -> None:
            await session.execute(insert(_naive).values())

        async def current(connection: AsyncConnection, *, since: int) -> list[int]:
            later = select(_naive.c.id).where(_naive.c.id > since).order_by(_naive.c.id)
            return list((await connection.execute(later)).scalars())

        await database.transaction(make)
        try:
            total = self.WRITERS * self.ROUNDS
            seen = await self._seen(settings, record, current, total)
            assert len(seen) < total
        finally:
            await database.transaction(drop)
            await database.close()


class TestHead:
    async def test_head_read_as_text_equals_that_of_the_library(
        self, ada: Caller, database: Database
    ) -> None:
        created = [await ada.create_product("Lamp") for _ in range(3)]
        await ada.delete(created[0].json["id"])

        heads = [
            await run_on(database.connection(), change_counter.current_head),
            await database.transaction(change_counter.current_head),
        ]

        last = (await ada.get(f"{PATH}?limit=1")).headers["Catalog-Change"]
        highest = created[2].json["id"]
        assert heads == [Head(ChangeId.parse(last), highest)] * 2
        assert parse_head([f"{last} {highest}".encode()]) == heads[0]
        assert heads[0].settled_id == highest - 1000

    def test_counter_without_a_row_is_refused(self) -> None:
        with pytest.raises(DatabaseUnavailable, match="no change counter"):
            parse_head([])


class TestProcesses:
    async def test_two_processes_share_one_history(
        self, settings: Settings, ada: Caller, anyone: Caller
    ) -> None:
        other_app = create_app(settings)
        async with other_app.test_app():
            elsewhere = Caller(other_app)
            elsewhere.access_token = ada.access_token
            callers = [ada, elsewhere]
            answers = await at_once(
                60, lambda number: callers[number % 2].create_product(f"Lamp {number}")
            )
            assert {answer.status_code for answer in answers} == {201}

        told = {int(each.headers["Catalog-Position"]): each.json["id"] for each in answers}
        logged = {each["position"]: each["id"] for each in await followed(anyone, limit=7)}
        assert logged == told
        assert sorted(logged) == [*range(1, 61)]


class TestIncompleteDatabase:
    async def test_missing_counter_row_is_answered_503(
        self, database: Database, ada: Caller
    ) -> None:
        await ada.create_product("Lamp")

        async def empty(session: AsyncSession) -> None:
            await session.execute(text("DELETE FROM change_counter"))

        await database.transaction(empty)

        asked = [
            await ada.get("/api/products"),
            await ada.get("/api/products/my"),
            await ada.get("/api/products/1"),
            await ada.get(f"{PATH}/changes?since=0"),
            await ada.create_product("Rug"),
            await ada.delete(1),
        ]
        assert [problem_of(answer) for answer in asked] == [(503, "database-unavailable")] * 6


class TestEra:
    async def test_only_additions_keep_the_era(self, ada: Caller, bob: Caller) -> None:
        lamp, stool = await ada.create_product("Lamp"), await bob.create_product("Stool")
        path = lamp.headers["Location"]
        imported = await ada.import_products(150)
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
            read = await run_on(other.connection(), change_counter.current_change)
            created = await ada.create_product("Stool")
            assert read == change_id
            assert era(created) == change_id.token[:ERA_LENGTH]

    async def test_batch_with_an_edit_begins_an_era(self, ada: Caller) -> None:
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
    async def test_product_far_below_a_committed_one_begins_an_era(
        self, ada: Caller, database: Database, newer: int, is_late: bool
    ) -> None:
        before = era(await ada.create_product("Lamp"))

        async def insert_late(session: AsyncSession) -> ChangeId:
            late = await insert_product(session, ada.user_id)
            imported = await ada.import_products(newer)
            assert imported.headers["Catalog-Position"] == f"{1 + newer}"
            assert (await ada.get(f"{PATH}?limit=1")).json["products"][0]["id"] == late + newer
            return await change_log.record_created(session, [late], at=now())

        change = await database.transaction(insert_late)

        assert (change.token[:ERA_LENGTH] != before) is is_late
        assert era(await ada.create_product("Newest")) == change.token[:ERA_LENGTH]

    async def test_change_after_a_manual_edit_begins_an_era(
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
