"""Lifetime of cached pages: changes that do not affect a page leave it in the cache.

Each test compares pages that a process has cached with those that another one reads anew.
"""

from datetime import timedelta

import orjson
import pytest
from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.db.columns import now
from catalog.db.database import Database
from catalog.products.changes import change_log
from catalog.products.models import ChangeCounter, ChangeType, Product
from catalog.products.schemas import PATH
from tests.db.support import on_servers
from tests.products.listing.other_process import Other
from tests.products.listing.reads import Reads
from tests.products.listing.writers import Writers
from tests.support import PASSWORD, Caller

LIMIT = 5


@pytest.fixture
async def deep(other: Other, ids: list[int]) -> dict[str, str]:
    """Return the parameters of the third page, which is cached."""
    assert len(ids) > 3 * LIMIT
    deep = (await other.walk(2, limit=str(LIMIT)))[-1]
    await other.read(**deep)
    return deep


class TestUnaffectedPages:
    async def test_deep_page_outlives_changes_of_other_pages(
        self, other: Other, deep: dict[str, str], ada: Caller, ids: list[int], reads: Reads
    ) -> None:
        before = await other.read(**deep)
        reads.clear()

        for change in (
            ada.create_product("New"),
            ada.send("PATCH", f"{PATH}/{ids[0]}", json={"name": "Other"}),
            ada.delete(ids[1]),
            ada.send("PATCH", f"{PATH}/{ids[-1]}", json={"price": 7}),
            ada.delete(ids[-2]),
            ada.delete(ids[3 * LIMIT + 1]),
        ):
            position = (await change).headers["Catalog-Position"]
            page = await other.read(**deep)
            assert page.body == before.body
            # The response says that it includes the change.
            assert page.reply.headers["Catalog-Position"] == position
            assert page.reply.headers["Catalog-Change"].startswith(f"{position}.")
            assert page.reply.headers["ETag"] == before.reply.headers["ETag"]
        assert reads.pages == 0

    @pytest.mark.parametrize("place", [2 * LIMIT, 2 * LIMIT + 1, 3 * LIMIT - 1, 3 * LIMIT])
    @pytest.mark.parametrize("is_deleted", [True, False])
    async def test_change_of_a_product_on_the_page_or_behind_it_is_shown(
        self,
        other: Other,
        deep: dict[str, str],
        ada: Caller,
        ids: list[int],
        reads: Reads,
        place: int,
        is_deleted: bool,
    ) -> None:
        await other.read(**deep)
        reads.clear()

        if is_deleted:
            await ada.delete(ids[place])
        else:
            await ada.send("PATCH", f"{PATH}/{ids[place]}", json={"name": "Other"})

        page = await other.read(**deep)
        assert reads.pages == 1
        assert page.body == (await other.read_anew(**deep)).body

    async def test_last_page_loses_its_next_link_with_the_product_behind_it(
        self, other: Other, ada: Caller, ids: list[int]
    ) -> None:
        # A page of all but the oldest product.
        first = {"limit": str(len(ids) // 2)}
        (deep,) = await other.walk(1, **first)
        deep["limit"] = str(len(ids) // 2 - 1)
        before = await other.read(**deep)
        assert orjson.loads(before.body)["next"] is not None

        await ada.delete(ids[-1])

        assert orjson.loads((await other.read(**deep)).body)["next"] is None

    @pytest.mark.usefixtures("ids")
    async def test_ascending_page_outlives_creates(
        self, other: Other, ada: Caller, reads: Reads
    ) -> None:
        given = {"sort": "id", "limit": str(LIMIT)}
        before = await other.read(**given)
        reads.clear()

        await ada.create_product("New")

        assert (await other.read(**given)).body == before.body
        assert reads.pages == 0

    async def test_deep_page_outlives_the_deletion_of_another_account(
        self, other: Other, deep: dict[str, str], ada: Caller, bob: Caller, reads: Reads
    ) -> None:
        for number in range(3):
            await bob.create_product(f"Stool {number}")
        before = await other.read(**deep)
        reads.clear()

        await bob.send("DELETE", "/api/auth/me", json={"password": PASSWORD})

        assert (await other.read(**deep)).body == before.body
        assert reads.pages == 0
        await ada.send("DELETE", "/api/auth/me", json={"password": PASSWORD})
        assert orjson.loads((await other.read(**deep)).body)["products"] == []

    async def test_search_and_chosen_products_outlive_changes_elsewhere(
        self, other: Other, ada: Caller, ids: list[int], reads: Reads
    ) -> None:
        search = {"q": "lamp", "limit": str(LIMIT)}
        chosen = {"ids": f"{ids[7]},{ids[9]}"}
        await other.read(**search)
        await other.read(**chosen)
        reads.clear()

        await ada.send("PATCH", f"{PATH}/{ids[20]}", json={"name": "Lamp"})
        await other.read(**search)
        await other.read(**chosen)
        assert reads.pages == 0

        await ada.create_product("Another lamp")
        await other.read(**chosen)
        assert reads.pages == 0
        page = await other.read(**search)
        assert orjson.loads(page.body)["products"][0]["name"] == "Another lamp"

    @pytest.mark.parametrize(
        "given",
        [{"sort": "name"}, {"sort": "-price"}, {"total": "true", "sort": "id"}],
        ids=["name", "price", "total"],
    )
    async def test_pages_in_other_orders_and_totals_follow_each_change(
        self, other: Other, ada: Caller, ids: list[int], given: dict[str, str]
    ) -> None:
        given |= {"limit": str(LIMIT)}
        await other.read(**given)

        await ada.send("PATCH", f"{PATH}/{ids[30]}", json={"name": "A", "price": 1e9})
        await ada.create_product("AA")

        assert (await other.read(**given)).body == (await other.read_anew(**given)).body

    async def test_page_is_read_again_when_the_log_no_longer_reaches_back(
        self,
        other: Other,
        deep: dict[str, str],
        ada: Caller,
        ids: list[int],
        database: Database,
    ) -> None:
        await other.read(**deep)
        await ada.delete(ids[2 * LIMIT])
        await ada.create_product("New")

        async def sweep(session: AsyncSession) -> None:
            await change_log.sweep(session, kept=timedelta(seconds=-1), limit=1000)

        await database.transaction(sweep)

        assert (await other.read(**deep)).body == (await other.read_anew(**deep)).body

    async def test_page_is_read_again_when_a_position_was_taken_by_hand(
        self,
        other: Other,
        deep: dict[str, str],
        ada: Caller,
        ids: list[int],
        database: Database,
    ) -> None:
        await other.read(**deep)

        async def rename(session: AsyncSession) -> None:
            product = update(Product).where(Product.id == ids[2 * LIMIT])
            await session.execute(product.values(name="Other"))
            taken = ChangeCounter.position + 1
            await session.execute(update(ChangeCounter).values(position=taken))

        await database.transaction(rename)

        assert (await other.read(**deep)).body == (await other.read_anew(**deep)).body
        await ada.create_product("New")
        assert (await other.read(**deep)).body == (await other.read_anew(**deep)).body

    @pytest.mark.usefixtures("ids")
    async def test_own_commit_leaves_deep_pages(
        self, ada: Caller, anyone: Caller, reads: Reads
    ) -> None:
        # Pages that were cached before the first commit are read once more.
        after = (await anyone.get(f"{PATH}?limit=5")).json["next"]
        for name in ("First", "Second"):
            await ada.create_product(name)
            before = await anyone.get(after)
        reads.clear()

        await ada.create_product("Third")

        assert (await anyone.get(after)).body == before.body
        assert reads.pages == 0
        assert (await anyone.get(f"{PATH}?limit=5")).json["products"][0]["name"] == "Third"

    @on_servers
    @pytest.mark.usefixtures("ids")
    async def test_product_whose_id_is_older_than_its_commit_is_shown(
        self, other: Other, ada: Caller, database: Database
    ) -> None:
        async def insert_late(session: AsyncSession) -> dict[str, str]:
            """Insert a product, and let others commit newer ones before it."""
            instant = now()
            values = {"name": "Late", "price": 1.0, "user_id": ada.user_id, "version": 1}
            values |= {"created_at": instant, "updated_at": instant}
            inserted = await session.execute(insert(Product).values(values))
            late: int = inserted.inserted_primary_key[0]  # type: ignore[attr-defined]
            for name in ("Newer", "Newest"):
                await ada.create_product(name)
            (given,) = await other.walk(1, limit="1")
            await other.read(**given)
            assert orjson.loads((await other.read(**given)).body)["products"][0]["id"] > late - 1
            await change_log.record(session, ChangeType.CREATED, [(late, 1)], at=instant)
            return given

        given = await database.transaction(insert_late)

        assert (await other.read(**given)).body == (await other.read_anew(**given)).body


QUERIES: list[dict[str, str]] = [
    {"limit": "5"},
    {"limit": "5", "sort": "id"},
    {"limit": "5", "min_price": "3", "fields": "id,price"},
    {"limit": "5", "q": "lamp"},
    {"limit": "5", "sort": "id", "q": "lamp", "max_price": "40"},
]
ROUNDS = 40


async def mismatches(other: Other, writers: Writers) -> tuple[int, int]:
    """Write and read in turn; return the numbers of stale pages and of all."""
    await writers.create_for_another()
    # Pages of more than 100 products are not read together with others.
    pages = [{"limit": "150"}]
    for query in QUERIES:
        pages += [query, *await other.walk(4, **query)]
    stale = count = 0
    for number in range(ROUNDS):
        await (writers.delete_account() if number == ROUNDS // 2 else writers.write())
        for given in writers.random.sample(pages, 8):
            page, current = await other.read(**given), await other.read_anew(**given)
            count += 1
            stale += page.body != current.body
            assert page.change == current.change
    return stale, count


class TestCachingDuringWrites:
    @pytest.mark.parametrize("seed", [1, 2])
    async def test_cached_pages_equal_those_of_the_database(
        self,
        other: Other,
        ada: Caller,
        bob: Caller,
        ids: list[int],
        reads: Reads,
        seed: int,
    ) -> None:
        stale, count = await mismatches(other, Writers(ada, bob, ids, seed))

        assert stale == 0
        # Each page is read anew once for comparison. Otherwise the test would say nothing about
        # pages that outlive changes.
        assert reads.pages - count < count * 0.8

    @pytest.mark.parametrize("kind", list(ChangeType))
    async def test_control_pages_are_stale_if_a_kind_of_change_is_ignored(
        self,
        other: Other,
        ada: Caller,
        bob: Caller,
        ids: list[int],
        monkeypatch: pytest.MonkeyPatch,
        kind: ChangeType,
    ) -> None:
        writers = Writers(ada, bob, ids, 1)
        writers.hide(kind, monkeypatch)

        stale, _ = await mismatches(other, writers)

        assert stale > 0
