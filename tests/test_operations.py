"""Health checks, the OpenAPI document, and the explanations of problems."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from threading import get_ident
from typing import Any

import pytest
from quart import Quart
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog import operations
from catalog.app import begin_drain, create_app
from catalog.auth.context import auth
from catalog.errors import public_errors
from catalog.http.context import app_state
from catalog.http.openapi.provider import Provider
from catalog.migrations import downgrade, exclusive
from catalog.settings import Settings
from tests.db.support import PATIENT, Stopwatch, answer, on_servers, on_sqlite, run_on
from tests.engines import migrate, settings_for
from tests.faults.proxy import relayed
from tests.support import Caller, problem_of

NOBODY_LISTENS = URL.create("mysql+aiomysql", "catalog", "", "127.0.0.1", 1, "catalog")

# Seconds; the promise is one, and a busy machine takes longer; without it, 30 s and more.
SOON = 15.0


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Caller]:
    """Start a service with these settings, and yield a caller."""
    app = create_app(settings)
    async with app.test_app():
        yield Caller(app)


class TestLiveness:
    async def test_liveness_checks_nothing_else(self) -> None:
        async with serving(settings_for(NOBODY_LISTENS)) as caller:
            stopwatch = Stopwatch()
            answered = await caller.get("/livez")

            assert (answered.status_code, answered.json) == (200, {"status": "alive"})
            assert stopwatch.seconds < SOON

    async def test_draining_process_is_alive(self) -> None:
        async with serving(settings_for(NOBODY_LISTENS)) as caller:
            begin_drain(caller.app)

            assert (await caller.get("/livez")).status_code == 200

    @on_servers
    async def test_liveness_does_not_wait_for_a_hanging_database(self, database_url: URL) -> None:
        async with relayed(database_url) as relay, serving(settings_for(relay.url)) as caller:
            relay.stall()
            stuck = asyncio.create_task(caller.get("/api/products"))
            stopwatch = Stopwatch()

            assert (await caller.get("/livez")).status_code == 200

            assert stopwatch.seconds < SOON
            relay.heal()
            assert (await stuck).status_code == 200


class TestReadiness:
    @pytest.fixture(autouse=True)
    def long_deadline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Triple the deadline, because a busy machine may exceed it."""
        assert operations.READINESS_SECONDS < 1
        monkeypatch.setattr(operations, "READINESS_SECONDS", 3.0)

    async def test_service_is_ready_on_a_current_schema(self, anyone: Caller) -> None:
        answered = await anyone.get("/readyz")

        assert answered.status_code == 200
        assert answered.json["status"] == "ready"
        assert 0 <= answered.json["revocations_age_seconds"] < SOON
        assert answered.headers["Cache-Control"] == "no-store"

    async def test_readiness_check_renews_a_list_of_revocations_that_lapsed(
        self, app: Quart, anyone: Caller
    ) -> None:
        revocations = auth(app).revocations
        while not revocations.has_lapsed:
            await revocations.poll()

        answered = await anyone.get("/readyz")

        assert answered.status_code == 200
        assert 0 <= answered.json["revocations_age_seconds"] < SOON

    async def test_service_is_not_ready_on_an_empty_database(self, empty_database_url: URL) -> None:
        async with serving(settings_for(empty_database_url)) as caller:
            answered = await caller.get("/readyz")

            assert problem_of(answered) == (503, "not-ready")
            assert "catalog migrate" in answered.json["detail"]

            await migrate(empty_database_url)
            # Ready as soon as the list of revocations has been read.
            async with asyncio.timeout(SOON):
                while (await caller.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.05)

    async def test_service_is_not_ready_when_all_migrations_are_undone(
        self, empty_database_url: URL
    ) -> None:
        await migrate(empty_database_url)
        async with exclusive(settings_for(empty_database_url)) as connection:
            await downgrade(connection, "base")

        async with serving(settings_for(empty_database_url)) as caller:
            assert problem_of(await caller.get("/readyz")) == (503, "not-ready")

    async def test_service_is_not_ready_on_an_older_schema(
        self, app: Quart, anyone: Caller
    ) -> None:
        # Simulates a release with one more migration.
        state = app_state(app)
        state.known_revisions |= {"9999"}
        state.head_revision = "9999"

        answered = await anyone.get("/readyz")

        assert problem_of(answered) == (503, "not-ready")
        assert "older" in answered.json["detail"]

    async def test_service_is_ready_on_a_newer_schema(self, empty_database_url: URL) -> None:
        await migrate(empty_database_url)
        async with exclusive(settings_for(empty_database_url)) as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

        async with serving(settings_for(empty_database_url)) as caller:
            assert (await caller.get("/readyz")).status_code == 200

    async def test_draining_process_is_not_ready(self, app: Quart, anyone: Caller) -> None:
        begin_drain(app)

        answered = await anyone.get("/readyz")

        assert problem_of(answered) == (503, "not-ready")
        assert answered.headers["Connection"] == "close"
        assert (await anyone.get("/api/products")).status_code == 200

    async def test_service_is_ready_while_all_connections_are_in_use(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.app.DEADLINES", replace(PATIENT, checkout=0.2))
        async with serving(settings) as caller:
            await self.check_readiness_while_all_are_in_use(caller)

    async def check_readiness_while_all_are_in_use(self, caller: Caller) -> None:
        database, size = (
            app_state(caller.app).database,
            app_state(caller.app).settings.database_pool_size,
        )
        # One writer, because SQLite allows no more.
        everyone, give_back = asyncio.Barrier(size + 2), asyncio.Event()

        async def hold(executor: AsyncSession | AsyncConnection) -> None:
            await answer(executor)
            await everyone.wait()
            await give_back.wait()

        holding = [asyncio.create_task(run_on(database.connection(), hold)) for _ in range(size)]
        holding.append(asyncio.create_task(database.transaction(hold)))
        await everyone.wait()

        assert problem_of(await caller.get("/api/products")) == (503, "database-busy")
        assert (await caller.get("/readyz")).status_code == 200

        give_back.set()
        await asyncio.gather(*holding)
        assert (await caller.get("/api/products")).status_code == 200

    @on_servers
    async def test_hanging_database_is_reported_within_a_second(self, database_url: URL) -> None:
        async with relayed(database_url) as relay, serving(settings_for(relay.url)) as caller:
            assert (await caller.get("/readyz")).status_code == 200
            relay.stall()

            for _ in range(2):  # With a connection that was good, and without any.
                stopwatch = Stopwatch()
                assert problem_of(await caller.get("/readyz")) == (503, "database-unavailable")
                assert stopwatch.seconds < SOON

            relay.heal()
            assert (await caller.get("/readyz")).status_code == 200

    @on_servers
    async def test_unavailable_database_is_reported_until_it_returns(
        self, database_url: URL
    ) -> None:
        async with relayed(database_url) as relay, serving(settings_for(relay.url)) as caller:
            assert (await caller.get("/readyz")).status_code == 200
            relay.refuse()

            for _ in range(2):
                stopwatch = Stopwatch()
                assert problem_of(await caller.get("/readyz")) == (503, "database-unavailable")
                assert stopwatch.seconds < SOON

            await relay.listen()
            assert (await caller.get("/readyz")).status_code == 200

    @on_servers
    async def test_concurrent_probes_are_all_answered(self, database_url: URL) -> None:
        async with relayed(database_url) as relay, serving(settings_for(relay.url)) as caller:
            relay.stall()
            stopwatch = Stopwatch()

            answers = await asyncio.gather(*(caller.get("/readyz") for _ in range(20)))

            assert {answered.status_code for answered in answers} == {503}
            assert stopwatch.seconds < SOON


@on_sqlite
class TestOpenapi:
    async def test_matching_etag_gets_304(self, anyone: Caller) -> None:
        first = await anyone.get("/openapi.json")
        again = await anyone.get("/openapi.json", headers={"If-None-Match": first.headers["ETag"]})
        stale = await anyone.get("/openapi.json", headers={"If-None-Match": '"1-0"'})

        assert first.json["openapi"].startswith("3.1")
        assert first.headers["Cache-Control"] == "no-cache"
        assert (again.status_code, again.body) == (304, b"")
        assert again.headers["ETag"] == first.headers["ETag"]
        assert (stale.status_code, stale.body) == (200, first.body)

    async def test_document_is_built_once_and_off_the_event_loop(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        threads = []
        schema = Provider.schema

        def noted(provider: Provider) -> dict[str, Any]:
            threads.append(get_ident())
            return schema(provider)

        monkeypatch.setattr(Provider, "schema", noted)
        async with serving(settings) as caller:
            answers = await asyncio.gather(*(caller.get("/openapi.json") for _ in range(5)))

        assert {answer.status_code for answer in answers} == {200}
        assert len(threads) == 1
        assert get_ident() not in threads

    async def test_document_is_identical_in_every_process(self, anyone: Caller) -> None:
        async with serving(settings_for(NOBODY_LISTENS)) as other:
            first, second = await anyone.get("/openapi.json"), await other.get("/openapi.json")

        assert first.body == second.body
        assert first.headers["ETag"] == second.headers["ETag"]


@on_sqlite
class TestProblems:
    @pytest.mark.parametrize("kind", list(public_errors()), ids=lambda kind: kind.slug)
    async def test_problem_type_explains_the_problem(self, anyone: Caller, kind: Any) -> None:
        answered = await anyone.get(f"/problems/{kind.slug}")

        assert answered.status_code == 200
        assert answered.json["type"] == f"/problems/{kind.slug}"
        assert (answered.json["code"], answered.json["status"]) == (kind.slug, kind.status)
        assert answered.json["title"] == kind.title
        assert answered.json["meaning"].endswith(".")
        assert not re.search("Args|Attributes|Raises|``", answered.json["meaning"])

    @pytest.mark.parametrize("slug", ["operator-error", "nonsense", "Not-Found", "not-found%00"])
    async def test_internal_or_unknown_slug_is_not_found(self, anyone: Caller, slug: str) -> None:
        assert problem_of(await anyone.get(f"/problems/{slug}")) == (404, "not-found")
