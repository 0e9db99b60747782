"""Connections that fail, hang or recover on the network, and those of health checks."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.errors import DatabaseUnavailable
from tests.db.support import (
    LENIENCE,
    PATIENT,
    Open,
    Stopwatch,
    add_owner,
    add_product,
    answer,
    assert_whole,
    count_products,
    on_servers,
    run_on,
    within,
)
from tests.db.ways import Way, both_ways
from tests.faults.proxy import Fault, relayed


@on_servers
class TestNetwork:
    async def test_connect_times_out_when_the_server_never_greets(
        self, opened: Open, database_url: URL
    ) -> None:
        async with relayed(database_url) as relay:
            relay.stall()
            database = opened(relay.url, deadlines=replace(PATIENT, connect=1.5))
            stopwatch = Stopwatch()

            with pytest.raises(DatabaseUnavailable):
                await run_on(database.connection(), answer)

            assert 1.5 <= stopwatch.seconds < 2 * 1.5 + LENIENCE
            relay.heal()
            assert await run_on(database.connection(), answer) == 42

    @both_ways
    async def test_database_recovers_after_an_outage_during_a_query(
        self, opened: Open, database_url: URL, way: Way
    ) -> None:
        async with relayed(database_url) as relay:
            database = opened(relay.url, database_pool_size=2)
            asked = asyncio.Event()

            async def work(executor: AsyncSession | AsyncConnection) -> None:
                await answer(executor)
                asked.set()
                await executor.execute(text("DO SLEEP(20)"))

            working = asyncio.ensure_future(way(database, work))
            await asked.wait()
            relay.refuse()
            with pytest.raises(DatabaseUnavailable):
                await working
            stopwatch = Stopwatch()
            with pytest.raises(DatabaseUnavailable):
                await way(database, answer)
            assert stopwatch.seconds < LENIENCE
            await relay.listen()

            await assert_whole(database, readers=2, writers=2)

    @both_ways
    async def test_broken_idle_connections_are_replaced(
        self, opened: Open, database_url: URL, way: Way
    ) -> None:
        async with relayed(database_url) as relay:
            database = opened(relay.url, database_pool_size=2)
            await assert_whole(database, readers=2, writers=2)
            relay.cut()

            assert await way(database, answer) == 42
            await assert_whole(database, readers=2, writers=2)

    async def test_transaction_is_retried_once_after_connection_loss(
        self, opened: Open, database_url: URL
    ) -> None:
        async with relayed(database_url) as relay:
            database = opened(relay.url)
            await database.transaction(add_owner)
            attempts = 0

            async def work(session: AsyncSession) -> int:
                nonlocal attempts
                attempts += 1
                product_id = await add_product(session, name="Lamp")
                if attempts == 1:
                    relay.cut()
                    await answer(session)
                return product_id

            await database.transaction(work)

            assert attempts == 2
            assert await run_on(database.connection(), count_products) == 1

    async def test_locks_of_a_vanished_client_are_released(
        self, opened: Open, database_url: URL
    ) -> None:
        async with relayed(database_url) as relay:
            database = opened(relay.url, **within(2.0))
            await database.transaction(add_owner)

            async def work(session: AsyncSession) -> None:
                await session.execute(text("SELECT id FROM users WHERE id = 1 FOR UPDATE"))
                # From here on nothing gets through, not even a FIN or RST.
                relay.use(Fault.blackhole())
                await answer(session)

            with pytest.raises(DatabaseUnavailable):
                await database.transaction(work)
            other = opened()
            stopwatch = Stopwatch()

            async def change(session: AsyncSession) -> None:
                await session.execute(text("UPDATE users SET username = 'eve' WHERE id = 1"))

            await other.transaction(change)
            assert stopwatch.seconds < 4 + LENIENCE

    @both_ways
    async def test_hanging_server_times_out_and_is_used_again_afterwards(
        self, opened: Open, database_url: URL, way: Way
    ) -> None:
        async with relayed(database_url) as relay:
            database = opened(relay.url, **within(1.5), database_pool_size=2)
            assert await way(database, answer) == 42
            relay.stall()
            stopwatch = Stopwatch()

            with pytest.raises(DatabaseUnavailable):
                await way(database, answer)

            assert stopwatch.seconds < 1.5 + LENIENCE
            relay.heal()
            await assert_whole(database, readers=2, writers=2)


class TestProbe:
    async def test_probe_succeeds_when_the_pools_are_exhausted(self, opened: Open) -> None:
        database = opened(database_pool_size=1)
        everyone, give_back = asyncio.Barrier(3), asyncio.Event()

        async def hold(executor: AsyncSession | AsyncConnection) -> None:
            await answer(executor)
            await everyone.wait()
            await give_back.wait()

        holding = [
            asyncio.create_task(run_on(database.connection(), hold)),
            asyncio.create_task(database.transaction(hold)),
        ]
        await everyone.wait()

        assert await run_on(database.probe(within=30), answer) == 42
        give_back.set()
        await asyncio.gather(*holding)

    @on_servers
    async def test_probe_times_out(self, opened: Open, database_url: URL) -> None:
        async with relayed(database_url) as relay:
            database = opened(relay.url)
            relay.stall()
            stopwatch = Stopwatch()

            with pytest.raises(DatabaseUnavailable):
                await run_on(database.probe(within=0.2), answer)

            assert 0.2 <= stopwatch.seconds < 0.2 + LENIENCE
