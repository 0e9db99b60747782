"""The two ways of using a database: a connection for reads, and a transaction."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.db.database import Database
from tests.db.support import run_on

Way = Callable[[Database, Callable[[Any], Awaitable[Any]]], Awaitable[Any]]


def reading(database: Database, work: Callable[[AsyncConnection], Awaitable[Any]]) -> Any:
    return run_on(database.connection(), work)


def transaction(database: Database, work: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
    return database.transaction(work)


both_ways = pytest.mark.parametrize("way", [reading, transaction])
