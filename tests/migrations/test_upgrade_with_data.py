"""Upgrade of a database that the first schema has filled: every release must keep what is there."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from argon2 import PasswordHasher
from quart import Quart
from sqlalchemy import URL, column, insert, table
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog import migrations
from catalog.app import create_app
from catalog.auth.context import auth
from catalog.db.columns import Timestamp
from catalog.migrations import exclusive, upgrade
from tests.engines import settings_for
from tests.migrations.connections import connected
from tests.support import Caller

FIRST_REVISION = "0001"

PASSWORD = "the same since the first release"

PRODUCTS = 1_100
"""More than two chunks of the migration that indexes words."""

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

USER = {
    "id": 7,
    "username": "Ada",
    "username_key": "ada",
    "email": "Ada@Example.com",
    "email_key": "ada@example.com",
    "role": "admin",
    "disabled": False,
    "created_at": AT,
}


def name_of(product_id: int) -> str:
    return f"Lampe n° {product_id} Straße " + "\U0001f600" * (product_id % 5)


async def fill(connection: AsyncConnection, name: str, rows: list[dict[str, Any]]) -> None:
    """Insert rows without the models, which are those of the current schema."""
    columns = [
        column(each, Timestamp()) if each.endswith("_at") else column(each) for each in rows[0]
    ]
    await connection.execute(insert(table(name, *columns)), rows)


@pytest.fixture
async def upgraded(empty_database_url: URL) -> AsyncIterator[Quart]:
    """Fill a database of the first schema, upgrade it, and start the service on it."""
    settings = settings_for(empty_database_url)
    async with exclusive(settings) as connection:
        await upgrade(connection, FIRST_REVISION)
    # Stronger than the settings, so that a log-in does not rehash it.
    password_hash = PasswordHasher(time_cost=2, memory_cost=65_536, parallelism=1).hash(PASSWORD)
    rows = [
        {
            "id": number,
            "name": name_of(number),
            "description": None if number % 2 else "Für den Schreibtisch",
            "price": number / 4,
            "user_id": USER["id"],
            "version": 1,
            "created_at": AT,
            "updated_at": AT,
        }
        for number in range(1, PRODUCTS + 1)
    ]
    async with connected(empty_database_url) as connection:
        await fill(connection, "users", [{**USER, "password_hash": password_hash}])
        await fill(connection, "products", rows)
    async with exclusive(settings) as connection:
        await upgrade(connection, "head")
    app = create_app(settings)
    async with app.test_app():
        if auth(app).revocations.age is None:
            await auth(app).revocations.refresh()
        yield app


class TestUpgradeWithData:
    def test_first_revision_is_the_first(self) -> None:
        assert min(migrations.known_revisions()) == FIRST_REVISION

    async def test_accounts_and_products_are_as_before(self, upgraded: Quart) -> None:
        ada = await Caller.logged_in(upgraded, "ada@example.com", PASSWORD)

        me = (await ada.get("/api/auth/me")).json
        page = (await ada.get("/api/products?total=true&limit=1000&sort=id", token="")).json
        rest = (await ada.get(page["next"], token="")).json

        assert (me["id"], me["username"], me["role"]) == (7, "Ada", "admin")
        assert me["created_at"] == "2026-01-02T03:04:05.678901Z"
        assert page["total"] == PRODUCTS
        products = page["products"] + rest["products"]
        assert [each["name"] for each in products] == [
            name_of(number) for number in range(1, PRODUCTS + 1)
        ]
        assert [each["price"] for each in products[:3]] == [0.25, 0.5, 0.75]
        assert {each["created_at"] for each in products} == {"2026-01-02T03:04:05.678901Z"}

    async def test_earlier_products_are_found_by_their_words(self, upgraded: Quart) -> None:
        anyone = Caller(upgraded)

        found = (await anyone.get("/api/products?q=strasse 1099&total=true")).json
        described = (await anyone.get("/api/products?q=schreibt&total=true")).json

        assert [each["id"] for each in found["products"]] == [1099]
        assert described["total"] == PRODUCTS // 2

    async def test_earlier_products_change_and_are_followed(self, upgraded: Quart) -> None:
        ada = await Caller.logged_in(upgraded, "ada", PASSWORD)
        start = (await ada.get("/api/products?limit=1")).headers["Catalog-Change"]

        changed = await ada.send("PATCH", "/api/products/5", json={"price": 3})
        deleted = await ada.delete(6)
        created = await ada.create_product("New")

        assert [changed.status_code, deleted.status_code, created.status_code] == [200, 200, 201]
        assert created.json["id"] > PRODUCTS
        feed = (await ada.get(f"/api/products/changes?since={start}")).json["changes"]
        assert [(each["type"], each["id"]) for each in feed] == [
            ("updated", 5),
            ("deleted", 6),
            ("created", created.json["id"]),
        ]
