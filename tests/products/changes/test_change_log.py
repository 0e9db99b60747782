"""Change log: changes are numbered in commit order, without gaps, and can be followed."""

from datetime import timedelta
from itertools import accumulate
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.db.columns import now
from catalog.db.database import Database
from catalog.errors import NotFound
from catalog.products.changes import change_counter, change_log
from catalog.products.changes.change_ids import ERA_LENGTH, ChangeId
from catalog.products.changes.change_log import MANY
from catalog.products.models import ChangeType, ProductChange
from catalog.products.writes.batch import write_products
from tests.db.support import run_on
from tests.products.changes.support import followed, noted_reads
from tests.support import PASSWORD, Caller, at_once, problem_of

PATH = "/api/products/changes"


class TestLog:
    async def test_log_has_type_product_and_version_of_each_change(
        self, ada: Caller, anyone: Caller
    ) -> None:
        lamp = (await ada.create_product("Lamp")).json
        stool = (await ada.create_product("Stool")).json
        path = f"/api/products/{lamp['id']}"
        lamp = (await ada.send("PATCH", path, json={"price": 5})).json
        await ada.delete(stool["id"])

        found = await followed(anyone)

        assert [
            (each["position"], each["type"], each["id"], each["version"]) for each in found
        ] == [
            (1, "created", lamp["id"], 1),
            (2, "created", stool["id"], 1),
            (3, "updated", lamp["id"], 2),
            (4, "deleted", stool["id"], 1),
        ]
        # Products are shown in their current state.
        assert [each["product"] for each in found] == [lamp, None, lamp, None]
        assert found[2]["at"] == lamp["updated_at"]

    async def test_write_without_effect_takes_no_position(
        self, ada: Caller, bob: Caller, database: Database
    ) -> None:
        lamp = (await ada.create_product("Lamp")).json["id"]
        await bob.delete(lamp)
        await bob.send("PATCH", f"/api/products/{lamp}", json={"price": 5})
        await ada.send("PATCH", f"/api/products/{lamp}", json={"price": 9.5})
        await bob.delete(lamp + 1)

        async def create_and_fail(session: AsyncSession) -> None:
            await change_log.record(session, ChangeType.CREATED, [(7, 1)], at=now())
            raise NotFound

        with pytest.raises(NotFound):
            await database.transaction(create_and_fail)

        assert (await run_on(database.connection(), change_counter.current_change)).position == 1

    async def test_account_deletion_logs_each_deleted_product(
        self, ada: Caller, anyone: Caller
    ) -> None:
        ids = [(await ada.create_product(f"Lamp {number}")).json["id"] for number in range(3)]

        await ada.send("DELETE", "/api/auth/me", json={"password": PASSWORD})

        gone = [(each["type"], each["id"]) for each in await followed(anyone, since=3)]
        assert gone == [("deleted", product_id) for product_id in ids]
        assert (await anyone.get("/api/products")).json["products"] == []


class TestMany:
    """Creates of many products, whose rows of the log the database copies from theirs."""

    @pytest.mark.parametrize("count", [1, MANY - 1, MANY, MANY + 1])
    async def test_each_product_is_logged_once_and_in_order(
        self, ada: Caller, anyone: Caller, count: int
    ) -> None:
        first = await ada.create_product("Lamp")
        imported = await ada.import_products(count)
        last = await ada.create_product("Stool")

        shown = (await anyone.get("/api/products?sort=id&limit=1000")).json["products"]
        found = await followed(anyone)
        assert len(found) == count + 2
        for position, (entry, product) in enumerate(zip(found, shown, strict=True), start=1):
            assert (entry["position"], entry["type"], entry["version"]) == (position, "created", 1)
            assert entry["product"] == product
            assert entry["at"] == product["created_at"]
        assert imported.headers["Catalog-Position"] == f"{count + 1}"
        # Only products were created, so all changes are of one era.
        changes = [each.headers["Catalog-Change"] for each in (first, imported, last)]
        assert len({ChangeId.parse(each).token[:ERA_LENGTH] for each in changes}) == 1
        assert len(set(changes)) == 3

    async def test_products_with_gaps_between_their_ids_are_logged(
        self, ada: Caller, anyone: Caller, database: Database
    ) -> None:
        ids = [(await ada.create_product("Lamp")).json["id"] for _ in range(3)]

        async def record(session: AsyncSession) -> None:
            await change_log.record_created(session, [ids[0], ids[2]] * MANY, at=now())

        await database.transaction(record)

        assert [each["id"] for each in await followed(anyone, since=3)] == [ids[0], ids[2]] * MANY


class TestPages:
    async def test_next_page_starts_where_the_last_one_ended(
        self, ada: Caller, anyone: Caller
    ) -> None:
        await at_once(7, lambda number: ada.create_product(f"Lamp {number}"))

        first = (await anyone.get(f"{PATH}?limit=3")).json
        rest = (await anyone.get(f"{PATH}?limit=4&since={first['position']}")).json
        end = (await anyone.get(f"{PATH}?since=7")).json

        assert [each["position"] for each in first["changes"]] == [1, 2, 3]
        assert (first["position"], first["more"]) == (3, True)
        assert [each["position"] for each in rest["changes"]] == [4, 5, 6, 7]
        assert (rest["position"], rest["more"]) == (7, False)
        assert end == {"changes": [], "position": 7, "change": rest["change"], "more": False}

    async def test_end_of_the_log_is_read_by_one_statement(
        self,
        ada: Caller,
        anyone: Caller,
        database: Database,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        await ada.create_product("Lamp")
        sent = noted_reads(database, monkeypatch)

        await anyone.get(f"{PATH}?since=1")
        at_the_end = len(sent)
        await anyone.get(f"{PATH}?since=0")

        assert (at_the_end, len(sent) - at_the_end) == (1, 2)

    @pytest.mark.parametrize(
        "query", ["since=-1", "since=x", "limit=0", "limit=1001", "wait=26", "wait=-1", "after=1"]
    )
    async def test_invalid_parameter_is_refused(self, anyone: Caller, query: str) -> None:
        assert problem_of(await anyone.get(f"{PATH}?{query}")) == (422, "invalid")

    async def test_position_in_the_future_is_gone(self, ada: Caller, anyone: Caller) -> None:
        await ada.create_product("Lamp")

        answer = await anyone.get(f"{PATH}?since=2")

        assert problem_of(answer) == (410, "changes-gone")
        assert "application/x-ndjson" in answer.json["detail"]


class TestRetention:
    async def test_sweep_removes_only_the_expired_beginning_of_the_log(
        self, ada: Caller, anyone: Caller, database: Database
    ) -> None:
        await at_once(6, lambda number: ada.create_product(f"Lamp {number}"))
        # The fifth is too old for its place, as after a clock change: the log must not get a gap.
        aged = update(ProductChange).where(ProductChange.position.in_([1, 2, 3, 5]))
        old = aged.values(at=now() - timedelta(days=31))
        await database.transaction(lambda session: session.execute(old))

        async def sweep() -> int:
            return await database.transaction(change_log.sweep, kept=timedelta(days=30), limit=2)

        assert [await sweep(), await sweep(), await sweep()] == [2, 1, 0]
        assert problem_of(await anyone.get(f"{PATH}?since=2")) == (410, "changes-gone")
        assert [each["position"] for each in await followed(anyone, since=3)] == [4, 5, 6]

    async def test_last_position_is_known_after_all_changes_are_swept(
        self, ada: Caller, anyone: Caller, database: Database
    ) -> None:
        await ada.create_product("Lamp")
        await database.transaction(change_log.sweep, kept=timedelta(0), limit=10)

        assert problem_of(await anyone.get(PATH)) == (410, "changes-gone")
        assert (await anyone.get(f"{PATH}?since=1")).json["changes"] == []
        assert (await ada.create_product("Lamp")).headers["Catalog-Position"] == "2"


class TestBatches:
    async def test_concurrent_creates_share_transactions(
        self, ada: Caller, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes = []
        transaction = database.transaction

        async def noting(work: Any, *args: Any, **kwargs: Any) -> Any:
            if work is write_products:
                sizes.append(len(args[0]))
            return await transaction(work, *args, **kwargs)

        monkeypatch.setattr(database, "transaction", noting)

        answers = await at_once(50, lambda number: ada.create_product(f"Lamp {number}"))

        assert {answer.status_code for answer in answers} == {201}
        assert sum(sizes) == 50
        assert len(sizes) < 25
        by_position = sorted(answers, key=lambda answer: int(answer.headers["Catalog-Position"]))
        assert [int(each.headers["Catalog-Position"]) for each in by_position] == [*range(1, 51)]
        # Each answer also has the last position of its transaction.
        last = list(accumulate(sizes))
        for own, each in enumerate(by_position, start=1):
            batch_position = int(each.headers.get("Catalog-Batch-Position", own))
            assert batch_position == min(end for end in last if end >= own)
        # Each caller got its own product, not a neighbour's in the batch.
        shown = (await ada.get("/api/products?sort=id")).json["products"]
        assert [each.json for each in by_position] == shown
        logged = await followed(ada)
        assert [each["product"] for each in logged] == shown
