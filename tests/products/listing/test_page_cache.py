"""Page cache: shared reads and cache hits show every write committed before the request."""

import asyncio
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson
import pytest
from quart import Quart

from catalog.concurrency.batch_loader import MAX_BATCH
from catalog.db.database import Database
from catalog.errors import DatabaseUnavailable, Overloaded
from catalog.fastpath.response import Response
from catalog.products.changes import change_counter
from catalog.products.listing.page_cache import PageCache, RenderedPage
from catalog.products.listing.page_request import PageRequest
from catalog.products.schemas import PATH
from tests.db.support import Open
from tests.numbers import Change
from tests.products.listing.filling import fill
from tests.products.listing.page_requests import page_request
from tests.products.listing.reads import Reads
from tests.support import Caller, at_once, memory_traced


class TestLists:
    async def test_concurrent_requests_share_a_few_queries(
        self, ada: Caller, anyone: Caller, reads: Reads
    ) -> None:
        await ada.create_product("Lamp")
        reads.clear()

        answers = await at_once(100, lambda _: anyone.get(PATH))

        assert {answer.body for answer in answers} == {answers[0].body}
        assert [each["name"] for each in answers[0].json["products"]] == ["Lamp"]
        assert reads.pages <= 3

    async def test_cached_page_is_served_until_a_change(
        self, ada: Caller, anyone: Caller, reads: Reads
    ) -> None:
        lamp = await ada.create_product("Lamp")
        first = await anyone.get(PATH)
        reads.clear()

        for _ in range(3):
            assert (await anyone.get(PATH)).body == first.body
        assert (reads.pages, reads.positions) == (0, 3)

        changed = await ada.send("PATCH", f"{PATH}/{lamp.json['id']}", json={"price": 2})
        second = await anyone.get(PATH)
        assert changed.status_code == 200
        assert second.json["products"][0]["price"] == 2
        assert second.headers["ETag"] != first.headers["ETag"]

        assert (await ada.delete(lamp.json["id"])).status_code == 200
        assert (await anyone.get(PATH)).json["products"] == []

    async def test_pages_of_different_callers_and_queries_are_kept_apart(
        self, ada: Caller, bob: Caller, anyone: Caller
    ) -> None:
        await ada.create_product("Lamp", price=1)
        await bob.create_product("Chair", price=2)

        async def names(caller: Caller, path: str) -> list[str]:
            return [each["name"] for each in (await caller.get(path)).json["products"]]

        for _ in range(2):
            assert await names(ada, f"{PATH}/my") == ["Lamp"]
            assert await names(bob, f"{PATH}/my") == ["Chair"]
            assert await names(anyone, PATH) == ["Chair", "Lamp"]
            assert await names(anyone, f"{PATH}?sort=id") == ["Lamp", "Chair"]
            assert await names(anyone, f"{PATH}?min_price=2") == ["Chair"]
            assert await names(ada, f"{PATH}?limit=1&sort=id") == ["Lamp"]


class TestCache:
    async def test_least_recently_used_page_is_evicted_first(
        self, app: Quart, ada: Caller, database: Database, reads: Reads
    ) -> None:
        await fill(database, ada)
        size = (await PageCache(database).read(page_request(app, limit="5"))).size
        pages = PageCache(database, max_bytes=4 * size + size // 2)
        reads.clear()

        async def read(min_price: str) -> RenderedPage:
            return await pages.read(page_request(app, limit="5", min_price=min_price))

        for min_price in ("0", "0.1", "0.2", "0.3", "0", "0.4"):
            await read(min_price)
        assert reads.pages == 5

        await read("0")
        assert reads.pages == 5
        await read("0.1")
        assert reads.pages == 6

    async def test_oversized_page_evicts_no_other(
        self, app: Quart, ada: Caller, database: Database, reads: Reads
    ) -> None:
        await fill(database, ada)
        pages = PageCache(database, max_bytes=4 * 4500)
        small, large = page_request(app, limit="1"), page_request(app)
        reads.clear()

        for _ in range(3):
            assert (await pages.read(small)).size < 4500
            assert (await pages.read(large)).size > 4500

        assert reads.pages == 1 + 3

    @pytest.mark.parametrize("others", [0, 40, 180])
    async def test_size_covers_the_memory_that_is_taken(
        self, app: Quart, ada: Caller, database: Database, others: int
    ) -> None:
        await fill(database, ada)
        pages = PageCache(database)
        missing = [str(10**18 + number) for number in range(others)]
        requests = [
            page_request(app, limit="1", ids=",".join(["1", "2", str(number), *missing]))
            for number in range(1000, 1420)
        ]

        async def read(request: PageRequest) -> int:
            page = await pages.read(request)
            assert Response(page.reply, own=[], is_private=False).head(
                is_last=False, keeps_old_alive=False
            )
            return page.size

        for request in requests[:20]:
            await read(request)
        with memory_traced() as grown:
            size = sum([await read(request) for request in requests[20:]])

        # Requests and their keys are there already.
        held = grown() + sum(len(request.query_string) for request in requests[20:])
        assert 0.9 * held < size < 1.5 * held

    async def test_cached_page_is_read_again_after_an_outage(
        self,
        app: Quart,
        ada: Caller,
        database: Database,
        monkeypatch: pytest.MonkeyPatch,
        reads: Reads,
    ) -> None:
        await fill(database, ada)
        pages = PageCache(database)
        await pages.read(page_request(app))

        async def away(*_: Any) -> Any:
            raise DatabaseUnavailable

        with monkeypatch.context() as patch:
            patch.setattr(change_counter, "current_change", away)
            with pytest.raises(DatabaseUnavailable):
                await pages.read(page_request(app))
        reads.clear()
        await pages.read(page_request(app))

        assert reads.pages > 0

    async def test_page_outlives_a_change_elsewhere(
        self, app: Quart, ada: Caller, database: Database, reads: Reads
    ) -> None:
        await fill(database, ada)
        pages = PageCache(database)
        first = await pages.read(page_request(app, sort="id", limit="3"))
        created = await ada.create_product("Lamp")
        reads.clear()

        again = await pages.read(page_request(app, sort="id", limit="3"))

        assert (again.body, again.change.position) == (first.body, created.json["id"])
        assert reads.pages == 0

    async def test_results_are_counted(
        self, app: Quart, anyone: Caller, database: Database
    ) -> None:
        pages, change = PageCache(database), await Change.since_now(anyone)

        await asyncio.gather(*(pages.read(page_request(app)) for _ in range(3)))
        await pages.read(page_request(app))

        counts = [await change.of("pages_total", result=each) for each in ("miss", "shared", "hit")]
        assert counts == [1, 2, 1]


class TestDemand:
    @pytest.mark.parametrize(("reads", "expected"), [(1, False), (2, True)])
    async def test_demand_covers_the_reads_before_and_since_the_last_commit(
        self, app: Quart, database: Database, reads: int, expected: bool
    ) -> None:
        pages = PageCache(database)
        assert not pages.is_in_demand()

        for _ in range(reads):
            await pages.read(page_request(app))

        assert pages.is_in_demand() is expected
        pages.note_commit()
        assert pages.is_in_demand() is expected
        pages.note_commit()
        assert not pages.is_in_demand()


class TestBatching:
    async def test_batched_pages_equal_pages_read_alone(
        self, app: Quart, ada: Caller, database: Database, opened: Open, reads: Reads
    ) -> None:
        await fill(database, ada)
        database = opened()
        alone = PageCache(database)
        requests = [
            page_request(app, **({"limit": str(limit), "sort": sort} | more))
            for limit in (1, 3, 20, 21)
            for sort in ("id", "-price", "name", "created_at")
            for more in (
                {},
                {"min_price": "0.5"},
                {"min_price": "5"},
                {"total": "true"},
                {"q": "7"},
            )
        ]
        for limit in ("2", "5"):
            for sort in ("id", "-created_at"):
                page = await alone.read(page_request(app, limit=limit, sort=sort))
                given = dict(parse_qsl(urlsplit(orjson.loads(page.body)["next"]).query))
                requests.append(page_request(app, **given))
        expected = [(await alone.read(each)).body for each in requests]
        light = sum(each.is_light for each in requests)
        reads.clear()

        together = PageCache(database, max_reads=len(requests))
        found = await asyncio.gather(*map(together.read, requests))

        assert [page.body for page in found] == expected
        assert {page.change.position for page in found} == {20}
        assert reads.pages < len(requests) - light + 2 * light / MAX_BATCH + 5

    async def test_expensive_pages_are_not_light(self, app: Quart) -> None:
        assert not page_request(app, q="lamp").is_light
        assert not page_request(app, total="true").is_light
        assert page_request(app, sort="price", max_price="2").is_light


class TestOverload:
    async def test_page_beyond_the_bound_is_refused_at_once(
        self, app: Quart, ada: Caller, database: Database
    ) -> None:
        await fill(database, ada)
        pages = PageCache(database, max_reads=4)

        answers = await asyncio.gather(
            *(
                pages.read(page_request(app, limit=str(limit)))
                for limit in (1, 2, 3, 4, 5, 6, 1, 2)
            ),
            return_exceptions=True,
        )

        refused = [isinstance(answer, Overloaded) for answer in answers]
        assert refused == [False] * 4 + [True] * 2 + [False] * 2
        await pages.read(page_request(app, limit="5"))
