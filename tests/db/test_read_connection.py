"""Read connections survive their loss: a statement is repeated, and the code around it is not."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import URL, ColumnElement, case, func, literal, literal_column, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.db.database import Database
from catalog.db.engines import Purpose, create_engine
from catalog.db.raw_rows import TextQuery, read_texts
from catalog.db.read_connection import ReadConnection
from catalog.errors import DatabaseUnavailable
from tests.db.support import Open, answer, assert_whole, on_servers, run_on
from tests.engines import settings_for
from tests.faults.proxy import DatabaseProxy, relayed

Losing = Callable[[DatabaseProxy], object]

each_loss = pytest.mark.parametrize(
    "lose",
    [DatabaseProxy.cut, DatabaseProxy.reset, lambda relay: relay.half_close("client")],
    ids=["closed", "reset", "half-closed"],
)


async def slow_zero(connection: AsyncConnection) -> ColumnElement[Any]:
    """Return an expression that is 0, after 20 s on the current connection and at once on others.

    So a statement with it is in progress when its connection is lost, however slow the machine is.
    """
    own = await connection.scalar(select(func.connection_id()))
    is_own = func.connection_id() == literal_column(str(own))
    slow: ColumnElement[Any] = func.sleep(literal_column("20"))
    return case((is_own, slow), else_=literal_column("0"))


async def cut_soon(relay: DatabaseProxy, lose: Losing, *, seconds: float = 0.1) -> None:
    await asyncio.sleep(seconds)
    lose(relay)


@on_servers
class TestLoss:
    @each_loss
    async def test_connection_lost_while_idle_is_replaced(
        self, opened: Open, database_url: URL, lose: Losing
    ) -> None:
        async with relayed(database_url) as relay:
            database = opened(relay.url, database_pool_size=1)
            async with database.connection() as connection:
                assert await answer(connection) == 42
            lose(relay)

            async with database.connection() as connection:
                assert await answer(connection) == 42

            assert relay.accepted == 2
            await assert_whole(database, readers=1, writers=1)

    @each_loss
    async def test_connection_lost_between_statements_is_replaced(
        self, opened: Open, database_url: URL, lose: Losing
    ) -> None:
        async with relayed(database_url) as relay:
            database = opened(relay.url)
            bodies = 0
            async with database.connection() as connection:
                bodies += 1
                before = await connection.scalar(select(func.connection_id()))
                lose(relay)
                assert await answer(connection) == 42
                assert await connection.scalar(select(func.connection_id())) != before

            assert bodies == 1

    @each_loss
    async def test_statement_whose_connection_is_lost_is_repeated(
        self, opened: Open, database_url: URL, lose: Losing
    ) -> None:
        async with relayed(database_url) as relay:
            database = opened(relay.url)
            async with database.connection() as connection:
                zero = await slow_zero(connection)
                losing = asyncio.create_task(cut_soon(relay, lose))
                assert await connection.scalar(select(literal(42) + zero)) == 42
                await losing

            assert relay.accepted == 2

    @each_loss
    async def test_texts_whose_connection_is_lost_are_read_again(
        self, opened: Open, database_url: URL, lose: Losing
    ) -> None:
        async with relayed(database_url) as relay:
            database = opened(relay.url)
            async with database.connection() as connection:
                slow = TextQuery(select(func.concat("a", await slow_zero(connection))), {})
                losing = asyncio.create_task(cut_soon(relay, lose))
                assert await read_texts(connection, slow) == [[b"a0"]]
                await losing
                # The new connection has no unread rows.
                assert await answer(connection) == 42

    async def test_connection_lost_while_it_is_opened_is_opened_again(
        self, opened: Open, database_url: URL
    ) -> None:
        async with relayed(database_url) as relay:
            database = opened(relay.url)
            relay.stall()
            reading = asyncio.create_task(run_on(database.connection(), answer))
            while not relay.open_connections:
                await asyncio.sleep(0.01)
            relay.cut()
            relay.heal()

            assert await reading == 42
            assert relay.accepted == 2

    async def test_statement_is_repeated_only_once(self, opened: Open, database_url: URL) -> None:
        async with relayed(database_url) as relay:
            database = opened(relay.url)
            relay.refuse()

            with pytest.raises(DatabaseUnavailable):
                async with database.connection() as connection:
                    await answer(connection)

            await relay.listen()
            async with database.connection() as connection:
                await answer(connection)
                relay.refuse()
                with pytest.raises(DBAPIError):
                    await answer(connection)

    async def test_rejected_statement_is_not_repeated(self, database: Database) -> None:
        runs = 0

        async def run() -> None:
            nonlocal runs
            runs += 1
            await AsyncConnection.execute(connection, text("SELECT missing"))

        async with database.connection() as connection:
            with pytest.raises(DBAPIError):
                await connection.once_more_if_lost(run)

        assert runs == 1

    async def test_plain_connection_fails_when_it_is_lost(self, database_url: URL) -> None:
        async with relayed(database_url) as relay:
            engine = create_engine(settings_for(relay.url), Purpose.READING)
            async with engine.connect() as connection:
                await answer(connection)
                relay.cut()
                with pytest.raises(DBAPIError):
                    await answer(connection)
            await engine.dispose()


RESETS = 1000
AT_ONCE = 5

Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection]]


async def failed_reads(relay: DatabaseProxy, connect: Connect) -> tuple[int, int]:
    """Read while connections are reset, idle ones and busy ones; return the reads and failures."""
    dice = random.Random(5)  # noqa: S311 (not a secret)
    reads = failures = resets = 0

    async def read() -> bool:
        try:
            async with connect() as connection:
                return await answer(connection) != 42 or await answer(connection) != 42
        except (DatabaseUnavailable, DBAPIError):
            return True

    while resets < RESETS:
        reading = [asyncio.create_task(read()) for _ in range(AT_ONCE)]
        # Before the first statement, during one, between two, or after the last.
        await asyncio.sleep(dice.choice([0, dice.uniform(0, 0.005), 0.02]))
        resets += relay.reset()
        failures += sum(await asyncio.gather(*reading))
        reads += AT_ONCE
        # The event loop notices resets of idle connections; a read may be hit once more after that.
        await asyncio.sleep(0.002)
    return reads, failures


@on_servers
class TestResets:
    async def test_no_read_fails_in_a_thousand_resets(
        self, opened: Open, database_url: URL
    ) -> None:
        async with relayed(database_url) as relay:
            reads, failures = await failed_reads(relay, opened(relay.url).connection)

        assert reads >= 500
        assert failures == 0

    async def test_reads_on_plain_connections_fail(self, database_url: URL) -> None:
        async with relayed(database_url) as relay:
            engine = create_engine(settings_for(relay.url), Purpose.READING)

            @asynccontextmanager
            async def connect() -> AsyncIterator[AsyncConnection]:
                async with engine.connect() as connection:
                    yield connection

            _, failures = await failed_reads(relay, connect)
            await engine.dispose()

        assert failures > 100


class TestWithoutLoss:
    async def test_connection_is_of_the_class_that_repeats(self, database: Database) -> None:
        async with database.connection() as connection:
            assert isinstance(connection, ReadConnection)
            assert await connection.scalar(text("SELECT 42")) == 42
            assert (await connection.scalars(text("SELECT 42"))).all() == [42]
            assert (await connection.execute(text("SELECT :n"), {"n": 42})).scalar_one() == 42
