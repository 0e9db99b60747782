"""The same fixtures as for the wire: a service without a database, and documented answers."""

from typing import Any

import pytest
from argon2 import PasswordHasher

from catalog.db.database import Database
from tests.db.support import Open, add_owner
from tests.http.conftest import app, bare_app, holder, stranger

__all__ = ["app", "bare_app", "holder", "stranger"]


@pytest.fixture
async def store(opened: Open) -> Database:
    """The database without a service, with one account."""
    database = opened()
    await database.transaction(add_owner)
    return database


@pytest.fixture
def onlooker(opened: Open) -> Database:
    """The same database as another process sees it."""
    return opened()


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The hashes and passwords that argon2 is made to compare, in turn."""
    compared: list[tuple[str, str]] = []
    verify = PasswordHasher.verify

    def noting(hasher: PasswordHasher, password_hash: str, password: str) -> Any:
        compared.append((password_hash, password))
        return verify(hasher, password_hash, password)

    monkeypatch.setattr(PasswordHasher, "verify", noting)
    return compared
