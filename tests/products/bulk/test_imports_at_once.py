"""Concurrent imports: admitted ones finish, and single writes go on."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count

import pytest

from catalog.app import create_app
from catalog.db.database import Database
from catalog.products.bulk.importing import MAX_IMPORTS
from catalog.settings import Settings
from tests.db.support import PATIENT, count_products, run_on
from tests.products.bulk.sending import lines_of, send
from tests.support import Caller, Response, problem_of

IMPORTS = 40
LINES = 3000


@asynccontextmanager
async def writing(caller: Caller) -> AsyncIterator[Counter[tuple[str, int]]]:
    """Create products and edit one repeatedly; count the outcomes by kind and status."""
    outcomes: Counter[tuple[str, int]] = Counter()
    edited = (await caller.create_product("Edited")).json["id"]
    is_over = False

    async def create() -> None:
        while not is_over:
            answer = await caller.create_product("Single")
            outcomes["create", answer.status_code] += 1

    async def edit() -> None:
        for number in count():
            if is_over:
                return
            path = f"/api/products/{edited}"
            answer = await caller.send("PATCH", path, json={"price": number % 100})
            outcomes["edit", answer.status_code] += 1

    async with asyncio.TaskGroup() as group:
        for work in (create, create, edit):
            group.create_task(work())
        yield outcomes
        is_over = True


async def import_at_once(caller: Caller) -> tuple[list[Response], list[Response]]:
    """Send all imports concurrently; return the answers of the admitted and the refused ones."""
    answers = await asyncio.gather(*(send(caller, lines_of(LINES)) for _ in range(IMPORTS)))
    refused = [each for each in answers if code_of(each) == "overloaded"]
    return [each for each in answers if each not in refused], refused


def code_of(answer: Response) -> str | None:
    return None if answer.status_code == 200 else problem_of(answer)[1]


class TestConcurrentImports:
    async def test_admitted_imports_finish_while_single_writes_go_on(
        self, ada: Caller, bob: Caller, database: Database
    ) -> None:
        async with writing(bob) as outcomes:
            admitted, refused = await import_at_once(ada)

        assert [code_of(answer) for answer in admitted] == [None] * MAX_IMPORTS
        assert {answer.json["created"] for answer in admitted} == {LINES}
        assert len(refused) == IMPORTS - MAX_IMPORTS
        assert {answer.status_code for answer in refused} == {503}
        assert all(answer.headers["Retry-After"] for answer in refused)
        assert outcomes.keys() == {("create", 201), ("edit", 200)}
        created = MAX_IMPORTS * LINES + outcomes["create", 201] + 1
        assert await run_on(database.connection(), count_products) == created

    async def test_imports_are_aborted_if_they_wait_no_longer_than_single_writes(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Negative control of the previous test: the load suffices to exhaust the pool."""
        monkeypatch.setattr(Database, "bulk_transaction", Database.transaction)
        monkeypatch.setattr("catalog.app.DEADLINES", replace(PATIENT, checkout=0.01))
        app = create_app(settings)
        async with app.test_app():
            ada = await Caller.signed_up(app, "ada")

            admitted, _ = await import_at_once(ada)

            assert "database-busy" in map(code_of, admitted)
