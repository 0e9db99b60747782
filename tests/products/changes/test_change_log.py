"""Change log: changes are numbered in commit order, without gaps, and can be followed."""

import asyncio
import random
from datetime import timedelta
from itertools import accumulate
from typing import Any

import pytest
from sqlalchemy import BigInteger, Column, MetaData, Table, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.app import create_app
from catalog.db.columns import now
from catalog.db.database import Database
from catalog.errors import NotFound
from catalog.products.changes import change_log
from catalog.products.changes.following import read_changes
from catalog.products.models import TOKEN_LENGTH, ChangeId, ChangeType, ProductChange
from catalog.products.writes.batch import write_products
from catalog.settings import Settings
from tests.db.support import on_servers, run_on
from tests.products.changes.support import noted_reads
from tests.support import PASSWORD, Caller, at_once, problem_of

PATH = "/api/products/changes"


async def followed(caller: Caller, since: int | str = 0, limit: int = 1000) -> list[dict[str, Any]]:
    """Return all changes after a position, reading page by page."""
    found: list[dict[str, Any]] = []
    while True:
        page = (await caller.get(f"{PATH}?since={since}&limit={limit}")).json
        found += page["changes"]
        since = page["change"]
        if not page["more"]:
            return found


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

    async def test_every_answer_has_its_position(self, ada: Caller, anyone: Caller) -> None:
        empty = await anyone.get("/api/products")
        lamp = await ada.create_product("Lamp")
        path = lamp.headers["Location"]
        read = await anyone.get(path)
        patched = await ada.send("PATCH", path, json={"price": 5})
        unchanged = await ada.send("PATCH", path, json={"price": 5})
        deleted = await ada.send("DELETE", path)
        missing = await anyone.get(path)
        mine = await ada.get("/api/products/my")

        answers = (empty, lamp, read, patched, unchanged, deleted, missing, mine)
        positions = [int(answer.headers["Catalog-Position"]) for answer in answers]
        assert positions == [0, 1, 1, 2, 2, 3, 3, 3]
        cached = await anyone.get("/api/products", headers={"If-None-Match": "*"})
        assert (cached.status_code, cached.headers["Catalog-Position"]) == (304, "3")

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

        assert (await run_on(database.connection(), change_log.current_change)).position == 1

    async def test_account_deletion_logs_each_deleted_product(
        self, ada: Caller, anyone: Caller
    ) -> None:
        ids = [(await ada.create_product(f"Lamp {number}")).json["id"] for number in range(3)]

        await ada.send("DELETE", "/api/auth/me", json={"password": PASSWORD})

        gone = [(each["type"], each["id"]) for each in await followed(anyone, since=3)]
        assert gone == [("deleted", product_id) for product_id in ids]
        assert (await anyone.get("/api/products")).json["products"] == []


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


class TestHistories:
    """Tokens beside the positions, which tell one history from another."""

    async def test_every_answer_has_its_change_id(self, ada: Caller, anyone: Caller) -> None:
        empty = await anyone.get("/api/products")
        lamp = await ada.create_product("Lamp")
        path = lamp.headers["Location"]
        read = await anyone.get(path)
        patched = await ada.send("PATCH", path, json={"price": 5})
        unchanged = await ada.send("PATCH", path, json={"price": 5})
        deleted = await ada.send("DELETE", path)
        missing = await anyone.get(path)
        page = await anyone.get("/api/products")
        export = await anyone.get("/api/products", headers={"Accept": "text/csv"})
        bulk = await ada.post(
            "/api/products", data=b"", headers={"Content-Type": "application/x-ndjson"}
        )
        followed = await anyone.get(PATH)

        answers = (empty, lamp, read, patched, unchanged, deleted, missing, page, export, bulk)
        told = [answer.headers["Catalog-Change"] for answer in answers]
        assert [text.partition(".")[0] for text in told] == [*"0112233333"]
        assert told[0] == "0"
        assert told[2:3] + told[4:5] + told[6:] == [told[1], told[3], *[told[5]] * 4]
        assert len(set(told)) == 4
        assert (followed.headers["Catalog-Change"], followed.json["change"]) == (told[5], told[5])

    async def test_changes_of_one_transaction_share_their_token(
        self, ada: Caller, anyone: Caller
    ) -> None:
        lines = b'{"name":"Lamp","price":1}\n' * 300
        content = {"Content-Type": "application/x-ndjson"}
        last = (await ada.post("/api/products", data=lines, headers=content)).headers

        token = last["Catalog-Change"].partition(".")[2]
        assert len(token) == TOKEN_LENGTH
        for position in (1, 150, 299):
            assert len(await followed(anyone, since=f"{position}.{token}")) == 300 - position

    async def test_change_of_another_history_is_gone(self, ada: Caller, anyone: Caller) -> None:
        told = [(await ada.create_product("Lamp")).headers["Catalog-Change"] for _ in range(3)]

        for position, change in enumerate(told, start=1):
            assert len(await followed(anyone, since=change)) == 3 - position
            for token in ("0" * TOKEN_LENGTH, "x", told[position % 3].partition(".")[2]):
                answer = await anyone.get(f"{PATH}?since={position}.{token}")
                assert problem_of(answer) == (410, "changes-gone"), (position, token)
        # Position 0 is the same in every history.
        assert len(await followed(anyone, since="0.x")) == 3

    async def test_change_whose_token_was_swept_is_gone(
        self, ada: Caller, anyone: Caller, database: Database
    ) -> None:
        told = [(await ada.create_product("Lamp")).headers["Catalog-Change"] for _ in range(2)]
        await database.transaction(change_log.sweep, kept=timedelta(0), limit=1)

        assert problem_of(await anyone.get(f"{PATH}?since={told[0]}")) == (410, "changes-gone")
        assert len(await followed(anyone, since="1")) == 1
        # The token of the last position is also in the counter.
        await database.transaction(change_log.sweep, kept=timedelta(0), limit=1)
        assert (await anyone.get(f"{PATH}?since={told[1]}")).json["changes"] == []
        assert problem_of(await anyone.get(f"{PATH}?since=2.x")) == (410, "changes-gone")

    async def test_changes_written_by_the_previous_release_can_be_followed(
        self, ada: Caller, anyone: Caller, database: Database
    ) -> None:
        first = (await ada.create_product("Lamp")).headers["Catalog-Change"]

        async def change(session: AsyncSession) -> None:
            await session.execute(text("UPDATE change_counter SET position = position + 1"))
            await session.execute(
                text(
                    "INSERT INTO product_changes (position, type, product_id, version, at)"
                    " SELECT 2, type, product_id, 2, at FROM product_changes"
                )
            )

        await database.transaction(change)
        second = (await anyone.get("/api/products")).headers["Catalog-Change"]
        third = (await ada.create_product("Lamp")).headers["Catalog-Change"]

        assert second.partition(".")[0] == "2"
        left = [len(await followed(anyone, since=since)) for since in (first, second, third)]
        assert left == [2, 1, 0]

    async def test_cached_page_is_not_served_for_the_same_position_of_another_history(
        self, ada: Caller, anyone: Caller, database: Database
    ) -> None:
        await ada.create_product("Lamp")
        await anyone.get("/api/products")

        async def restore(session: AsyncSession) -> None:
            await session.execute(text("UPDATE products SET price = 7"))
            await session.execute(text("UPDATE change_counter SET token = 'other'"))

        await database.transaction(restore)
        page = await anyone.get("/api/products")

        assert page.headers["Catalog-Change"] == "1.other"
        assert page.json["products"][0]["price"] == 7

    @pytest.mark.parametrize(
        "since", ["1.", ".x", "1.x.y", "1.%C3%A9", f"{2**63}", "1." + "x" * 33]
    )
    async def test_malformed_change_id_is_refused(self, anyone: Caller, since: str) -> None:
        answer = await anyone.get(f"{PATH}?since={since}")

        assert problem_of(answer) == (422, "invalid")


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
            await ada.get(f"{PATH}?since=0"),
            await ada.create_product("Rug"),
            await ada.delete(1),
        ]
        assert [problem_of(answer) for answer in asked] == [(503, "database-unavailable")] * 6
