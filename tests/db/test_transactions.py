"""Attempts at a transaction: retries, and the error after the last one."""

import asyncio
from functools import partial

import pytest
from sqlalchemy import URL, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker

from catalog.db.database import Database
from catalog.db.engines import Purpose, create_engine
from catalog.db.error_translation import worth_a_retry
from catalog.db.transactions import MAX_ATTEMPTS, RetryTransaction
from catalog.errors import DatabaseBusy, DatabaseUnavailable
from catalog.products.models import Product
from tests.db.support import (
    LENIENCE,
    Open,
    Stopwatch,
    add_owner,
    add_product,
    count_products,
    on_servers,
    run_on,
    within,
)
from tests.engines import settings_for


class Meeting:
    """Rendezvous at which two transactions each hold the lock that the other wants next."""

    def __init__(self) -> None:
        self._everyone = asyncio.Barrier(2)
        self.attempts = 0

    async def hold(self) -> None:
        self.attempts += 1
        if self.attempts <= 2:
            await self._everyone.wait()


async def raise_prices(session: AsyncSession, ids: tuple[int, int], meeting: Meeting) -> None:
    """Raise two products' prices, one after the other."""
    first, second = ids
    await session.execute(
        update(Product).where(Product.id == first).values(price=Product.price + 1)
    )
    await meeting.hold()
    await session.execute(
        update(Product).where(Product.id == second).values(price=Product.price + 1)
    )


async def prices(connection: AsyncConnection) -> list[float]:
    return list(await connection.scalars(text("SELECT price FROM products ORDER BY id")))


@on_servers
class TestDeadlock:
    async def test_deadlock_victim_is_retried_and_both_are_committed(
        self, database: Database
    ) -> None:
        lamp = await database.transaction(add_product, "Lamp")
        chair = await database.transaction(add_product, "Chair")
        meeting = Meeting()

        await asyncio.gather(
            database.transaction(raise_prices, (lamp, chair), meeting),
            database.transaction(raise_prices, (chair, lamp), meeting),
        )

        assert meeting.attempts == 3
        assert await run_on(database.connection(), prices) == [3, 3]

    async def test_deadlock_victim_is_lost_without_retry(
        self, database: Database, database_url: URL
    ) -> None:
        lamp = await database.transaction(add_product, "Lamp")
        chair = await database.transaction(add_product, "Chair")
        meeting = Meeting()
        engine = create_engine(settings_for(database_url), Purpose.WRITING)
        sessions = async_sessionmaker(engine)

        async def once(ids: tuple[int, int]) -> None:
            async with sessions.begin() as session:
                await raise_prices(session, ids, meeting)

        outcomes = await asyncio.gather(
            once((lamp, chair)), once((chair, lamp)), return_exceptions=True
        )
        await engine.dispose()

        (loss,) = [outcome for outcome in outcomes if outcome is not None]
        assert isinstance(loss, DBAPIError)
        assert worth_a_retry(loss)
        assert await run_on(database.connection(), prices) == [2, 2]

    async def test_lock_wait_time_out_is_busy(self, opened: Open, database: Database) -> None:
        lamp = await database.transaction(add_product, "Lamp")
        patient, impatient = opened(), opened(**within(3.0))
        locked, give_back = asyncio.Event(), asyncio.Event()
        change = update(Product).where(Product.id == lamp).values(price=7)

        async def hold(session: AsyncSession) -> None:
            await session.execute(change)
            locked.set()
            await give_back.wait()

        holding = asyncio.create_task(patient.transaction(hold))
        await locked.wait()
        stopwatch = Stopwatch()

        with pytest.raises(DatabaseBusy):
            await impatient.transaction(lambda session: session.execute(change))

        assert stopwatch.seconds < 3.0 + LENIENCE
        give_back.set()
        await holding


@on_servers
class TestUnansweredCommit:
    """The deadline ends during COMMIT, in the second attempt: the first one met a lock."""

    async def test_bulk_transaction_whose_commit_may_have_succeeded_is_not_repeated(
        self, opened: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        database = opened(**within(3.0))
        await database.transaction(add_owner)
        attempts = 0
        commit = AsyncSession.commit

        async def commit_unanswered(session: AsyncSession) -> None:
            await commit(session)
            if attempts == 2:
                await asyncio.Event().wait()

        async def work(session: AsyncSession) -> None:
            nonlocal attempts
            attempts += 1
            await add_product(session, f"Lamp {attempts}")
            if attempts == 1:
                await session.execute(text("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213"))

        monkeypatch.setattr(AsyncSession, "commit", commit_unanswered)

        with pytest.raises(DatabaseUnavailable):
            await database.bulk_transaction(work)

        assert attempts == 2
        assert await run_on(database.connection(), count_products) == 1


class TestRetryTransaction:
    async def test_work_is_retried_and_earlier_attempts_are_rolled_back(
        self, database: Database
    ) -> None:
        attempts: list[int] = []

        async def work(session: AsyncSession) -> None:
            attempts.append(await add_product(session, f"Lamp {len(attempts)}"))
            if len(attempts) < MAX_ATTEMPTS:
                raise RetryTransaction

        await database.transaction(work)

        assert len(attempts) == MAX_ATTEMPTS
        assert await run_on(database.connection(), count_products) == 1

    async def test_database_is_busy_when_all_attempts_fail(self, database: Database) -> None:
        async def work(session: AsyncSession) -> None:
            await add_product(session, "Lamp")
            raise RetryTransaction

        with pytest.raises(DatabaseBusy):
            await database.transaction(work)

        assert await run_on(database.connection(), count_products) == 0


@on_servers
class TestUnusableNode:
    """Connections to a cluster node that must not be used: not synchronized, or read-only."""

    @pytest.mark.parametrize("code", [1047, 1290])
    async def test_transaction_is_retried_on_another_connection(
        self, database: Database, code: int
    ) -> None:
        connections: list[int] = []

        async def work(session: AsyncSession) -> None:
            connections.append(await session.scalar(text("SELECT CONNECTION_ID()")) or 0)
            if len(connections) == 1:
                await session.execute(text(f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {code}"))

        await database.transaction(work)

        first, second = connections
        assert first != second

    @pytest.mark.parametrize("code", [1047, 1290])
    async def test_statement_is_repeated_on_another_connection(
        self, database: Database, code: int
    ) -> None:
        connections: list[int] = []

        async def run() -> None:
            # Not by the connection's own methods, which would repeat each statement by itself.
            plain = partial(AsyncConnection.execute, connection)
            connections.append((await plain(text("SELECT CONNECTION_ID()"))).scalar_one())
            if len(connections) == 1:
                await plain(text(f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {code}"))

        async with database.connection() as connection:
            await connection.once_more_if_lost(run)

        first, second = connections
        assert first != second

    async def test_database_is_unavailable_when_all_nodes_are_unusable(
        self, database: Database
    ) -> None:
        async def work(session: AsyncSession) -> None:
            await session.execute(text("SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1290"))

        with pytest.raises(DatabaseUnavailable):
            await database.transaction(work)
