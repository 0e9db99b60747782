"""The list of revocations while no request uses it: no queries, and no weaker promise."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from quart import Quart
from sqlalchemy import URL, event

from catalog.app import create_app
from catalog.auth import administration
from catalog.auth.context import auth
from catalog.auth.models import Role
from catalog.auth.tokens import revocations
from catalog.auth.tokens.api_keys import generate
from catalog.auth.tokens.revocations import POLL_SECONDS, READ_SECONDS, Revocations
from catalog.db.database import Database
from catalog.errors import DatabaseUnavailable
from catalog.http.context import app_state
from catalog.settings import Settings
from tests.auth.callers import caller_at, mine
from tests.auth.rows import add_admin
from tests.db.support import Open, on_servers
from tests.engines import settings_for
from tests.faults.proxy import relayed
from tests.support import Caller, at_once, problem_of

ENDED = (401, "session-ended")
INVALID = (401, "token-invalid")
LIMIT = 2.0
"""Seconds after which a revocation holds, by contract."""


@pytest.fixture
async def other_app(settings: Settings) -> AsyncIterator[Quart]:
    """Start another instance on the same database."""
    app = create_app(settings)
    async with app.test_app():
        yield app


async def let_lapse(list_: Revocations) -> None:
    """Poll without requests, until the list has lapsed."""
    while not list_.has_lapsed:
        await list_.poll()


@contextmanager
def polls(database: Database) -> Iterator[list[str]]:
    """Collect the statements that background tasks send."""
    sent: list[str] = []

    def note(*arguments: Any) -> None:
        sent.append(arguments[2])

    engine = database._watch_engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine, "before_cursor_execute", note)


def watching(database: Database) -> Revocations:
    minutes = timedelta(minutes=15)
    return Revocations(database, access_token_ttl=minutes, lateness=timedelta(seconds=5))


class TestPolls:
    async def test_unused_list_is_not_polled(self, opened: Open) -> None:
        database = opened()
        unused = watching(database)
        await unused.poll()

        with polls(database) as sent:
            for _ in range(20):
                await unused.poll()

        assert sent == []

    async def test_used_list_is_polled(self, opened: Open) -> None:
        database = opened()
        used = watching(database)
        await used.poll()

        with polls(database) as sent:
            for _ in range(20):
                used.is_revoked(1)
                await used.poll()

        assert len(sent) == 20
        assert not used.has_lapsed

    def test_change_is_read_in_time_however_slow_polls_are(self) -> None:
        # Missed by a poll that takes its whole deadline, and read by the next one.
        assert READ_SECONDS + POLL_SECONDS + READ_SECONDS < LIMIT

    async def test_answer_that_comes_late_serves_no_later_request(
        self, opened: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = SimpleNamespace(seconds=1000.0)
        clock.monotonic = lambda: clock.seconds
        monkeypatch.setattr(revocations, "time", clock)
        monkeypatch.setattr(revocations, "READ_SECONDS", READ_SECONDS)
        database = opened()
        list_ = watching(database)

        def delay(*_: object) -> None:
            clock.seconds += READ_SECONDS

        event.listen(database._watch_engine.sync_engine, "after_cursor_execute", delay)
        await list_.refresh()

        assert list_.age is not None
        assert list_.has_lapsed


class TestPause:
    async def test_session_that_ended_meanwhile_is_refused_at_once(
        self, ada: Caller, other_app: Quart
    ) -> None:
        await let_lapse(auth(ada.app).revocations)
        await caller_at(other_app, ada).post("/api/auth/logout")

        assert problem_of(await mine(ada)) == ENDED

    async def test_control_session_is_accepted_if_the_pause_is_not_noticed(
        self, ada: Caller, other_app: Quart
    ) -> None:
        await let_lapse(auth(ada.app).revocations)
        await caller_at(other_app, ada).post("/api/auth/logout")
        auth(ada.app).revocations.has_lapsed = False

        assert (await mine(ada)).status_code == 200

    async def test_role_that_changed_meanwhile_holds_at_once(
        self, ada: Caller, database: Database
    ) -> None:
        admin_id = await database.transaction(add_admin)
        assert problem_of(await ada.get("/api/users")) == (403, "forbidden")
        await let_lapse(auth(ada.app).revocations)
        assert ada.user_id is not None
        await database.transaction(
            administration.change_user, user_id=ada.user_id, caller_id=admin_id, role=Role.ADMIN
        )

        assert (await ada.get("/api/users")).status_code == 200

    async def test_key_that_was_revoked_meanwhile_is_refused_at_once(
        self, ada: Caller, other_app: Quart
    ) -> None:
        made = (await ada.post("/api/auth/keys", json={"name": "import", "scope": "read"})).json
        program = Caller(ada.app)
        program.access_token = made["key"]
        assert (await mine(program)).status_code == 200
        await let_lapse(auth(ada.app).revocations)
        await caller_at(other_app, ada).send("DELETE", f"/api/auth/keys/{made['id']}")

        assert problem_of(await mine(program)) == INVALID

    async def test_first_requests_after_a_lapse_share_a_query(
        self, ada: Caller, database: Database
    ) -> None:
        await let_lapse(auth(ada.app).revocations)

        with polls(database) as sent:
            answers = await at_once(50, lambda _: mine(ada))

        assert {answer.status_code for answer in answers} == {200}
        # One that has begun, one for those that came too late for it, and a poll.
        assert 1 <= len(sent) <= 3

    async def test_invalid_tokens_cause_no_query(self, ada: Caller) -> None:
        await let_lapse(auth(ada.app).revocations)
        assert ada.access_token is not None
        head, claims, _ = ada.access_token.split(".")
        made_up = ["", "x", f"{head}.{claims}.c2ln", ada.refresh_token or "", generate()]

        with polls(app_state(ada.app).database) as sent:
            for token in made_up:
                answer = await ada.get("/api/products/my", headers=bearing(token), token="")
                assert answer.status_code == 401

        assert sent == []


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@on_servers
class TestSlowDatabase:
    async def test_requests_are_more_patient_than_polls(
        self, database_url: URL, opened: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(revocations, "READ_SECONDS", 0.1)
        async with relayed(database_url) as relay:
            list_ = watching(opened(relay.url))
            await list_.refresh()
            list_.is_revoked(1)
            relay.stall()
            with pytest.raises(DatabaseUnavailable):
                await list_.poll()

            asking = asyncio.create_task(list_.refresh())
            done, _ = await asyncio.wait([asking], timeout=0.3)
            relay.heal()
            await asking

        assert not done


@on_servers
class TestOutage:
    async def test_list_that_lapsed_before_an_outage_is_not_used_in_it(
        self, database_url: URL
    ) -> None:
        async with relayed(database_url) as relay:
            app = create_app(settings_for(relay.url))
            async with app.test_app():
                ada, bob = [await Caller.signed_up(app, name) for name in ("ada", "bob")]
                await bob.post("/api/auth/logout")
                await let_lapse(auth(app).revocations)
                relay.refuse()

                for caller in (ada, bob):
                    assert problem_of(await mine(caller)) == (503, "database-unavailable")

                await relay.listen()
                assert problem_of(await mine(bob)) == ENDED
                assert (await mine(ada)).status_code == 200
