"""Revoked sessions, and how every process learns of them without a query for each request."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from quart import Quart
from sqlalchemy import URL, event, update
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from catalog.app import create_app
from catalog.auth import administration
from catalog.auth.context import auth
from catalog.auth.models import LoginSession, Role
from catalog.auth.tokens import revocations, sessions
from catalog.auth.tokens.jwt import Bearer, Kind
from catalog.auth.tokens.revocations import Revocations
from catalog.db.columns import now
from catalog.db.database import Database
from catalog.db.deadlines import DEADLINES
from catalog.errors import DatabaseUnavailable, SessionEnded
from catalog.settings import Settings
from tests.auth.callers import caller_at, mine
from tests.auth.rows import add_admin, rows_of, run
from tests.db.support import Open, on_servers, on_sqlite
from tests.engines import Engine, settings_for
from tests.faults.proxy import relayed
from tests.http.documented import hold_to_document
from tests.http.wire import tokens_of
from tests.support import Caller, problem_of, until

ENDED = (401, "session-ended")
TTL = timedelta(minutes=15)
LATENESS = timedelta(seconds=20)


@pytest.fixture
async def other_app(settings: Settings) -> AsyncIterator[Quart]:
    """Start another instance on the same database."""
    app = create_app(settings)
    hold_to_document(app)
    async with app.test_app():
        yield app


async def learns(caller: Caller, *, within: float = 2.0) -> None:
    """Wait until the caller's session is refused as ended."""

    async def is_told() -> bool:
        answer = await mine(caller)
        return answer.status_code == 401 and problem_of(answer) == ENDED

    await until(is_told, within=within)


async def session_ids(caller: Caller) -> list[int]:
    listed = (await caller.get("/api/auth/sessions")).json["sessions"]
    return [each["id"] for each in listed]


class TestLogOut:
    @pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
    async def test_log_out_with_either_token_ends_the_session(
        self, ada: Caller, other_app: Quart, kind: str
    ) -> None:
        elsewhere = await Caller.logged_in(ada.app, "ada")
        assert (await mine(caller_at(other_app, ada))).status_code == 200

        answer = await ada.post("/api/auth/logout", token=getattr(ada, kind))

        assert (answer.status_code, answer.body) == (204, b"")
        assert problem_of(await mine(ada)) == ENDED
        refreshed = await ada.post("/api/auth/refresh", token=ada.refresh_token)
        assert problem_of(refreshed) == ENDED
        await learns(caller_at(other_app, ada))
        for app in (ada.app, other_app):
            assert (await mine(caller_at(app, elsewhere))).status_code == 200

    async def test_log_out_is_idempotent_on_every_instance(
        self, ada: Caller, other_app: Quart, database: Database
    ) -> None:
        await ada.post("/api/auth/logout")
        (before,) = await rows_of(database, LoginSession)

        for caller in (ada, caller_at(other_app, ada)):
            for token in (ada.access_token, ada.refresh_token):
                answer = await caller.post("/api/auth/logout", token=token)
                assert answer.status_code == 204
        assert await rows_of(database, LoginSession) == [before]

    @on_sqlite
    async def test_repeated_log_out_revokes_the_session_on_that_instance_at_once(
        self, ada: Caller, other_app: Quart
    ) -> None:
        await ada.post("/api/auth/logout")
        ada_there = caller_at(other_app, ada)

        await ada_there.post("/api/auth/logout")

        assert problem_of(await mine(ada_there)) == ENDED


class TestLogOutEverywhere:
    async def test_all_sessions_of_the_caller_end_and_no_others(
        self, ada: Caller, bob: Caller, other_app: Quart
    ) -> None:
        again = await Caller.logged_in(other_app, "ada")

        answer = await ada.post("/api/auth/logout-all")

        assert (answer.status_code, answer.body) == (204, b"")
        assert problem_of(await mine(ada)) == ENDED
        assert problem_of(await mine(caller_at(ada.app, again))) == ENDED
        await learns(again)
        assert problem_of(await mine(caller_at(other_app, ada))) == ENDED
        for caller in (ada, again):
            answer = await caller.post("/api/auth/refresh", token=caller.refresh_token)
            assert problem_of(answer) == ENDED
        assert (await mine(bob)).status_code == 200
        assert (await mine(await Caller.logged_in(other_app, "ada"))).status_code == 200

    @on_sqlite
    async def test_refresh_token_is_refused(self, ada: Caller) -> None:
        answer = await ada.post("/api/auth/logout-all", token=ada.refresh_token)

        assert problem_of(answer) == (401, "token-wrong-kind")
        assert (await mine(ada)).status_code == 200


class TestSessions:
    async def test_list_shows_origin_and_current_session(self, ada: Caller, bob: Caller) -> None:
        headers = {"User-Agent": "lynx"}
        credentials = {"username": "ada", "password": "correct horse battery staple"}
        second = await ada.post("/api/auth/login", json=credentials, headers=headers, token="")

        listed = (await ada.get("/api/auth/sessions")).json["sessions"]
        theirs = await session_ids(bob)

        assert [(each["agent"], each["current"]) for each in listed] == [
            ("lynx", False),
            (listed[1]["agent"], True),
        ]
        assert set(listed[0]) == {
            *("id", "created_at", "last_used_at", "expires_at", "address", "agent", "current")
        }
        assert listed[0]["created_at"].endswith("Z")
        from_there = Caller(ada.app, second.json)
        assert await session_ids(from_there) == [each["id"] for each in listed]
        (current,) = [
            each["id"]
            for each in (await from_there.get("/api/auth/sessions")).json["sessions"]
            if each["current"]
        ]
        assert current == listed[0]["id"]
        assert len(theirs) == 1
        assert set(theirs).isdisjoint(each["id"] for each in listed)

    async def test_list_holds_live_sessions_only(self, ada: Caller, database: Database) -> None:
        ended, expired = [await Caller.logged_in(ada.app, "ada") for _ in range(2)]
        first, second, third = sorted(await session_ids(ada))
        await ended.post("/api/auth/logout")
        late = update(LoginSession).where(LoginSession.id == third)
        await run(database, late.values(expires_at=now()))

        assert await session_ids(ada) == [first]
        assert second
        assert expired

    async def test_other_session_of_the_caller_can_be_ended(
        self, ada: Caller, other_app: Quart
    ) -> None:
        again = await Caller.logged_in(ada.app, "ada")
        second, first = await session_ids(ada)

        answer = await ada.send("DELETE", f"/api/auth/sessions/{second}")

        assert (answer.status_code, answer.body) == (204, b"")
        assert problem_of(await mine(again)) == ENDED
        await learns(caller_at(other_app, again))
        assert await session_ids(ada) == [first]
        answer = await ada.send("DELETE", f"/api/auth/sessions/{second}")
        assert problem_of(answer) == (404, "not-found")

    @on_sqlite
    async def test_current_session_can_be_ended(self, ada: Caller) -> None:
        (current,) = await session_ids(ada)

        assert (await ada.send("DELETE", f"/api/auth/sessions/{current}")).status_code == 204

        assert problem_of(await mine(ada)) == ENDED

    @on_sqlite
    async def test_session_of_another_account_is_not_found(self, ada: Caller, bob: Caller) -> None:
        (theirs,) = await session_ids(bob)

        answer = await ada.send("DELETE", f"/api/auth/sessions/{theirs}")

        assert problem_of(answer) == (404, "not-found")
        assert (await mine(bob)).status_code == 200

    @on_sqlite
    async def test_malformed_id_is_not_found(self, ada: Caller) -> None:
        texts = ["0", "-1", "+1", "1.0", "01", "1e0", "abc", "%31%00", "%D9%A1", "1%20", "current"]

        for text in [*texts, str(2**63 - 1), str(2**63), "9" * 40]:
            answer = await ada.send("DELETE", f"/api/auth/sessions/{text}")

            assert problem_of(answer)[0] == 404, text
        assert len(await session_ids(ada)) == 1


class Statements:
    """Recorder of the statements that a database's pools execute.

    Attributes:
        texts: the statements, in order.
    """

    def __init__(self, database: Database) -> None:
        self.texts: list[str] = []
        for engine in (database._read_engine, database._write_engine):
            event.listen(engine.sync_engine, "before_cursor_execute", self._note)

    def _note(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.texts.append(statement)

    async def during(self, *asking: Any) -> int:
        """Return the number of statements while requests are answered one after the other."""
        self.texts.clear()
        for each in asking:
            await each
        return len(self.texts)


class TestQueries:
    async def test_authentication_runs_no_query(self, ada: Caller, database: Database) -> None:
        statements = Statements(database)
        stranger = Caller(ada.app)

        public = await statements.during(*(stranger.get("/api/products") for _ in range(50)))
        own = await statements.during(*(mine(ada) for _ in range(50)))

        # One for the position, except the first time, when it comes with the two of the page. On
        # the servers these are read past SQLAlchemy.
        assert public == own == (51 if database.engines[0].dialect.name == "sqlite" else 0)
        assert not any("sessions" in text or "users" in text for text in statements.texts)

    @on_sqlite
    async def test_refusal_of_an_ended_session_runs_no_query(
        self, ada: Caller, database: Database
    ) -> None:
        await ada.post("/api/auth/logout")
        statements = Statements(database)

        assert await statements.during(*(mine(ada) for _ in range(20))) == 0


class TestOutage:
    @on_servers
    async def test_last_list_of_revocations_is_used_during_an_outage(
        self, database_url: URL, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.app.REVOCATION_SECONDS", 0.1)
        elsewhere = Database(settings)
        async with relayed(database_url) as relay:
            app = create_app(settings_for(relay.url))
            async with app.test_app():
                ada, bob = [await Caller.signed_up(app, name) for name in ("ada", "bob")]
                carol = await Caller.signed_up(app, "carol")
                (theirs,) = await session_ids(bob)
                await ada.post("/api/auth/logout")

                with capture_logs() as logs:

                    async def has_failed() -> bool:
                        return any(log["event"] == "task_degraded" for log in logs)

                    async def has_recovered() -> bool:
                        return any(log["event"] == "task_recovered" for log in logs)

                    await auth(app).revocations.refresh()
                    # In use when the outage begins, so it does not lapse.
                    auth(app).revocations.is_revoked(0)
                    relay.refuse()
                    await until(has_failed)
                    await elsewhere.transaction(sessions.end, session_id=theirs)

                    for _ in range(5):
                        assert problem_of(await mine(ada)) == ENDED
                        for caller in (bob, carol):
                            assert problem_of(await mine(caller)) == (503, "database-unavailable")
                        await asyncio.sleep(0.1)
                    age = auth(app).revocations.age
                    await relay.listen()
                    await until(has_recovered)

                assert age is not None
                assert age > 0.5
                assert problem_of(await mine(bob)) == ENDED
                assert problem_of(await mine(ada)) == ENDED
                assert (await mine(carol)).status_code == 200
                tasks = [(log["event"], log["task"]) for log in logs if "task" in log]
                assert tasks == [
                    ("task_degraded", "revocations"),
                    ("task_recovered", "revocations"),
                ]
        await elsewhere.close()

    @on_sqlite
    async def test_instance_without_a_list_refuses_all_sessions_until_it_has_one(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        there = await engine.migrated_database(tmp_path)
        missing = tmp_path / "later" / "catalog.db"
        url = URL.create("sqlite+aiosqlite", database=str(missing))
        app = create_app(settings_for(url))
        with capture_logs() as logs:
            async with app.test_app():
                holder = Caller(app, await tokens_of(app))
                for _ in range(3):
                    assert problem_of(await mine(holder)) == (503, "database-unavailable")
                assert auth(app).revocations.age is None

                missing.parent.mkdir()
                await asyncio.to_thread(Path(str(there.database)).rename, missing)

                async def is_accepted() -> bool:
                    return (await mine(holder)).status_code == 200

                async def has_recovered() -> bool:
                    return any(log["event"] == "task_recovered" for log in logs)

                await until(is_accepted, within=2)
                await until(has_recovered)
        tasks = [log["event"] for log in logs if log.get("task") == "revocations"]
        assert tasks == ["task_degraded", "task_recovered"]


def watching(database: Database, **overrides: Any) -> Revocations:
    return Revocations(database, **{"access_token_ttl": TTL, "lateness": LATENESS, **overrides})


def bearer(session_id: int, *, user_id: int = 1, role: Role = Role.USER) -> Bearer:
    return Bearer(user_id, session_id, Kind.ACCESS, "", role, {}, {})


async def begin(database: Database) -> int:
    """Begin a session and return its id."""
    session_request = sessions.SessionRequest("", "", sessions.SessionLifetimes(TTL, TTL), 100)
    grant = await database.transaction(
        sessions.begin, user_id=1, role=Role.USER, session_request=session_request
    )
    return grant.session_id


def knows(revocations: Revocations, session_id: int) -> bool:
    """Tell whether a session is refused as ended."""
    try:
        revocations.check(bearer(session_id))
    except SessionEnded:
        return True
    return False


class TestLateCommits:
    """A session revoked seconds ago in a transaction that commits only now."""

    @pytest.mark.parametrize(
        ("lateness", "known"), [(LATENESS, True), (timedelta(0), False)], ids=["back", "not-back"]
    )
    async def test_late_commit_is_seen_because_each_refresh_looks_back(
        self, store: Database, opened: Open, lateness: timedelta, known: bool
    ) -> None:
        early, late = await begin(store), await begin(store)
        watch = watching(opened(), lateness=lateness)
        await watch.refresh()
        ended, commit = asyncio.Event(), asyncio.Event()

        async def end_late(session: AsyncSession) -> None:
            await sessions.end(session, session_id=late)
            # As if the transaction had begun some seconds earlier.
            moved = update(LoginSession).where(LoginSession.id == late)
            await session.execute(moved.values(revoked_at=now() - 0.8 * LATENESS))
            ended.set()
            await commit.wait()

        await store.transaction(sessions.end, session_id=early)
        ending = asyncio.create_task(store.transaction(end_late))
        await ended.wait()
        for _ in range(3):
            await watch.refresh()
        assert (knows(watch, early), knows(watch, late)) == (True, False)
        commit.set()
        await ending
        await watch.refresh()

        assert knows(watch, late) is known

    @on_sqlite
    async def test_refresh_looks_back_further_than_a_transaction_can_last(
        self, other_app: Quart, store: Database
    ) -> None:
        ended = await begin(store)
        assert not knows(auth(other_app).revocations, ended)

        age = timedelta(seconds=2 * DEADLINES.write)
        await run(store, update(LoginSession).values(revoked_at=now() - age))
        await auth(other_app).revocations.refresh()

        assert knows(auth(other_app).revocations, ended)


class TestMemory:
    async def test_revocation_is_kept_for_the_lifetime_of_a_token(
        self, store: Database, opened: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = SimpleNamespace(seconds=1000.0)
        clock.monotonic = lambda: clock.seconds
        monkeypatch.setattr(revocations, "time", clock)
        watch = watching(opened())
        first, second = await begin(store), await begin(store)
        for number, session_id in enumerate((first, second), start=1):
            await store.transaction(sessions.end, session_id=session_id)
            for _ in range(3):
                await watch.refresh()
            assert watch.count == number
            clock.seconds += 60
        # By now a refresh no longer returns them, because it asks for the latest only.
        old = update(LoginSession).values(revoked_at=now() - timedelta(minutes=1))
        await run(store, old)

        # By this clock the first session ended a minute before the second.
        clock.seconds = 1000 + TTL.total_seconds() + 30
        await watch.refresh()
        assert (knows(watch, first), knows(watch, second)) == (True, True)
        clock.seconds = 1000 + watch.kept.total_seconds() + 1
        await watch.refresh()
        assert (knows(watch, first), knows(watch, second)) == (False, True)
        clock.seconds += 60
        await watch.refresh()
        assert (knows(watch, first), knows(watch, second)) == (False, False)
        assert watch.count == 0

    async def test_process_started_later_reads_revocations_that_still_matter(
        self, store: Database, opened: Open
    ) -> None:
        just, long_ago = await begin(store), await begin(store)
        for session_id, age in ((just, TTL), (long_ago, TTL + timedelta(minutes=10))):
            ended = update(LoginSession).where(LoginSession.id == session_id)
            await run(store, ended.values(revoked_at=now() - age))

        watch = watching(opened())
        await watch.refresh()

        assert (knows(watch, just), knows(watch, long_ago)) == (True, False)

    @on_sqlite
    async def test_local_clock_ahead_of_the_database_hides_nothing(
        self, store: Database, opened: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ended = await begin(store)
        await store.transaction(sessions.end, session_id=ended)
        # Only the database's clock is used; if ``now`` were imported, it would be a day ahead.
        monkeypatch.setattr(revocations, "now", lambda: now() + timedelta(days=1), raising=False)

        watch = watching(opened())
        await watch.refresh()

        assert knows(watch, ended)

    @on_sqlite
    async def test_every_session_is_refused_before_the_first_refresh(self, opened: Open) -> None:
        watch = watching(opened())
        watch.add([1])

        for session_id in (1, 2):
            with pytest.raises(DatabaseUnavailable):
                watch.check(bearer(session_id))
        assert watch.age is None


class TestRoles:
    async def test_changed_role_overrides_the_role_in_the_token(
        self, store: Database, opened: Open
    ) -> None:
        await store.transaction(add_admin)
        watch = watching(opened())
        await watch.refresh()
        mine = bearer(1)
        assert watch.check(mine) is Role.USER

        for role in (Role.ADMIN, Role.USER, Role.ADMIN):
            await store.transaction(administration.change_user, user_id=1, caller_id=2, role=role)
            await watch.refresh()

            assert watch.check(mine) is role
            assert watch.check(bearer(1, role=Role.ADMIN)) is role
            assert watch.check(bearer(1, user_id=2, role=Role.ADMIN)) is Role.ADMIN
        assert watch.count == 1

    async def test_disabled_account_has_no_live_session(
        self, store: Database, opened: Open
    ) -> None:
        await store.transaction(add_admin)
        session_ids = [await begin(store) for _ in range(3)]
        watch = watching(opened())

        await store.transaction(administration.change_user, user_id=1, caller_id=2, disabled=True)
        await watch.refresh()

        assert all(knows(watch, session_id) for session_id in session_ids)
