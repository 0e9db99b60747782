"""Reads at the same time: each waits for its turn, up to a bound that suits its cost."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from quart import Quart
from sqlalchemy import URL

from catalog import app as composition
from catalog.app import HOT_OPERATIONS, create_app
from catalog.db.database import Database
from catalog.http.context import app_state
from catalog.http.middleware.concurrency_limit import UNBOUNDED
from catalog.observability.metrics import REGISTRY
from catalog.settings import Settings
from tests.db.support import PATIENT, Stopwatch, on_servers
from tests.engines import settings_for
from tests.faults.proxy import relayed
from tests.support import Caller, Response, problem_of

CLIENTS = 512
"""As many as the benchmark has; any of them may be connected to the same worker."""

PATHS = {
    "one": "/api/products/{}",
    "my": "/api/products/my?limit=1&max_price={}",
    "my, the same page": "/api/products/my",
    "me": "/api/auth/me",
    "sessions": "/api/auth/sessions",
    "changes": "/api/products/changes?limit=1&since={}",
}
"""Paths of reads, with a number from 1 to ``CLIENTS``."""

FEW = 8

VERY_PATIENT = replace(PATIENT, checkout=300.0, read=300.0, write=300.0)
"""Deadlines that a busy machine keeps for hundreds of requests."""


@pytest.fixture(autouse=True)
def very_patient_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composition, "DEADLINES", VERY_PATIENT)


@asynccontextmanager
async def held_connections(database: Database) -> AsyncIterator[None]:
    """Use all connections for reads inside the context."""
    async with AsyncExitStack() as stack:
        for _ in range(database.max_readers):
            _ = await stack.enter_async_context(database.connection())
        yield


@asynccontextmanager
async def serving(settings: Settings, **overrides: Any) -> AsyncIterator[Quart]:
    """Run an app with bounds or deadlines that were changed."""
    app = create_app(settings.model_copy(update=overrides))
    async with app.test_app():
        yield app


def requests_in_progress(app: Quart) -> float:
    for measure in app_state(app).gauges:
        measure()
    return REGISTRY.get_sample_value("catalog_http_requests_in_progress") or 0


async def crowd(ada: Caller, path: str, count: int = CLIENTS) -> list[asyncio.Task[Response]]:
    """Send requests, and return when each of them waits or has been answered."""
    before = requests_in_progress(ada.app)
    tasks = [asyncio.create_task(ada.get(path.format(number + 1))) for number in range(count)]
    while requests_in_progress(ada.app) - before + sum(task.done() for task in tasks) < count:
        # Each look costs a turn of the event loop, which does the requests' work.
        await asyncio.sleep(0)
    return tasks


async def outcomes(tasks: Sequence[asyncio.Task[Response]]) -> Counter[int]:
    """Return the number of each status, after checking the refusals."""
    answers = await asyncio.gather(*tasks)
    for answer in answers:
        if answer.status_code == 503:
            assert problem_of(answer)[1] in {"overloaded", "database-busy", "database-unavailable"}
            assert int(answer.headers["Retry-After"]) > 0
    return Counter(answer.status_code for answer in answers)


@pytest.fixture
async def shop(ada: Caller) -> Caller:
    """Return the owner of as many products as clients."""
    lines = CLIENTS * b'{"name": "Lamp", "price": 1}\n'
    headers = {"Content-Type": "application/x-ndjson"}
    told = await ada.post("/api/products", data=lines, headers=headers)
    assert (told.json["created"], told.json["first_id"]) == (CLIENTS, 1)
    return ada


class TestBound:
    @pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
    async def test_every_read_of_many_clients_is_answered(
        self, shop: Caller, database: Database, path: str
    ) -> None:
        async with held_connections(database):
            tasks = await crowd(shop, path)
            assert not any(task.done() for task in tasks)

        assert await outcomes(tasks) == {200: CLIENTS}

    async def test_control_with_a_shared_bound_refuses_half_of_the_reads(
        self, monkeypatch: pytest.MonkeyPatch, settings: Settings
    ) -> None:
        """Negative control: the operations share one bound, of half as many reads as clients."""
        monkeypatch.setattr(composition, "MAX_READS", CLIENTS // 2)
        shared = [each._replace(max_requests=None) for each in HOT_OPERATIONS]
        monkeypatch.setattr(composition, "HOT_OPERATIONS", shared)
        async with serving(settings) as app:
            ada = await Caller.signed_up(app, "ada")
            for path in (PATHS["my"], PATHS["me"], PATHS["one"]):
                async with held_connections(app_state(app).database):
                    tasks = await crowd(ada, path)
                    refused = [task for task in tasks if task.done()]

                assert await outcomes(refused) == {503: CLIENTS // 2}
                await asyncio.gather(*tasks)

    @pytest.mark.parametrize("fast_path", ["on", "off"])
    async def test_reads_beyond_the_bound_are_refused_at_once(
        self, monkeypatch: pytest.MonkeyPatch, settings: Settings, fast_path: str
    ) -> None:
        monkeypatch.setattr(composition, "MAX_READS", FEW)
        bounded = [
            each if each.max_requests in {None, UNBOUNDED} else each._replace(max_requests=FEW)
            for each in HOT_OPERATIONS
        ]
        monkeypatch.setattr(composition, "HOT_OPERATIONS", bounded)
        async with serving(settings, fast_path=fast_path) as app:
            ada = await Caller.signed_up(app, "ada")
            for path in (PATHS["me"], PATHS["sessions"]):
                async with held_connections(app_state(app).database):
                    tasks = await crowd(ada, path, 2 * FEW)
                    refused = [task for task in tasks if task.done()]
                    assert await outcomes(refused) == {503: FEW}

                assert await outcomes(tasks) == {200: FEW, 503: FEW}

    async def test_reads_take_no_place_of_others_and_of_writes(
        self, monkeypatch: pytest.MonkeyPatch, settings: Settings
    ) -> None:
        monkeypatch.setattr(composition, "MAX_READS", FEW)
        monkeypatch.setattr(composition, "MAX_WRITES", FEW)
        async with serving(settings, fast_path="on") as app:
            ada = await Caller.signed_up(app, "ada")
            async with held_connections(app_state(app).database):
                tasks = [
                    task
                    for path in (PATHS["me"], PATHS["my"], PATHS["my, the same page"])
                    for task in await crowd(ada, path, 2 * FEW)
                ]
                tasks += await crowd(ada, PATHS["sessions"], FEW)
                created = await ada.create_product("Lamp")
                assert not any(task.done() for task in tasks)

            assert created.status_code == 201
            assert await outcomes(tasks) == {200: len(tasks)}


@on_servers
class TestDeadline:
    async def test_waiting_reads_are_refused_while_the_database_does_not_answer(
        self, database_url: URL, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(composition, "DEADLINES", replace(PATIENT, read=4.0))
        async with relayed(database_url) as relay, serving(settings_for(relay.url)) as app:
            ada = await Caller.signed_up(app, "ada")
            relay.stall()
            stopwatch = Stopwatch()
            tasks = [task for path in PATHS.values() for task in await crowd(ada, path, 200)]

            assert await outcomes(tasks) == {503: len(tasks)}
            # Without their deadlines, 30 s.
            assert stopwatch.seconds < 20
            relay.heal()
            assert (await ada.get("/api/auth/me")).status_code == 200
