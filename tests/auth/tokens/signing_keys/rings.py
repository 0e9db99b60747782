"""Key rings for tests."""

from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from catalog.auth.tokens.signing_keys import KeyRing
from catalog.settings import Settings
from tests.auth.tokens.signing_keys.pem import ALGORITHMS
from tests.engines import settings_for

NOWHERE = URL.create("sqlite+aiosqlite", database="/nonexistent/catalog.db")
NEW = "4c9b0e8ffd2f60a3f6d63b2d7b6f1f2c8a55d1c2b7e94f0a"
OLD = "b1946ac92492d2347c6235b4d2611184f9f0a8a5d2c0d9be"

each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


def settings_with(
    *, private: str | None = None, public: str | None = None, previous: tuple[str, ...] = ()
) -> Settings:
    return settings_for(
        NOWHERE,
        jwt_private_key=None if private is None else SecretStr(private),
        jwt_previous_public_keys=None if public is None else SecretStr(public),
        jwt_previous_secret_keys=tuple(SecretStr(each) for each in previous),
    )


def ring(secret: str = NEW, **keys: Any) -> KeyRing:
    return KeyRing(settings_with(**keys), secret)
