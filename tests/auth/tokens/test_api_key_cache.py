"""Cache of API keys: known ones cost no query, unknown ones few, and uses are written rarely."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from quart import Quart
from sqlalchemy import event

from catalog.auth.context import auth
from catalog.auth.models import ApiKey
from catalog.auth.tokens import api_key_cache, api_keys
from catalog.auth.tokens.api_key_cache import UNKNOWN_KEYS
from catalog.auth.tokens.api_keys import generate
from catalog.db.columns import now
from catalog.db.database import Database
from catalog.http.context import app_state
from tests.auth.callers import mine
from tests.auth.programs import PATH, program_of
from tests.auth.rows import shift
from tests.db.support import on_sqlite
from tests.support import Caller, at_once, problem_of

INVALID = (401, "token-invalid")


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """Collect the statements that are sent to a database for requests."""
    sent: list[str] = []

    def note(*arguments: Any) -> None:
        sent.append(arguments[2])

    engines = [engine.sync_engine for engine in database.engines]
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    yield sent
    for engine in engines:
        event.remove(engine, "before_cursor_execute", note)


class TestNoQueries:
    async def test_request_with_a_cached_key_does_not_query_keys(
        self, ada: Caller, database: Database
    ) -> None:
        await ada.create_product("Lamp")
        program = await program_of(ada)
        await mine(program)
        with statements(database) as by_token:
            for _ in range(20):
                assert (await mine(ada)).status_code == 200

        with statements(database) as by_key:
            for _ in range(20):
                assert (await mine(program)).status_code == 200

        assert len(by_key) == len(by_token)
        assert not [each for each in by_key if "api_keys" in each]

    async def test_key_that_is_not_cached_costs_a_query_per_request(
        self, ada: Caller, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The negative control of the test above."""
        monkeypatch.setattr(api_key_cache, "CACHED_SECONDS", 0.0)
        program = await program_of(ada)

        with statements(database) as sent:
            for _ in range(20):
                assert (await mine(program)).status_code == 200

        assert len([each for each in sent if "api_keys" in each]) == 20

    async def test_first_requests_of_a_key_share_their_queries(
        self, ada: Caller, database: Database
    ) -> None:
        program = await program_of(ada)

        with statements(database) as sent:
            answers = await at_once(50, lambda _: program.get("/api/products/my"))

        assert {answer.status_code for answer in answers} == {200}
        assert 1 <= len([each for each in sent if "api_keys" in each]) <= 3

    async def test_unknown_keys_are_refused_by_few_queries(
        self, ada: Caller, database: Database
    ) -> None:
        stranger = Caller(ada.app)
        keys = [generate() for _ in range(2 * UNKNOWN_KEYS)]

        with statements(database) as sent:
            answers = [
                await stranger.get("/api/products/my", token=key) for key in keys for _ in range(3)
            ]

        assert len([each for each in sent if "api_keys" in each]) == UNKNOWN_KEYS
        outcomes = {problem_of(answer) for answer in answers[: 3 * UNKNOWN_KEYS]}
        assert outcomes == {INVALID}
        throttled = answers[-1]
        assert problem_of(throttled) == (429, "too-many-unknown-keys")
        assert 1 <= int(throttled.headers["Retry-After"]) <= 60

    async def test_throttled_address_still_uses_keys_that_are_known(self, ada: Caller) -> None:
        program = await program_of(ada)
        await mine(program)

        for _ in range(UNKNOWN_KEYS + 1):
            await ada.get("/api/products/my", token=generate())

        assert (await mine(program)).status_code == 200
        assert (await mine(ada)).status_code == 200

    @on_sqlite
    async def test_malformed_keys_are_refused_without_a_query(
        self, ada: Caller, database: Database
    ) -> None:
        with statements(database) as sent:
            for number in range(3 * UNKNOWN_KEYS):
                answer = await ada.get("/api/products/my", token=f"ck_{number:049}")
                assert problem_of(answer) == INVALID

        assert sent == []


class TestExpiry:
    async def test_expired_key_is_refused_although_it_is_cached(
        self, ada: Caller, database: Database
    ) -> None:
        expires_at = (now() + timedelta(hours=1)).isoformat()
        program = await program_of(ada, expires_at=expires_at)
        assert (await mine(program)).status_code == 200
        cache = auth(ada.app).api_key_cache
        with statements(database) as sent:
            entries = cache._verified
            for key_hash, entry in entries.items():
                entries[key_hash] = entry._replace(expires=0.0)

            assert problem_of(await mine(program)) == (401, "token-expired")

        assert sent == []

    async def test_key_that_expires_unused_is_refused_and_not_listed(
        self, ada: Caller, database: Database
    ) -> None:
        expires_at = (now() + timedelta(hours=1)).isoformat()
        program = await program_of(ada, expires_at=expires_at)
        await shift(database, ApiKey, timedelta(hours=-2), "expires_at")

        assert problem_of(await mine(program)) == (401, "token-expired")
        assert (await ada.get(PATH)).json["keys"] == []


class TestLastUsed:
    async def test_use_is_written_rarely(self, ada: Caller, database: Database) -> None:
        program = await program_of(ada)
        cache = auth(ada.app).api_key_cache
        with statements(database) as sent:
            await cache.write_last_used()
        assert sent == []

        for _ in range(10):
            await mine(program)
        await cache.write_last_used()

        (listed,) = (await ada.get(PATH)).json["keys"]
        assert listed["last_used_at"] >= listed["created_at"]
        cache._verified.clear()
        await mine(program)
        with statements(database) as sent:
            await cache.write_last_used()
        assert sent == []
        await shift(database, ApiKey, -2 * api_keys.LAST_USED_PRECISION, "last_used_at")
        cache._verified.clear()
        await mine(program)
        await cache.write_last_used()
        (again,) = (await ada.get(PATH)).json["keys"]
        assert again["last_used_at"] >= listed["last_used_at"]


class TestOutage:
    async def test_unknown_key_is_503_while_there_is_no_database(self, bare_app: Quart) -> None:
        answer = await Caller(bare_app).get("/api/products/my", token=generate())

        assert problem_of(answer) == (503, "database-unavailable")
        assert app_state(bare_app).database.pools[0].in_use == 0
