"""Fixtures of the HTTP tests, which have no database, and a database without a service."""

from typing import Any

import pytest
from argon2 import PasswordHasher

from catalog.db.database import Database
from tests.db.support import Open, add_owner
from tests.http.conftest import app, bare_app, holder, stranger

__all__ = ["app", "bare_app", "holder", "stranger"]


@pytest.fixture
async def store(opened: Open) -> Database:
    """Return a database with one account, without a service."""
    database = opened()
    await database.transaction(add_owner)
    return database


@pytest.fixture
def onlooker(opened: Open) -> Database:
    """Return a second pool to the same database, as another process has."""
    return opened()


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Record the (hash, password) pairs that argon2 verifies, in order."""
    compared: list[tuple[str, str]] = []
    verify = PasswordHasher.verify

    def noting(hasher: PasswordHasher, password_hash: str, password: str) -> Any:
        compared.append((password_hash, password))
        return verify(hasher, password_hash, password)

    monkeypatch.setattr(PasswordHasher, "verify", noting)
    return compared
