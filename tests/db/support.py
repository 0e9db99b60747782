"""Helpers for database tests: rows, locks held by other processes, waiting for conditions."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import pytest
from sqlalchemy import URL, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth.models import User
from catalog.db.database import Database
from catalog.db.deadlines import Deadlines
from catalog.errors import DatabaseBusy, DatabaseUnavailable
from catalog.products.models import Product
from tests.support import until

C = TypeVar("C")
P = ParamSpec("P")
T = TypeVar("T")

OWNER = 1
"""Id of the account that owns the products of these tests."""

PATIENT = Deadlines(checkout=30.0, connect=20.0, read=30.0, write=30.0)
"""Deadlines that a busy machine keeps, for tests of other things than deadlines."""

LENIENCE = 10.0
"""Tolerance on timing assertions, in seconds, for a busy machine.

What is waited for without the deadline under test takes longer, or for ever.
"""

on_servers = pytest.mark.parametrize("engine", ["mariadb", "mysql"], indirect=True, scope="session")
on_sqlite = pytest.mark.parametrize("engine", ["sqlite"], indirect=True, scope="session")
on_mariadb = pytest.mark.parametrize("engine", ["mariadb"], indirect=True, scope="session")
on_mysql = pytest.mark.parametrize("engine", ["mysql"], indirect=True, scope="session")


class Open(Protocol):
    """Factory of databases: the test's own or that of a URL, with settings overridden."""

    def __call__(
        self, url: URL | None = None, *, deadlines: Deadlines = PATIENT, **overrides: Any
    ) -> Database: ...


def within(seconds: float, **limits: float) -> dict[str, Any]:
    """Return the options of ``Open`` for a deadline of reads and writes, and other limits."""
    return {"deadlines": Deadlines(read=seconds, write=seconds, **limits)}


async def add_owner(session: AsyncSession) -> None:
    """Insert the account that owns products."""
    names = {"username": "ada", "username_key": "ada"}
    addresses = {"email": "ada@example.com", "email_key": "ada@example.com"}
    session.add(User(id=OWNER, password_hash="", **names, **addresses))
    await session.flush()


async def add_product(
    session: AsyncSession,
    name: str,
    *,
    price: float = 1.0,
    description: str | None = None,
    user_id: int = OWNER,
    product_id: int | None = None,
) -> int:
    """Insert a product and return its id."""
    product = Product(
        id=product_id, name=name, price=price, description=description, user_id=user_id
    )
    session.add(product)
    await session.flush()
    return product.id


async def count_products(connection: AsyncConnection) -> int:
    """Return the number of products."""
    return await connection.scalar(select(func.count()).select_from(Product)) or 0


async def answer(executor: AsyncSession | AsyncConnection) -> int | None:
    """Run a trivial query; returns 42 if the database answers."""
    found: int | None = await executor.scalar(text("SELECT 42"))
    return found


async def run_on(
    connecting: AbstractAsyncContextManager[C],
    work: Callable[Concatenate[C, P], Awaitable[T]],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run ``work(connection, ...)`` on a connection, such as ``database.connection()``."""
    async with connecting as connection:
        return await work(connection, *args, **kwargs)


async def assert_whole(database: Database, *, readers: int, writers: int) -> None:
    """Assert that no connection has leaked: all of the pools' can be in use at once.

    It is tried repeatedly, because a busy machine may exceed a short deadline of the database.
    """

    async def all_can_be_used() -> bool:
        everyone = asyncio.Barrier(readers + writers)

        async def meet(executor: AsyncSession | AsyncConnection) -> int | None:
            found = await answer(executor)
            await everyone.wait()
            return found

        async def met(meeting: Awaitable[int | None]) -> bool:
            try:
                return await meeting == 42
            except (DatabaseBusy, DatabaseUnavailable, asyncio.BrokenBarrierError):
                await everyone.abort()
                return False

        reading = [run_on(database.connection(), meet) for _ in range(readers)]
        writing = [database.transaction(meet) for _ in range(writers)]
        return all(await asyncio.gather(*map(met, [*reading, *writing])))

    await until(all_can_be_used)


class Stopwatch:
    """Elapsed time since construction."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started


_HOLD_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def locked_by_another_process(url: URL) -> AsyncIterator[None]:
    """Have another process hold SQLite's write lock for the duration of the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _HOLD_LOCK, str(url.database)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"locked\n"
        yield
    finally:
        process.stdin.close()
        await process.wait()
