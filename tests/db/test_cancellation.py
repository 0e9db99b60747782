"""Callers that are cancelled in the middle of a write, and the end of a process."""

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncConnection, async_sessionmaker

from catalog.db.database import Database
from catalog.db.engines import Purpose, create_engine
from catalog.settings import Settings
from tests.db.support import (
    PATIENT,
    Open,
    Stopwatch,
    add_owner,
    add_product,
    answer,
    assert_whole,
    count_products,
    on_sqlite,
    run_on,
)
from tests.engines import settings_for
from tests.support import until

WRITES = 200


AT_ONCE = 5


WARM_UP = 2 * AT_ONCE


async def cancelled_writes(write: Callable[[str], Awaitable[Any]]) -> int:
    """Start ``WRITES`` writes, cancel each at a random point; return how many were cancelled.

    ``WARM_UP`` more writes come first and tell how long they take on this machine.
    """
    dice = random.Random(11)  # noqa: S311 (not a secret)
    # The first of them open connections.
    for _ in range(2):
        stopwatch = Stopwatch()
        await asyncio.gather(*(write("Lamp") for _ in range(AT_ONCE)))
    duration = stopwatch.seconds

    async def hang_up(name: str) -> bool:
        writer = asyncio.ensure_future(write(name))
        await asyncio.sleep(0)  # Let it begin.
        # Cancel at a random point, up to after the commit.
        await asyncio.sleep(dice.uniform(0, 1.5 * duration))
        writer.cancel()
        await asyncio.wait([writer])
        return writer.cancelled()

    told = 0
    for batch in range(WRITES // AT_ONCE):
        names = (f"{batch}-{number}" for number in range(AT_ONCE))
        told += sum(await asyncio.gather(*map(hang_up, names)))
    return told


class TestCancellation:
    async def test_cancelled_transaction_is_completed(self, opened: Open) -> None:
        # All writes wait in one queue, and none may give up on a busy machine.
        database = opened(deadlines=replace(PATIENT, checkout=60, write=60))
        await database.transaction(add_owner)

        async def write(name: str) -> None:
            await database.transaction(add_product, name)

        async def all_are_there() -> bool:
            return await run_on(database.connection(), count_products) == WRITES + WARM_UP

        told = await cancelled_writes(write)

        assert told > WRITES / 20
        await until(all_are_there)
        await assert_whole(database, readers=5, writers=1)

    async def test_plain_commits_are_lost_when_cancelled(
        self, database: Database, database_url: URL
    ) -> None:
        engine = create_engine(settings_for(database_url), Purpose.WRITING)
        sessions = async_sessionmaker(engine)

        async def write(name: str) -> None:
            async with sessions() as session:
                await add_product(session, name)
                await session.commit()

        told = await cancelled_writes(write)
        await engine.dispose()

        assert told > WRITES / 20
        assert await run_on(database.connection(), count_products) < WRITES + WARM_UP

    @on_sqlite
    async def test_driver_threads_end_on_close(self, opened: Open) -> None:
        others = set(threading.enumerate())

        for steps in range(30):
            database = opened()
            reading = asyncio.create_task(run_on(database.probe(within=30), answer))
            for _ in range(steps):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            await database.close()

            # A surviving thread would call back into an event loop that may be closed.
            assert not set(threading.enumerate()) - others


class TestClosing:
    @pytest.mark.parametrize("way", ["connection", "probe", "watch"])
    async def test_connection_in_use_at_close_is_closed_on_return(
        self, opened: Open, way: str
    ) -> None:
        database = opened()
        ways: dict[str, Callable[[], AbstractAsyncContextManager[AsyncConnection]]] = {
            "connection": database.connection,
            "probe": partial(database.probe, within=30),
            "watch": partial(database.watch, within=30),
        }
        has_begun, may_end = asyncio.Event(), asyncio.Event()

        async def wait_for_close(connection: AsyncConnection) -> Any:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            has_begun.set()
            await may_end.wait()
            return driver, await answer(connection)

        work = asyncio.ensure_future(run_on(ways[way](), wait_for_close))
        await has_begun.wait()
        closing = asyncio.create_task(database.close())
        # By then the servers' engines are disposed of; on SQLite, close() waits for its threads.
        await asyncio.wait([closing], timeout=0.1)
        may_end.set()
        driver, found = await work
        await closing

        assert found == 42
        assert is_ended(driver)

    async def test_dispose_alone_leaves_a_connection_in_use_open(self, settings: Settings) -> None:
        engine = create_engine(settings, Purpose.READING)
        async with engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await engine.dispose()

        assert not is_ended(driver)
        await driver.close() if settings.embedded else driver.close()


def is_ended(driver: Any) -> bool:
    """Return whether a driver's connection has been closed."""
    return not driver._running if isinstance(driver, aiosqlite.Connection) else driver.closed
