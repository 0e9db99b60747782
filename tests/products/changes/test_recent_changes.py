"""Recent changes: known only as far back as the log shows one history without gaps."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.db.database import Database
from catalog.db.read_connection import ReadConnection
from catalog.products import service
from catalog.products.changes import change_log, recent_changes
from catalog.products.changes.change_ids import ChangeId
from catalog.products.changes.recent_changes import RecentChanges
from catalog.products.models import ChangeCounter, NewProduct, ProductChange
from tests.support import Caller


async def create(database: Database, owner: Caller, count: int = 1) -> tuple[ChangeId, list[int]]:
    """Create products in one transaction; return its last change, and their ids."""
    new_products = [NewProduct("Lamp", None, 1.0, owner.user_id or 0)] * count
    inserted = await database.transaction(service.insert_products, new_products)
    return inserted.last, inserted.ids


async def catch_up(recent: RecentChanges, database: Database) -> None:
    async with database.connection() as connection:
        await recent.catch_up(connection)


@pytest.fixture
async def recent(database: Database, ada: Caller) -> RecentChanges:
    """Return changes known from the second on."""
    recent = RecentChanges()
    await create(database, ada, 2)
    await catch_up(recent, database)
    return recent


class TestRecentChanges:
    async def test_changes_after_a_known_one_affect_spans_that_hold_their_products(
        self, database: Database, ada: Caller, recent: RecentChanges
    ) -> None:
        begin = recent.last
        middle, (second, third) = await create(database, ada, 2)
        end, (fourth,) = await create(database, ada)

        assert middle not in recent
        await catch_up(recent, database)

        assert recent.last == end
        assert begin in recent
        assert middle in recent
        assert recent.affect(range(third, fourth), since=begin)
        assert recent.affect(range(fourth, fourth + 1), since=middle)
        assert not recent.affect(range(1, second), since=begin)
        assert not recent.affect(range(second, third + 1), since=middle)
        assert not recent.affect(range(1, fourth + 2), since=end)

    async def test_new_reader_knows_no_change(self, database: Database, ada: Caller) -> None:
        recent = RecentChanges()
        assert ChangeId(0) not in recent
        await catch_up(recent, database)
        assert recent.last == ChangeId(0)

        last, _ = await create(database, ada)
        await catch_up(recent, database)

        assert recent.last == last

    async def test_changes_are_known_from_a_given_one_on(
        self, database: Database, ada: Caller
    ) -> None:
        recent = RecentChanges()
        first, _ = await create(database, ada)
        recent.begin(first)
        second, (product,) = await create(database, ada)
        recent.begin(second)

        await catch_up(recent, database)

        assert first in recent
        assert recent.last == second
        assert recent.affect(range(product, product + 1), since=first)

    def test_changes_before_the_first_known_one_are_unknown(self, recent: RecentChanges) -> None:
        assert ChangeId(1, recent.last.token) not in recent
        assert ChangeId(3, recent.last.token) not in recent

    async def test_swept_log_resets_the_changes(
        self, database: Database, ada: Caller, recent: RecentChanges
    ) -> None:
        begin = recent.last
        last, _ = await create(database, ada, 2)

        async def sweep(session: AsyncSession) -> None:
            await change_log.sweep(session, kept=timedelta(seconds=-1), limit=3)

        await database.transaction(sweep)
        await catch_up(recent, database)

        assert begin not in recent
        assert last in recent

    @pytest.mark.parametrize("position", [2, 3])
    async def test_missing_change_resets_the_changes(
        self, database: Database, ada: Caller, recent: RecentChanges, position: int
    ) -> None:
        begin = recent.last
        last, _ = await create(database, ada, 2)

        async def lose(session: AsyncSession) -> None:
            await session.execute(delete(ProductChange).where(ProductChange.position == position))

        await database.transaction(lose)
        await catch_up(recent, database)

        assert begin not in recent
        assert last in recent

    async def test_other_history_resets_the_changes(
        self, database: Database, ada: Caller, recent: RecentChanges
    ) -> None:
        begin = recent.last

        async def replace(session: AsyncSession) -> None:
            await session.execute(update(ProductChange).values(token="0123456789"))
            await session.execute(update(ChangeCounter).values(token="0123456789"))

        await database.transaction(replace)
        last, _ = await create(database, ada)
        await catch_up(recent, database)

        assert begin not in recent
        assert ChangeId(begin.position, "0123456789") not in recent
        assert last in recent

    async def test_changes_without_tokens_reset_the_changes(
        self, database: Database, ada: Caller, recent: RecentChanges
    ) -> None:
        # A release without tokens leaves the counter's as it is.
        begin = recent.last
        await create(database, ada)

        async def lose(session: AsyncSession) -> None:
            newest = update(ProductChange).where(ProductChange.position == 3)
            await session.execute(newest.values(token=""))

        await database.transaction(lose)
        await catch_up(recent, database)
        assert begin in recent
        last, _ = await create(database, ada)
        await catch_up(recent, database)

        assert begin not in recent
        assert last in recent

    async def test_many_changes_are_read_one_part_after_the_other(
        self, database: Database, ada: Caller, recent: RecentChanges
    ) -> None:
        begin = recent.last
        last, ids = await create(database, ada, 2 * recent_changes.MAX_READ)

        await catch_up(recent, database)

        assert begin in recent
        assert recent.last == last
        assert recent.affect(range(ids[0], ids[0] + 1), since=begin)

    async def test_too_many_changes_reset_the_changes(
        self,
        database: Database,
        ada: Caller,
        recent: RecentChanges,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(recent_changes, "MAX_PARTS", 2)
        begin = recent.last
        last, _ = await create(database, ada, 2 * recent_changes.MAX_READ)

        await catch_up(recent, database)

        assert begin not in recent
        assert recent.last == last

    async def test_changes_read_while_all_is_forgotten_are_ignored(
        self, database: Database, ada: Caller, recent: RecentChanges
    ) -> None:
        await create(database, ada)
        later = ChangeId(recent.last.position + 5, "0123456789")

        class Forgetful:
            def __init__(self, connection: ReadConnection) -> None:
                self._connection = connection

            async def execute(self, *given: Any) -> Any:
                found = await self._connection.execute(*given)
                recent.clear()
                recent.begin(later)
                return found

        async with database.connection() as connection:
            await recent.catch_up(Forgetful(connection))  # type: ignore[arg-type]  # stands for it

        assert recent.last == later

    async def test_oldest_changes_are_dropped_first(
        self,
        database: Database,
        ada: Caller,
        recent: RecentChanges,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(recent_changes, "MAX_KEPT", 10)
        made = [recent.last]
        for _ in range(25):
            made.append((await create(database, ada))[0])
            await catch_up(recent, database)

        known = [change for change in made if change in recent]

        assert known == made[-len(known) :]
        assert 5 <= len(known) <= 10
