"""The whole service with a failing database."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import URL

from catalog.app import create_app
from tests.db.support import PATIENT, Stopwatch, on_servers
from tests.engines import settings_for
from tests.faults.proxy import relayed
from tests.support import Caller, problem_of


@on_servers
class TestOutage:
    async def test_requests_get_503_during_an_outage_and_succeed_afterwards(
        self, database_url: URL
    ) -> None:
        async with relayed(database_url) as relay:
            app = create_app(settings_for(relay.url))
            async with app.test_app():
                ada = await Caller.signed_up(app, "ada")
                relay.refuse()

                for answered in (
                    await ada.get("/api/products"),
                    await ada.get("/api/products/my"),
                    await ada.create_product("Lamp"),
                    await ada.delete(1),
                    await ada.log_in("ada"),
                ):
                    assert problem_of(answered) == (503, "database-unavailable")
                    assert str(relay.url.database) not in answered.body.decode()
                await relay.listen()

                assert (await ada.create_product("Lamp")).status_code == 201
                assert len((await ada.get("/api/products")).json["products"]) == 1

    async def test_requests_get_503_within_the_deadline_while_the_database_hangs(
        self, database_url: URL, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.app.DEADLINES", replace(PATIENT, read=4, write=4))
        async with relayed(database_url) as relay:
            app = create_app(settings_for(relay.url))
            async with app.test_app():
                ada = await Caller.signed_up(app, "ada")
                relay.stall()
                stopwatch = Stopwatch()

                answers = await asyncio.gather(ada.get("/api/products"), ada.create_product("Lamp"))

                # Without their deadlines, 30 s.
                assert stopwatch.seconds < 20
                for answered in answers:
                    assert problem_of(answered) == (503, "database-unavailable")
                relay.heal()
                assert (await ada.create_product("Lamp")).status_code == 201
