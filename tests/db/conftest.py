"""Fixtures for the tests of the database layer."""

import pytest

from catalog.db.database import Database
from tests.db.support import Open, add_owner


@pytest.fixture
async def database(opened: Open) -> Database:
    """Return the database, configured as in the service, with an account that owns products."""
    database = opened()
    await database.transaction(add_owner)
    return database
