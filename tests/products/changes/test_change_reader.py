"""Pages of the change log: requests share reads, and each sees every change acknowledged before."""

import asyncio
from typing import Any

import orjson
import pytest

from catalog.db.database import Database
from catalog.errors import ChangesGone
from catalog.products.changes.change_ids import ChangeId
from catalog.products.changes.change_reader import ChangeReader, ChangesReply, page_reply
from catalog.products.changes.log_reader import Entry, read_changes
from tests.products.changes.support import noted_reads
from tests.support import Caller


def content_of(found: ChangesReply) -> Any:
    body = found.reply.body
    assert isinstance(body, bytes)
    return orjson.loads(body)


class TestRead:
    async def test_page_has_the_changes_of_the_log(self, ada: Caller, database: Database) -> None:
        for number in range(5):
            await ada.create_product(f"Lamp {number}")

        found = await ChangeReader(database).read(ChangeId(1), 3)

        async with database.connection() as connection:
            logged = await read_changes(connection, since=ChangeId(1), limit=3)
        assert content_of(found) == {
            "changes": [orjson.loads(entry.json) for entry in logged.entries],
            "position": 4,
            "change": str(logged.last),
            "more": True,
        }
        assert (found.is_empty, found.last) == (False, logged.last)

    async def test_equal_requests_share_a_read_and_others_the_head(
        self, ada: Caller, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(3):
            await ada.create_product(f"Lamp {number}")
        reader = ChangeReader(database)
        await reader.read(ChangeId(0), 1)
        statements = noted_reads(database, monkeypatch)

        found = await asyncio.gather(
            *(reader.read(ChangeId(since), 2) for since in (0, 1, 3) for _ in range(20))
        )

        assert [content_of(each)["position"] for each in found] == [2] * 20 + [3] * 40
        assert len({id(each.reply) for each in found}) == 3
        # The first read may begin before the others are requested; each reads the head.
        assert len(statements) <= 4

    async def test_equal_changes_have_one_reply(self) -> None:
        # Equal objects, as from the feed; their clients hold the reply until they have read it.
        entries = [Entry(ChangeId(number, "a"), b"%d.a" % number, b"{}") for number in (1, 2)]

        replies = [page_reply([*entries], ChangeId(0), more=False) for _ in range(3)]
        others = [
            page_reply(entries, ChangeId(0), more=True),
            page_reply([entries[0], entries[1]._replace(json=b"[]")], ChangeId(0), more=False),
        ]

        assert len({id(reply) for reply in replies}) == 1
        assert len({reply.body for reply in (replies[0], *others)}) == 3

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

    async def test_read_of_a_swept_position_fails_without_failing_others(
        self, ada: Caller, database: Database
    ) -> None:
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
        assert isinstance(found, ChangesReply)
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
