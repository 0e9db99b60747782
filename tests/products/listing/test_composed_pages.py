"""Pages composed of cached products equal those that are read anew, whatever changes meanwhile.

Pages begin at any product and have any size, so most of them are requested once.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from quart import Quart
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.db.database import Database
from catalog.products.changes import change_counter
from catalog.products.changes.change_ids import ChangeId
from catalog.products.listing import page_cache
from catalog.products.listing.page_cache import RenderedPage
from catalog.products.listing.page_reader import Page
from catalog.products.listing.page_request import PageRequest
from catalog.products.models import ChangeCounter, ChangeType, Product
from catalog.products.schemas import PATH
from tests.db.support import on_sqlite
from tests.products.listing.other_process import Other
from tests.products.listing.reads import Reads
from tests.products.listing.writers import Writers
from tests.support import Caller

ROUNDS = 40
SORTS = ("-id", "id")

Given = dict[str, str]
Act = Callable[[], Awaitable[object]]


@pytest.fixture
async def positions(app: Quart, database: Database, ids: list[int]) -> dict[str, list[Given]]:
    """Return the parameters of pages after each product but the last, by their order."""
    walker = Other(app, database)
    return {sort: await walker.walk(len(ids) - 1, limit="1", sort=sort) for sort in SORTS}


async def read_all(other: Other, positions: dict[str, list[Given]]) -> None:
    """Read all products but the newest, in pages of ten, so that they are cached."""
    for given in positions["-id"][::10]:
        await other.read(**given | {"limit": "10"})


@pytest.fixture
async def outdated(
    other: Other, positions: dict[str, list[Given]], ada: Caller, ids: list[int]
) -> Given:
    """Return the parameters of a page that is cached with its products, and has changed since."""
    await read_all(other, positions)
    given = positions["-id"][5] | {"limit": "9"}
    # The page is cached when it is composed again.
    for _ in range(2):
        await other.read(**given)
    await ada.send("PATCH", f"{PATH}/{ids[8]}", json={"name": "Other"})
    return given


class TestComposedPages:
    @pytest.mark.parametrize("fields", [{}, {"fields": "price,id"}], ids=["all", "some"])
    @pytest.mark.parametrize("sort", SORTS)
    async def test_pages_of_cached_products_are_not_read(
        self,
        other: Other,
        positions: dict[str, list[Given]],
        reads: Reads,
        sort: str,
        fields: Given,
    ) -> None:
        await read_all(other, positions)
        reads.clear()

        # The greatest ids are on the page of the newest, which is not cached for others.
        chosen = [
            given | {"limit": str(1 + place % 11)} | fields
            for place, given in enumerate(positions[sort][:-13])
        ]
        composed = [await other.read(**given) for given in chosen]

        assert reads.pages == 0
        anew = [await other.read_anew(**given) for given in chosen]
        assert [page.body for page in composed] == [page.body for page in anew]
        assert [page.reply.headers for page in composed] == [page.reply.headers for page in anew]

    async def test_page_outlives_changes_elsewhere_and_shows_its_own(
        self,
        other: Other,
        positions: dict[str, list[Given]],
        ada: Caller,
        ids: list[int],
        reads: Reads,
    ) -> None:
        await read_all(other, positions)
        # Between the sixth product and the sixteenth, beside a page of others.
        given = positions["-id"][5] | {"limit": "9"}
        reads.clear()

        for change in (
            ada.create_product("New"),
            ada.delete(ids[40]),
            ada.send("PATCH", f"{PATH}/{ids[30]}", json={"price": 7}),
        ):
            position = (await change).headers["Catalog-Position"]
            page = await other.read(**given)
            assert page.reply.headers["Catalog-Position"] == position
        assert reads.pages == 0

        await ada.send("PATCH", f"{PATH}/{ids[8]}", json={"name": "Other"})
        names = [
            each["name"] for each in orjson.loads((await other.read(**given)).body)["products"]
        ]
        assert names[2] == "Other"
        assert reads.pages == 1

    async def test_page_that_is_requested_again_is_kept_as_it_is_sent(
        self, other: Other, positions: dict[str, list[Given]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await read_all(other, positions)
        rendered = []
        render = page_cache._rendered

        def counted(request: PageRequest, page: Page) -> RenderedPage:
            rendered.append(request)
            return render(request, page)

        monkeypatch.setattr(page_cache, "_rendered", counted)
        given = positions["-id"][4] | {"limit": "7"}

        pages = [await other.read(**given) for _ in range(4)]

        assert len(rendered) == 2
        assert pages[3] is pages[2] is pages[1]
        assert pages[0].body == pages[1].body

    async def test_changed_page_is_read_after_one_query_of_the_position(
        self, other: Other, outdated: Given, reads: Reads
    ) -> None:
        reads.clear()

        page = await other.read(**outdated)

        assert b"Other" in page.body
        assert (reads.positions, reads.pages) == (1, 1)

    async def test_changed_page_is_composed_of_products_that_were_read_since(
        self, other: Other, positions: dict[str, list[Given]], outdated: Given, reads: Reads
    ) -> None:
        await other.read(**positions["-id"][5] | {"limit": "10"})
        reads.clear()

        page = await other.read(**outdated)

        assert b"Other" in page.body
        assert reads.pages == 0

    async def test_page_is_not_composed_after_a_manual_edit(
        self,
        other: Other,
        positions: dict[str, list[Given]],
        ids: list[int],
        database: Database,
    ) -> None:
        await read_all(other, positions)
        given = positions["-id"][5] | {"limit": "9"}

        async def rename(session: AsyncSession) -> None:
            product = update(Product).where(Product.id == ids[8])
            await session.execute(product.values(name="Other"))
            taken = ChangeCounter.position + 1
            await session.execute(update(ChangeCounter).values(position=taken))

        await database.transaction(rename)

        assert (await other.read(**given)).body == (await other.read_anew(**given)).body


@pytest.fixture
def after_catching_up(other: Other, monkeypatch: pytest.MonkeyPatch) -> Callable[[Act], None]:
    """Return a function that sets what happens while the next reader learns the last change."""

    def set_act(act: Act) -> None:
        catch_up = other.pages._catch_up

        async def catch_up_and_act(*arguments: Any) -> ChangeId | None:
            monkeypatch.setattr(other.pages, "_catch_up", catch_up)
            current = await catch_up(*arguments)
            await act()
            return current

        monkeypatch.setattr(other.pages, "_catch_up", catch_up_and_act)

    return set_act


class TestReadsMeanwhile:
    """Products are changed and read anew while a page is being composed."""

    async def test_newer_products_stay_cached(
        self,
        other: Other,
        positions: dict[str, list[Given]],
        ada: Caller,
        ids: list[int],
        reads: Reads,
        after_catching_up: Callable[[Act], None],
    ) -> None:
        await read_all(other, positions)
        given = positions["-id"][5] | {"limit": "9"}
        reads.clear()

        async def change_and_read() -> None:
            await ada.send("PATCH", f"{PATH}/{ids[8]}", json={"name": "Other"})
            await other.read(**given)

        after_catching_up(change_and_read)
        before = await other.read(**given)
        after = await other.read(**given)

        assert b"Other" not in before.body
        assert b"Other" in after.body
        assert reads.pages == 1

    @on_sqlite
    async def test_page_shows_one_state_of_the_list(
        self,
        other: Other,
        positions: dict[str, list[Given]],
        ada: Caller,
        ids: list[int],
        monkeypatch: pytest.MonkeyPatch,
        after_catching_up: Callable[[Act], None],
    ) -> None:
        """The change as of which products are read may precede them, unlike on servers."""
        for first in (5, 15):
            await other.read(**positions["-id"][first] | {"limit": "10"})
        given = positions["-id"][8] | {"limit": "12"}
        states = [(await other.read_anew(**given)).body]
        current_head = change_counter.current_head

        async def change_both_halves(connection: Any) -> Any:
            monkeypatch.setattr(change_counter, "current_head", current_head)
            head = await current_head(connection)
            for each in (ids[10], ids[18]):
                await ada.send("PATCH", f"{PATH}/{each}", json={"name": "Other"})
            return head

        async def read_second_half() -> None:
            monkeypatch.setattr(change_counter, "current_head", change_both_halves)
            # More than is cached, so that it is read anew.
            await other.read(**positions["-id"][15] | {"limit": "15"})

        after_catching_up(read_second_half)
        page = await other.read(**given)

        states.append((await other.read_anew(**given)).body)
        assert states[0] != states[1]
        assert page.body in states


async def mismatches(
    other: Other, writers: Writers, positions: dict[str, list[Given]]
) -> tuple[int, int]:
    """Write and read in turn; return the numbers of stale pages and of all."""
    await writers.create_for_another()
    places = [given for sort in SORTS for given in positions[sort]]
    stale = count = 0
    for number in range(ROUNDS):
        await (writers.delete_account() if number == ROUNDS // 2 else writers.write())
        for _ in range(8):
            given = writers.random.choice(places) | {"limit": str(writers.random.randint(1, 30))}
            page, current = await other.read(**given), await other.read_anew(**given)
            count += 1
            stale += page.body != current.body
            assert page.change == current.change
    return stale, count


class TestComposingDuringWrites:
    @pytest.mark.parametrize("seed", [1, 2])
    async def test_composed_pages_equal_those_of_the_database(
        self,
        other: Other,
        positions: dict[str, list[Given]],
        ada: Caller,
        bob: Caller,
        ids: list[int],
        reads: Reads,
        seed: int,
    ) -> None:
        reads.clear()
        stale, count = await mismatches(other, Writers(ada, bob, ids, seed), positions)

        assert stale == 0
        # Each page is read anew once for comparison. Otherwise the test would say nothing about
        # composed pages.
        assert reads.pages - count < count * 0.8

    @pytest.mark.parametrize("kind", list(ChangeType))
    async def test_control_pages_are_stale_if_a_kind_of_change_is_ignored(
        self,
        other: Other,
        positions: dict[str, list[Given]],
        ada: Caller,
        bob: Caller,
        ids: list[int],
        monkeypatch: pytest.MonkeyPatch,
        kind: ChangeType,
    ) -> None:
        writers = Writers(ada, bob, ids, 1)
        writers.hide(kind, monkeypatch)

        stale, _ = await mismatches(other, writers, positions)

        assert stale > 0
