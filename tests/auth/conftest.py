"""The same fixtures as for the wire: a service without a database, and documented answers."""

from typing import Any

import pytest
from argon2 import PasswordHasher

from tests.http.conftest import app, bare_app, holder, stranger

__all__ = ["app", "bare_app", "holder", "stranger", "verifications"]


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords that argon2 is made to verify, in turn."""
    passwords: list[str] = []
    verify = PasswordHasher.verify

    def noting(hasher: PasswordHasher, password_hash: str, password: str) -> Any:
        passwords.append(password)
        return verify(hasher, password_hash, password)

    monkeypatch.setattr(PasswordHasher, "verify", noting)
    return passwords
