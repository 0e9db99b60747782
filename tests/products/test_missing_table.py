"""Permanent database errors: answered 503, with the cause in the log."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from quart import Quart
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from catalog.db.database import Database
from catalog.http.context import app_state
from tests.support import Caller, problem_of


async def rename(database: Database, old: str, new: str) -> None:
    async def work(session: AsyncSession) -> None:
        await session.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

    await database.transaction(work)


@pytest.fixture
async def owner_of_lost_products(app: Quart, ada: Caller) -> AsyncIterator[Caller]:
    """Yield an account while the products table is missing."""
    await ada.create_product("Lamp")
    await rename(app_state(app).database, "products", "products_lost")
    yield ada
    await rename(app_state(app).database, "products_lost", "products")


class TestMissingTable:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/api/products"),
            ("GET", "/api/products/my"),
            ("GET", "/api/products/1"),
            ("GET", "/api/products?q=lamp"),
            ("DELETE", "/api/products/1"),
            ("POST", "/api/products"),
        ],
    )
    async def test_missing_table_is_answered_503_and_named_in_the_log(
        self, owner_of_lost_products: Caller, method: str, path: str
    ) -> None:
        body: dict[str, Any] = {"json": {"name": "Lamp", "price": 1}} if method == "POST" else {}

        with capture_logs() as logs:
            answer = await owner_of_lost_products.send(method, path, **body)

        assert problem_of(answer) == (503, "database-unavailable")
        (refusal,) = [event for event in logs if event["event"] == "request_refused"]
        assert "products" in refusal["cause"]
        assert [event for event in logs if event["event"] == "request_failed"] == []
