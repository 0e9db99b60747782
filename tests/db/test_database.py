"""Guarantees of ``connection`` and ``transaction``, in normal operation and under faults."""

import asyncio
import random
from dataclasses import replace
from itertools import count

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.db.database import Database
from catalog.db.deadlines import suspended_deadline
from catalog.db.transactions import RetryTransaction
from catalog.errors import Conflict, DatabaseBusy, DatabaseUnavailable
from tests.db.support import (
    LENIENCE,
    OWNER,
    PATIENT,
    Open,
    Stopwatch,
    add_owner,
    add_product,
    answer,
    assert_whole,
    count_products,
    locked_by_another_process,
    on_servers,
    on_sqlite,
    run_on,
    within,
)
from tests.db.ways import Way, both_ways
from tests.engines import Engine

LONG = {
    # Not SELECT SLEEP, which MySQL ends without an error at its own limit. Short, because MySQL
    # keeps running and holding locks after the client has disconnected.
    "mysql": "DO SLEEP(2)",
    "mariadb": "DO SLEEP(20)",
    "sqlite": "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 30000000)"
    " SELECT max(x) FROM n",
}


class Spoilt(Exception):
    """Error raised by a test's work."""


class TestConnection:
    async def test_statement_sees_writes_committed_meanwhile(self, database: Database) -> None:
        async def count_twice(connection: AsyncConnection) -> tuple[int, int]:
            before = await count_products(connection)
            await database.transaction(add_product, "Lamp")
            return before, await count_products(connection)

        assert await run_on(database.connection(), count_twice) == (0, 1)

    async def test_connection_rejects_writes(self, database: Database) -> None:
        await database.transaction(add_product, "Lamp")

        async def write(connection: AsyncConnection, statement: str) -> None:
            await connection.execute(text(statement))

        for statement in ("UPDATE products SET price = 2", "DELETE FROM products"):
            with pytest.raises(DatabaseUnavailable):
                await run_on(database.connection(), write, statement)

        assert await run_on(database.connection(), count_products) == 1


class TestTransaction:
    async def test_transaction_commits_when_the_work_returns(self, database: Database) -> None:
        await database.transaction(add_product, "Lamp")

        assert await run_on(database.connection(), count_products) == 1

    async def test_transaction_rolls_back_when_the_work_raises(self, database: Database) -> None:
        async def work(session: AsyncSession) -> None:
            await add_product(session, "Lamp")
            raise Spoilt

        with pytest.raises(Spoilt):
            await database.transaction(work)

        assert await run_on(database.connection(), count_products) == 0

    async def test_duplicate_of_a_unique_value_is_a_conflict(self, database: Database) -> None:
        with pytest.raises(Conflict):
            await database.transaction(add_owner)

    async def test_foreign_key_to_a_missing_owner_is_a_conflict(self, database: Database) -> None:
        with pytest.raises(Conflict):
            await database.transaction(add_product, "Lamp", user_id=OWNER + 1)

        assert await run_on(database.connection(), count_products) == 0

    async def test_check_violation_is_not_translated(self, database: Database) -> None:
        with pytest.raises(DBAPIError):
            await database.transaction(add_product, "Lamp", price=-1.0)

    async def test_close_waits_for_transactions_in_progress(
        self, opened: Open, database: Database
    ) -> None:
        closing = opened()
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def work(session: AsyncSession) -> None:
            await add_product(session, "Lamp")
            begun.set()
            await go_on.wait()

        writing = asyncio.create_task(closing.transaction(work))
        await begun.wait()
        closed = asyncio.create_task(closing.close())
        done, _ = await asyncio.wait([closed], timeout=0.1)
        assert not done
        go_on.set()
        await asyncio.gather(writing, closed)

        assert await run_on(database.connection(), count_products) == 1


class TestDeadline:
    @both_ways
    async def test_work_that_never_returns_is_cancelled_at_the_deadline(
        self, opened: Open, way: Way
    ) -> None:
        database = opened(**within(0.3), database_pool_size=2)
        stopwatch = Stopwatch()

        async def work(executor: AsyncSession | AsyncConnection) -> None:
            await answer(executor)
            await asyncio.Event().wait()

        with pytest.raises(DatabaseUnavailable):
            await way(database, work)

        assert 0.3 <= stopwatch.seconds < 0.3 + LENIENCE
        await assert_whole(database, readers=2, writers=1)

    @both_ways
    async def test_slow_statement_is_cancelled_at_the_deadline(
        self, opened: Open, way: Way, engine: Engine
    ) -> None:
        database = opened(**within(0.3), database_pool_size=2)
        stopwatch = Stopwatch()

        with pytest.raises(DatabaseUnavailable):
            await way(database, lambda executor: executor.execute(text(LONG[engine.name])))

        assert 0.25 <= stopwatch.seconds < 0.3 + LENIENCE
        await assert_whole(database, readers=2, writers=1)

    async def test_writes_before_the_deadline_are_rolled_back(
        self, opened: Open, engine: Engine, database: Database
    ) -> None:
        impatient = opened(**within(0.3))

        async def work(session: AsyncSession) -> None:
            await add_product(session, "Lamp")
            await session.execute(text(LONG[engine.name]))

        with pytest.raises(DatabaseUnavailable) as given_up:
            await impatient.transaction(work)

        # Use the error here: its traceback keeps the session and its connection alive until then.
        assert given_up.value.status == 503
        await database.transaction(add_product, "Chair")
        assert await run_on(database.connection(), count_products) == 1


async def most_overtaken(database: Database, *, readers: int = 32) -> int:
    """Return how often, at most, later reads began before one that had asked earlier.

    It counts when reads begin, not when they end, and on connections that are open: neither a
    slow answer nor the opening of a connection is a place in the queue.
    """
    asked = count()
    begun: list[int] = []

    async def begin(connection: AsyncConnection, ticket: int) -> None:
        begun.append(ticket)
        await answer(connection)

    async def read_again_and_again() -> None:
        for _ in range(30):
            await run_on(database.connection(), begin, next(asked))

    await assert_whole(database, readers=database.max_readers, writers=0)
    await asyncio.gather(*(read_again_and_again() for _ in range(readers)))
    return max(place - ticket for place, ticket in enumerate(begun))


class TestPool:
    @both_ways
    async def test_checkout_times_out_when_the_pool_is_exhausted(
        self, opened: Open, way: Way
    ) -> None:
        database = opened(database_pool_size=1, deadlines=replace(PATIENT, checkout=0.2))
        taken, give_back = asyncio.Event(), asyncio.Event()

        async def hold(executor: AsyncSession | AsyncConnection) -> int | None:
            found = await answer(executor)
            taken.set()
            await give_back.wait()
            return found

        holding = asyncio.ensure_future(way(database, hold))
        await taken.wait()
        stopwatch = Stopwatch()

        with pytest.raises(DatabaseBusy):
            await way(database, answer)

        assert 0.2 <= stopwatch.seconds < 0.2 + LENIENCE
        give_back.set()
        assert await holding == 42
        await assert_whole(database, readers=1, writers=1)

    @on_sqlite
    async def test_writers_are_served_first_in_first_out(self, database: Database) -> None:
        ids = await asyncio.gather(
            *(database.transaction(add_product, f"Lamp {n}") for n in range(30))
        )

        assert ids == list(range(1, 31))

    async def test_bulk_transaction_waits_beyond_pool_time_out_and_deadline(
        self, opened: Open
    ) -> None:
        database = opened(database_pool_size=1, **within(2.0, checkout=1.1))
        taken, give_back = asyncio.Event(), asyncio.Event()

        async def hold(session: AsyncSession) -> None:
            taken.set()
            with suspended_deadline(session):
                await give_back.wait()

        holding = asyncio.ensure_future(database.transaction(hold))
        await taken.wait()
        bulk = asyncio.ensure_future(database.bulk_transaction(answer))

        for _ in range(2):
            with pytest.raises(DatabaseBusy):
                await database.transaction(answer)
        assert not bulk.done()
        give_back.set()

        assert await bulk == 42
        await holding

    async def test_bulk_transactions_use_at_most_half_of_the_connections(
        self, opened: Open
    ) -> None:
        database = opened(database_pool_size=5)
        begun: list[int] = []
        two_have_begun, go_on = asyncio.Event(), asyncio.Event()

        async def work(session: AsyncSession, number: int) -> int | None:
            begun.append(number)
            if len(begun) == database.max_bulk_writers:
                two_have_begun.set()
            await go_on.wait()
            return await answer(session)

        limit = database.max_bulk_writers
        assert limit == (1 if database.max_writers == 1 else 2)
        bulk = [asyncio.ensure_future(database.bulk_transaction(work, n)) for n in range(8)]
        await two_have_begun.wait()
        if database.max_writers > 1:
            assert (
                await asyncio.gather(*[database.transaction(answer) for _ in range(9)]) == [42] * 9
            )
        assert begun == list(range(limit))
        go_on.set()

        assert await asyncio.gather(*bulk) == [42] * 8
        assert begun == list(range(8))

    @on_servers
    async def test_retried_bulk_transaction_does_not_deadlock_with_one_waiting_for_it(
        self, opened: Open
    ) -> None:
        database = opened(database_pool_size=4)
        later_has_begun, earlier_is_done = asyncio.Event(), asyncio.Event()
        attempts = count()

        async def earlier(session: AsyncSession) -> int | None:
            await later_has_begun.wait()
            if next(attempts) == 0:
                raise RetryTransaction
            return await answer(session)

        async def later(session: AsyncSession) -> int | None:
            later_has_begun.set()
            with suspended_deadline(session):
                await earlier_is_done.wait()
            return await answer(session)

        first = asyncio.ensure_future(database.bulk_transaction(earlier))
        first.add_done_callback(lambda _: earlier_is_done.set())
        others = [asyncio.ensure_future(database.bulk_transaction(later)) for _ in range(5)]

        assert await asyncio.gather(first, *others) == [42] * 6

    async def test_queued_bulk_transaction_is_cancelled_on_close(self, opened: Open) -> None:
        database = opened(database_pool_size=1, **within(0.3))
        taken = asyncio.Event()

        async def hold(session: AsyncSession) -> None:
            taken.set()
            with suspended_deadline(session):
                await asyncio.Event().wait()

        holding = asyncio.ensure_future(database.bulk_transaction(hold))
        waiting = asyncio.ensure_future(database.bulk_transaction(answer))
        await taken.wait()

        await database.close()

        await asyncio.wait([holding, waiting])
        assert holding.cancelled()
        assert waiting.cancelled()

    async def test_checkout_is_fair_among_readers_that_loop(self, opened: Open) -> None:
        database = opened(database_pool_size=5)

        assert await most_overtaken(database) <= 5

    async def test_cancelled_readers_leak_no_connection(self, opened: Open) -> None:
        database = opened(database_pool_size=3)
        dice = random.Random(7)  # noqa: S311 (not a secret)

        async def hang_up() -> bool:
            reader = asyncio.create_task(run_on(database.connection(), count_products))
            # Cancel at a random point of the query.
            await asyncio.sleep(dice.uniform(0, 0.003))
            reader.cancel()
            await asyncio.wait([reader])
            return reader.cancelled()

        for _ in range(20):
            await asyncio.gather(*(hang_up() for _ in range(3)))

        await assert_whole(database, readers=3, writers=1)


@on_sqlite
class TestOtherProcesses:
    async def test_lock_held_by_another_process_blocks_writers_only(
        self, opened: Open, database: Database, database_url: URL
    ) -> None:
        impatient = opened(**within(4.0))

        async with locked_by_another_process(database_url):
            stopwatch = Stopwatch()
            with pytest.raises(DatabaseBusy):
                await impatient.transaction(add_product, "Lamp")
            waited = stopwatch.seconds
            read = await run_on(impatient.connection(), count_products)
        await impatient.transaction(add_product, "Lamp")

        assert waited < 4.0 + LENIENCE
        assert read == 0
        assert await run_on(database.connection(), count_products) == 1

    async def test_writer_waits_for_a_lock_that_is_released_in_time(
        self, database: Database, database_url: URL
    ) -> None:
        async with locked_by_another_process(database_url):
            writing = asyncio.create_task(database.transaction(add_product, "Lamp"))
            await asyncio.sleep(0)

        await writing
        assert await run_on(database.connection(), count_products) == 1
