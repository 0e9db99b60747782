"""Fixtures of the tests that look at the database itself."""

import pytest

from catalog.db.database import Database
from tests.db.support import Open, add_owner


@pytest.fixture
async def database(opened: Open) -> Database:
    """The database as the service has it, with an account that owns products."""
    database = opened()
    await database.transaction(add_owner)
    return database
