"""Idempotency keys: a create that is repeated under its key is done once."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.app import create_app
from catalog.db.columns import now
from catalog.db.database import Database
from catalog.products import idempotency
from catalog.products.models import IdempotencyKey, Product
from catalog.settings import Settings
from tests.db.support import run_on
from tests.support import Caller, Response, at_once, fields_of, problem_of

LAMP = {"name": "Lamp", "price": 9.5, "description": "Warm \u2728"}


async def create(caller: Caller, key: str = "key", **changes: Any) -> Response:
    return await caller.post(
        "/api/products", json={**LAMP, **changes}, headers={"Idempotency-Key": key}
    )


async def count(database: Database) -> int:
    async def counted(connection: AsyncConnection) -> int:
        statement = select(func.count()).select_from(Product.__table__)
        return int((await connection.execute(statement)).scalar_one())

    return await run_on(database.connection(), counted)


class TestRepeat:
    async def test_repeat_gets_the_first_answer(self, ada: Caller, database: Database) -> None:
        first = await create(ada)
        again = await create(ada)

        assert first.status_code == again.status_code == 201
        assert again.body == first.body
        for name in ("ETag", "Location", "Catalog-Position", "Catalog-Change"):
            assert again.headers[name] == first.headers[name]
        assert "Idempotency-Replayed" not in first.headers
        assert again.headers["Idempotency-Replayed"] == "true"
        assert await count(database) == 1

    async def test_repeat_gets_the_first_answer_after_a_change_and_a_delete(
        self, ada: Caller
    ) -> None:
        first = await create(ada)
        path = first.headers["Location"]
        await ada.send("PATCH", path, json={"name": "Another"})
        assert (await create(ada)).body == first.body

        await ada.send("DELETE", path)

        assert (await create(ada)).body == first.body

    async def test_same_content_spelled_differently_is_a_repeat(
        self, ada: Caller, database: Database
    ) -> None:
        headers = {"Idempotency-Key": "key", "Content-Type": "application/json"}
        bodies = (
            b'{"name":"Lamp","price":9.5}',
            b'{ "price": 9.50, "description": null, "name": "L\\u0061mp" }',
        )

        answers = [await ada.post("/api/products", data=body, headers=headers) for body in bodies]

        assert answers[0].body == answers[1].body
        assert await count(database) == 1

    @pytest.mark.parametrize(
        "change", [{"name": "lamp"}, {"price": 9.49}, {"description": None}], ids=str
    )
    async def test_other_content_under_the_key_is_refused(
        self, ada: Caller, database: Database, change: dict[str, Any]
    ) -> None:
        await create(ada)

        answer = await create(ada, **change)

        assert problem_of(answer) == (422, "idempotency-key-reused")
        assert fields_of(answer) == ["Idempotency-Key"]
        assert await count(database) == 1

    async def test_keys_are_scoped_to_the_account(
        self, ada: Caller, bob: Caller, database: Database
    ) -> None:
        assert (await create(ada)).json["user_id"] == ada.user_id
        assert (await create(bob)).json["user_id"] == bob.user_id
        assert await count(database) == 2

    async def test_refused_create_leaves_its_key_free(self, ada: Caller) -> None:
        assert problem_of(await create(ada, price=-1)) == (422, "invalid")

        assert (await create(ada)).status_code == 201

    @pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "café"])
    async def test_key_that_is_empty_too_long_or_not_printable_ascii_is_invalid(
        self, ada: Caller, key: str
    ) -> None:
        answer = await create(ada, key)

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == ["Idempotency-Key"]

    async def test_printable_ascii_of_up_to_255_characters_is_a_key(
        self, ada: Caller, database: Database
    ) -> None:
        for key in ('"quoted"', "'; DROP TABLE users; --", "%s %%", "x" * 255, "X" * 255):
            first = await create(ada, key)
            assert (await create(ada, key)).body == first.body

        assert await count(database) == 5


class TestConcurrentCreates:
    async def test_concurrent_creates_under_a_key_create_one_product(
        self, ada: Caller, database: Database
    ) -> None:
        answers = await at_once(10, lambda _: create(ada))

        created = {answer.body for answer in answers if answer.status_code == 201}
        refused = [answer for answer in answers if answer.status_code != 201]
        assert len(created) == 1
        assert {problem_of(answer) for answer in refused} <= {(409, "idempotency-key-in-use")}
        assert await count(database) == 1

    async def test_key_holds_across_processes_for_simultaneous_creates(
        self, settings: Settings, ada: Caller, database: Database
    ) -> None:
        other_app = create_app(settings)
        async with other_app.test_app():
            elsewhere = Caller(other_app)
            elsewhere.access_token = ada.access_token
            for number in range(20):
                pair = await asyncio.gather(
                    create(ada, f"key {number}"), create(elsewhere, f"key {number}")
                )
                assert [answer.status_code for answer in pair] == [201, 201]
                assert pair[0].body == pair[1].body
                replayed = [answer.headers.get("Idempotency-Replayed") for answer in pair]
                assert sorted(map(str, replayed)) == ["None", "true"]

        assert await count(database) == 20

    async def test_creates_without_a_key_are_all_done(
        self, ada: Caller, database: Database
    ) -> None:
        await at_once(10, lambda _: ada.post("/api/products", json=LAMP))

        assert await count(database) == 10


class TestSweep:
    async def test_sweep_deletes_only_expired_keys_up_to_its_limit(
        self, ada: Caller, database: Database
    ) -> None:
        for number in range(5):
            await create(ada, str(number))
        old = update(IdempotencyKey).where(IdempotencyKey.product_id <= 3)
        aged = old.values(created_at=now() - timedelta(hours=25))
        await database.transaction(lambda session: session.execute(aged))

        async def sweep() -> int:
            return await database.transaction(idempotency.sweep, kept=timedelta(days=1), limit=2)

        assert [await sweep(), await sweep(), await sweep()] == [2, 1, 0]
        assert (await create(ada, "4")).headers["Idempotency-Replayed"] == "true"
        assert "Idempotency-Replayed" not in (await create(ada, "0")).headers
