"""Pages of the change log: requests share reads, and each sees every change acknowledged before."""

import asyncio
from typing import Any

import orjson
from sqlalchemy import event

from catalog.db.database import Database
from catalog.errors import ChangesGone
from catalog.products.changes import change_log
from catalog.products.changes.change_reader import ChangeReader, FoundChanges
from catalog.products.changes.feed import entries_of
from catalog.products.models import ChangeId
from catalog.products.queries import FEW_ROWS
from tests.support import Caller


def content_of(found: FoundChanges) -> Any:
    body = found.reply.body
    assert isinstance(body, bytes)
    return orjson.loads(body)


class TestRead:
    async def test_page_has_the_changes_of_the_log(self, ada: Caller, database: Database) -> None:
        for number in range(5):
            await ada.create_product(f"Lamp {number}")

        found = await ChangeReader(database).read(ChangeId(1), 3)

        async with database.connection() as connection:
            logged = await change_log.read_changes(connection, since=ChangeId(1), limit=3)
        assert content_of(found) == {
            "changes": [orjson.loads(entry.json) for entry in entries_of(logged)],
            "position": 4,
            "change": str(logged.last),
            "more": True,
        }
        assert (found.is_empty, found.last) == (False, logged.last)

    async def test_equal_requests_share_a_read_and_others_the_head(
        self, ada: Caller, database: Database
    ) -> None:
        for number in range(3):
            await ada.create_product(f"Lamp {number}")
        reader = ChangeReader(database)
        await reader.read(ChangeId(0), 1)
        statements: list[str] = []

        def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
            statements.append(statement)

        engine = database.engines[0].sync_engine
        event.listen(engine, "before_cursor_execute", note)
        try:
            found = await asyncio.gather(
                *(reader.read(ChangeId(since), 2) for since in (0, 1, 3) for _ in range(20))
            )
        finally:
            event.remove(engine, "before_cursor_execute", note)

        assert [content_of(each)["position"] for each in found] == [2] * 20 + [3] * 40
        assert len({id(each.reply) for each in found}) == 3
        # Two for the pages that have changes; the head is not counted where it bypasses the driver.
        assert len(statements) <= 2 * 3

    async def test_request_during_a_read_sees_what_was_acknowledged_before_it(
        self, ada: Caller, database: Database
    ) -> None:
        reader = ChangeReader(database)
        for position in range(1, 30):
            earlier = [asyncio.create_task(reader.read(ChangeId(0), 100)) for _ in range(3)]
            await asyncio.sleep(0)
            await ada.create_product("Lamp")

            assert content_of(await reader.read(ChangeId(0), 100))["position"] == position
            await asyncio.gather(*earlier)

    async def test_one_that_is_gone_fails_alone(self, ada: Caller, database: Database) -> None:
        await ada.create_product("Lamp")
        reader = ChangeReader(database)

        gone, other_history, found = await asyncio.gather(
            reader.read(ChangeId(9), 2),
            reader.read(ChangeId(1, "0000000000"), 2),
            reader.read(ChangeId(0), 2),
            return_exceptions=True,
        )

        assert isinstance(gone, ChangesGone)
        assert isinstance(other_history, ChangesGone)
        assert isinstance(found, FoundChanges)
        assert content_of(found)["position"] == 1

    async def test_head_has_no_changes(self, ada: Caller, database: Database) -> None:
        await ada.create_product("Lamp")

        found = await ChangeReader(database).read(ChangeId(1), 2)

        assert found.is_empty
        assert content_of(found) == {
            "changes": [],
            "position": 1,
            "change": str(found.last),
            "more": False,
        }


class TestBound:
    async def test_few_changes_are_cut_as_many_are(self, ada: Caller, database: Database) -> None:
        for number in range(4):
            await ada.create_product(f"Lämp {number}", description="\U0001f4a1" * number or None)
        assert (await ada.delete(2)).status_code == 200

        for max_bytes in (0, 6, 7, 8, 14, 15, 20, 1000):
            async with database.connection() as connection:
                few, many = [
                    await change_log.read_changes(
                        connection, since=ChangeId(0), limit=limit, max_bytes=max_bytes
                    )
                    for limit in (FEW_ROWS, FEW_ROWS + 1)
                ]
            assert few == many
        assert len(few.ids) == 5
