"""Fixtures of the tests that look at the database itself."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import URL

from catalog.db.database import Database
from tests.db.support import Open, add_owner
from tests.engines import settings_for


@pytest.fixture
async def opened(database_url: URL) -> AsyncIterator[Open]:
    """Opens the database with other settings than the defaults, or at another address."""
    databases: list[Database] = []

    def open_database(url: URL | None = None, **overrides: Any) -> Database:
        databases.append(Database(settings_for(url or database_url, **overrides)))
        return databases[-1]

    yield open_database
    for database in databases:
        await database.close()


@pytest.fixture
async def database(opened: Open) -> Database:
    """The database as the service has it, with an account that owns products."""
    database = opened()
    await database.transaction(add_owner)
    return database
