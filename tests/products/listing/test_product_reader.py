"""Product reader: requests share round trips, and each sees every write acknowledged before it."""

import asyncio
from dataclasses import replace
from itertools import cycle
from typing import Any

import orjson
import pytest

from catalog.db.batch_reader import MAX_BATCH
from catalog.db.database import Database
from catalog.errors import DatabaseBusy, NotFound
from catalog.products import service
from catalog.products.listing import product_reader
from catalog.products.listing.product_reader import ProductReader
from catalog.products.models import MAX_DESCRIPTION, NewProduct
from catalog.products.schemas import PATH
from tests.products.awkward_values import PRICES, TEXTS
from tests.support import Caller, at_once, problem_of

SMILE = "\U0001f600"


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Return the ids of each round trip, as they are read."""
    batches: list[list[int]] = []
    read_products = product_reader.read_products

    async def noted(connection: Any, ids: Any) -> Any:
        batches.append(list(ids))
        return await read_products(connection, ids)

    monkeypatch.setattr(product_reader, "read_products", noted)
    return batches


async def insert_some(database: Database, owner: Caller, count: int, **values: Any) -> list[int]:
    """Insert products, and return their ids."""
    new_products = [
        NewProduct(f"Lamp {n}", values.get("description"), n / 3, owner.user_id or 0)
        for n in range(count)
    ]
    return (await database.transaction(service.insert_products, new_products)).ids


def shown(reply: Any) -> dict[str, Any]:
    product: dict[str, Any] = orjson.loads(reply.body)
    return product


class TestRead:
    async def test_concurrent_reads_share_round_trips(
        self, ada: Caller, database: Database, batches: list[list[int]]
    ) -> None:
        ids = await insert_some(database, ada, 100)
        reader = ProductReader(database)

        replies = await asyncio.gather(*(reader.read(each) for each in ids * 3))

        assert [shown(each)["id"] for each in replies] == ids * 3
        assert sorted(each for batch in batches for each in batch) == ids
        assert max(map(len, batches)) <= MAX_BATCH
        assert len(batches) < len(ids) // 5

    async def test_product_equals_that_of_the_list(
        self, ada: Caller, anyone: Caller, database: Database
    ) -> None:
        await insert_some(database, ada, 5)
        await insert_some(database, ada, 2, description=f'"{SMILE}\\ =\x01\n')
        await insert_some(database, ada, 1, description="")
        listed = (await anyone.get(f"{PATH}?sort=id")).json["products"]

        answers = await at_once(
            len(listed), lambda number: anyone.get(f"{PATH}/{listed[number]['id']}")
        )

        assert [each.json for each in answers] == listed
        assert {each.headers["Catalog-Position"] for each in answers} == {"8"}

    async def test_body_and_tag_are_those_of_the_write(self, ada: Caller, anyone: Caller) -> None:
        texts = (*TEXTS, '"version":7,', '{"version":7,', "version")
        prices = cycle(PRICES)

        for text in texts:
            fields = {"name": f"Lamp {text}", "description": text, "price": next(prices)}
            created = await ada.post(PATH, json=fields)
            read = await anyone.get(f"{PATH}/{created.json['id']}")
            assert (read.body, read.headers["ETag"]) == (created.body, created.headers["ETag"])
            changes = {"price": next(prices)}
            changed = await ada.send("PATCH", f"{PATH}/{created.json['id']}", json=changes)
            read = await anyone.get(f"{PATH}/{created.json['id']}")
            assert (read.body, read.headers["ETag"]) == (changed.body, changed.headers["ETag"])

    async def test_longest_products_share_a_round_trip(
        self, ada: Caller, database: Database, batches: list[list[int]]
    ) -> None:
        ids = await insert_some(database, ada, 40, description=SMILE * MAX_DESCRIPTION)
        reader = ProductReader(database)

        replies = await asyncio.gather(*(reader.read(each) for each in ids))

        assert [shown(each)["id"] for each in replies] == ids
        assert {len(shown(each)["description"]) for each in replies} == {MAX_DESCRIPTION}
        assert max(map(len, batches)) > 20

    async def test_missing_product_fails_alone_with_the_position(
        self, ada: Caller, database: Database
    ) -> None:
        ids = await insert_some(database, ada, 3)
        reader = ProductReader(database)
        asked = [ids[0], ids[2] + 1, ids[2], 2**63 - 1]

        replies = await asyncio.gather(
            *(reader.read(each) for each in asked * 10), return_exceptions=True
        )

        for number, reply in zip(asked * 10, replies, strict=True):
            if number in ids:
                assert shown(reply)["id"] == number
            else:
                assert isinstance(reply, NotFound)
                assert reply.headers["Catalog-Position"] == "3"

    async def test_read_after_a_write_joins_no_earlier_read(
        self, ada: Caller, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (product_id,) = await insert_some(database, ada, 1)
        has_read, may_end = asyncio.Event(), asyncio.Event()
        read_products = product_reader.read_products

        async def slow(connection: Any, ids: Any) -> Any:
            found = await read_products(connection, ids)
            has_read.set()
            await may_end.wait()
            return found

        monkeypatch.setattr(product_reader, "read_products", slow)
        reader = ProductReader(database)
        before = asyncio.create_task(reader.read(product_id))
        await has_read.wait()
        changed = (await ada.send("PATCH", f"{PATH}/{product_id}", json={"price": 5})).json

        after = asyncio.create_task(reader.read(product_id))
        await asyncio.sleep(0)
        may_end.set()

        assert shown(await before)["version"] == 1
        assert shown(await after) == changed

    async def test_known_product_is_answered_304(self, ada: Caller, anyone: Caller) -> None:
        lamp = await ada.create_product("Lamp")
        path, etag = lamp.headers["Location"], lamp.headers["ETag"]

        known = await anyone.get(path, headers={"If-None-Match": etag})
        await ada.send("PATCH", path, json={"price": 5})
        changed = await anyone.get(path, headers={"If-None-Match": etag})

        assert (known.status_code, known.body, known.headers["ETag"]) == (304, b"", etag)
        assert (changed.status_code, changed.json["version"]) == (200, 2)

    async def test_deleted_product_is_not_found_at_once(self, ada: Caller, anyone: Caller) -> None:
        path = (await ada.create_product("Lamp")).headers["Location"]
        assert (await anyone.get(path)).status_code == 200

        await ada.send("DELETE", path)

        assert problem_of(await anyone.get(path)) == (404, "not-found")

    async def test_read_that_waits_too_long_is_refused(
        self, ada: Caller, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (product_id,) = await insert_some(database, ada, 1)
        monkeypatch.setattr(database, "deadlines", replace(database.deadlines, checkout=-1.0))

        with pytest.raises(DatabaseBusy):
            await ProductReader(database).read(product_id)
