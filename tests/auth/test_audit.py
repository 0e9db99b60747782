"""The audit log: one line for each event, with account and client address, and no secret."""

import json
import logging
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import structlog
from argon2 import PasswordHasher
from quart import Quart
from sqlalchemy import URL, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth.audit import Audit
from catalog.auth.models import LoginSession, SupersededToken, User, WrongGuesses
from catalog.auth.tokens.session_state import GRACE
from catalog.db.columns import database_now
from catalog.db.database import Database
from catalog.observability.logs import configure_logging
from catalog.settings import Settings
from tests.db.support import on_sqlite, run_on
from tests.engines import settings_for
from tests.support import PASSWORD, Caller, Response, at_once, problem_of

ADDRESS = "192.0.2.7"
FROM_HERE = {"X-Forwarded-For": ADDRESS, "X-Request-ID": "a-request"}
WRONG = "a wrong password"
EVENTS = {event.value for event in Audit}


class Log:
    """The log output of a test."""

    def __init__(self) -> None:
        self.stream = StringIO()

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    def forget(self) -> None:
        """Clear the log, after the set-up of a test."""
        self.stream.seek(0)
        self.stream.truncate()

    def audited(self) -> list[dict[str, Any]]:
        """Return the audit lines without timestamp, level and logger."""
        found = []
        for line in self.lines:
            if line["event"] in EVENTS:
                assert line.pop("timestamp").endswith("Z")
                assert line.pop("level") == "info"
                assert line.pop("logger", "catalog.audit") == "catalog.audit"
                found.append(line)
        return found


@pytest.fixture
def settings(database_url: URL) -> Settings:
    """Return settings without rate limits for log-in and sign-up."""
    return settings_for(database_url, login_limit="off", signup_limit="off")


@pytest.fixture
def log_level() -> str:
    """Set the log level to errors only, which must not silence the audit log."""
    return "error"


@pytest.fixture
def log(settings: Settings, log_level: str) -> Iterator[Log]:
    """Capture the log as JSON; restore logging afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    log = Log()
    configure_logging(settings.model_copy(update={"log_level": log_level}), stream=log.stream)
    yield log
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def line(event: Audit, user_id: int | None, **details: object) -> dict[str, object]:
    """Return the expected audit line."""
    who = {"event": event.value, "user_id": user_id, "client": ADDRESS, "request_id": "a-request"}
    return {**who, **details}


async def send(
    caller: Caller, method: str, path: str, body: object = None, **options: Any
) -> Response:
    """Send a request from the client address that the audit lines must show."""
    if body is not None:
        options["json"] = body
    return await caller.send(method, f"/api/{path}", headers=FROM_HERE, **options)


async def log_in(caller: Caller, login: str, password: str = PASSWORD) -> Response:
    return await send(
        caller, "POST", "auth/login", {"username": login, "password": password}, token=""
    )


async def session_of(database: Database, caller: Caller) -> int:
    """Return the id of an account's newest session."""

    async def read(connection: AsyncConnection) -> int:
        mine = select(LoginSession.id).where(LoginSession.user_id == caller.user_id)
        newest = mine.order_by(LoginSession.id.desc()).limit(1)
        return int((await connection.execute(newest)).scalar_one())

    return await run_on(database.connection(), read)


@on_sqlite
class TestSigningIn:
    async def test_sign_up_and_log_in_are_logged_with_their_session(
        self, anyone: Caller, database: Database, log: Log
    ) -> None:
        fields = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
        ada = Caller(anyone.app, (await send(anyone, "POST", "auth/signup", fields)).json)
        first = await session_of(database, ada)
        await log_in(anyone, "ada")
        second = await session_of(database, ada)

        assert log.audited() == [
            line(Audit.SIGNED_UP, ada.user_id, session_id=first),
            line(Audit.SIGNED_IN, ada.user_id, session_id=second),
        ]

    async def test_failed_log_in_is_logged_with_the_account_if_it_exists(
        self, ada: Caller, anyone: Caller, log: Log
    ) -> None:
        await log_in(anyone, "ada", WRONG)
        await log_in(anyone, "ada@example.com", WRONG)
        await log_in(anyone, "nobody", WRONG)

        assert log.audited() == [
            line(Audit.SIGN_IN_FAILED, ada.user_id),
            line(Audit.SIGN_IN_FAILED, ada.user_id),
            line(Audit.SIGN_IN_FAILED, None),
        ]

    async def test_throttled_log_in_is_logged_with_the_account_if_it_exists(
        self, ada: Caller, anyone: Caller, log: Log
    ) -> None:
        for login in ("ada", "nobody"):
            for _ in range(10):
                await log_in(anyone, login, WRONG)
        log.forget()

        await log_in(anyone, "ada", WRONG)
        await log_in(anyone, "ada", PASSWORD)
        await log_in(anyone, "nobody", WRONG)

        assert log.audited() == [
            line(Audit.SIGN_IN_BLOCKED, ada.user_id),
            line(Audit.SIGN_IN_BLOCKED, ada.user_id),
            line(Audit.SIGN_IN_BLOCKED, None),
        ]

    async def test_concurrent_failures_are_logged_one_by_one(
        self, ada: Caller, anyone: Caller, log: Log
    ) -> None:
        answers = await at_once(30, lambda _: log_in(anyone, "ada", WRONG))

        told = [problem_of(answer)[0] for answer in answers]
        lines = [each["event"] for each in log.audited()]
        assert lines.count(Audit.SIGN_IN_FAILED) == told.count(401) == 10
        assert lines.count(Audit.SIGN_IN_BLOCKED) == told.count(429)
        assert len(lines) == told.count(401) + told.count(429)
        assert ada.user_id

    async def test_password_rehash_is_logged_once(
        self, ada: Caller, anyone: Caller, database: Database, log: Log
    ) -> None:
        outdated = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)

        async def weaken(session: AsyncSession) -> None:
            await session.execute(update(User).values(password_hash=outdated))

        await database.transaction(weaken)

        await log_in(anyone, "ada")
        session_id = await session_of(database, ada)
        await log_in(anyone, "ada")

        assert log.audited() == [
            line(Audit.SIGNED_IN, ada.user_id, session_id=session_id),
            line(Audit.PASSWORD_REHASHED, ada.user_id),
            line(Audit.SIGNED_IN, ada.user_id, session_id=session_id + 1),
        ]


async def rotate(caller: Caller, token: str | None = None) -> Response:
    token = token or caller.refresh_token
    return await send(caller, "POST", "auth/refresh", {"rotate": True}, token=token)


@on_sqlite
class TestSessions:
    async def test_token_rotation_and_reuse_are_logged(
        self, ada: Caller, database: Database, log: Log
    ) -> None:
        session_id = await session_of(database, ada)
        assert (await rotate(ada)).status_code == 200

        async def pass_time(session: AsyncSession) -> None:
            now = (await session.execute(select(database_now()))).scalar_one()
            await session.execute(update(SupersededToken).values(superseded_at=now - 2 * GRACE))

        await database.transaction(pass_time)
        read = await send(ada, "GET", "auth/refresh", token=ada.refresh_token)
        stolen = await rotate(ada)

        assert problem_of(read) == problem_of(stolen) == (401, "token-reused")
        assert log.audited() == [
            line(Audit.TOKEN_ROTATED, ada.user_id, session_id=session_id),
            line(Audit.TOKEN_REUSED, ada.user_id, session_id=session_id, ended=False),
            line(Audit.TOKEN_REUSED, ada.user_id, session_id=session_id, ended=True),
        ]

    async def test_refresh_without_rotation_is_not_logged(self, ada: Caller, log: Log) -> None:
        answer = await send(ada, "POST", "auth/refresh", token=ada.refresh_token)

        assert answer.status_code == 200
        assert log.audited() == []

    async def test_ended_sessions_are_logged_with_count_and_actor(
        self, ada: Caller, admin: Caller, log: Log
    ) -> None:
        others = [await Caller.logged_in(ada.app, "ada") for _ in range(3)]
        sessions = [each["id"] for each in (await ada.get("/api/auth/sessions")).json["sessions"]]
        admin = await Caller.logged_in(admin.app, "grace")
        by = {"by": admin.user_id}
        log.forget()

        await send(others[0], "POST", "auth/logout")
        await send(ada, "DELETE", f"auth/sessions/{sessions[1]}")
        await send(ada, "POST", "auth/logout-all")
        await send(admin, "DELETE", f"users/{ada.user_id}/sessions")

        assert log.audited() == [
            line(Audit.SIGNED_OUT, ada.user_id, session_id=sessions[2]),
            line(Audit.SESSIONS_ENDED, ada.user_id, session_id=sessions[1], count=1),
            line(Audit.SESSIONS_ENDED, ada.user_id, count=2),
            line(Audit.SESSIONS_ENDED, ada.user_id, **by, count=0),
        ]


@on_sqlite
class TestAccounts:
    async def test_changes_by_the_owner_are_logged(self, ada: Caller, log: Log) -> None:
        await Caller.logged_in(ada.app, "ada")
        log.forget()
        new = {"current_password": PASSWORD, "new_password": "staple battery horse"}

        await send(ada, "PATCH", "auth/me", {"email": "lovelace@example.com"})
        await send(ada, "POST", "auth/password", new)
        await send(ada, "POST", "auth/password", new)
        await send(ada, "DELETE", "auth/me", {"password": WRONG})
        await send(ada, "DELETE", "auth/me", {"password": new["new_password"]})

        assert log.audited() == [
            line(Audit.EMAIL_CHANGED, ada.user_id),
            line(Audit.PASSWORD_CHANGED, ada.user_id, sessions_ended=1),
            line(Audit.PASSWORD_CHECK_FAILED, ada.user_id),
            line(Audit.PASSWORD_CHECK_FAILED, ada.user_id),
            line(Audit.ACCOUNT_DELETED, ada.user_id),
        ]

    async def test_throttled_password_check_is_logged(self, ada: Caller, log: Log) -> None:
        for _ in range(12):
            await send(ada, "DELETE", "auth/me", {"password": WRONG})

        assert log.audited() == [
            *[line(Audit.PASSWORD_CHECK_FAILED, ada.user_id)] * 10,
            *[line(Audit.PASSWORD_CHECK_BLOCKED, ada.user_id)] * 2,
        ]

    async def test_changes_by_an_administrator_are_logged_with_old_and_new_values(
        self, ada: Caller, admin: Caller, log: Log
    ) -> None:
        admin = await Caller.logged_in(admin.app, "grace")
        log.forget()
        path = f"users/{ada.user_id}"

        await send(admin, "PATCH", path, {"role": "admin"})
        await send(admin, "PATCH", path, {"role": "user", "disabled": True})
        await send(admin, "PATCH", path, {"disabled": False})

        by = {"by": admin.user_id}
        assert log.audited() == [
            line(Audit.ACCOUNT_CHANGED, ada.user_id, **by, role=["user", "admin"]),
            line(
                Audit.ACCOUNT_CHANGED,
                ada.user_id,
                **by,
                role=["admin", "user"],
                disabled=[False, True],
            ),
            line(Audit.ACCOUNT_CHANGED, ada.user_id, **by, disabled=[True, False]),
        ]

    async def test_update_without_a_change_is_not_logged(
        self, ada: Caller, admin: Caller, log: Log
    ) -> None:
        admin = await Caller.logged_in(admin.app, "grace")
        log.forget()

        await send(admin, "PATCH", f"users/{ada.user_id}", {})
        await send(admin, "PATCH", f"users/{ada.user_id}", {"role": "user", "disabled": False})
        await send(admin, "GET", f"users/{ada.user_id}")

        assert log.audited() == []

    async def test_life_of_an_api_key_is_logged_without_the_key(
        self, ada: Caller, log: Log
    ) -> None:
        fields = {"name": "a secret plan", "scope": "read"}
        key = (await send(ada, "POST", "auth/keys", fields)).json["key"]
        await send(ada, "POST", "auth/logout-all", token=key)
        await send(ada, "DELETE", "auth/keys/1")

        assert log.audited() == [
            line(Audit.KEY_CREATED, ada.user_id, key_id=1, scope="read"),
            line(Audit.ACCESS_REFUSED, ada.user_id, key_id=1),
            line(Audit.KEY_REVOKED, ada.user_id, key_id=1),
        ]
        assert key not in log.text
        assert "secret plan" not in log.text

    async def test_forbidden_request_is_logged(
        self, ada: Caller, bob: Caller, database: Database, log: Log
    ) -> None:
        session_id = await session_of(database, ada)
        await send(ada, "GET", "users")
        await send(ada, "PATCH", f"users/{bob.user_id}", {"role": "admin"})

        assert log.audited() == [line(Audit.ACCESS_REFUSED, ada.user_id, session_id=session_id)] * 2


@on_sqlite
class TestAccessLog:
    @pytest.fixture
    def log_level(self) -> str:
        """Set the level at which requests are logged."""
        return "info"

    async def test_refused_request_is_logged_with_its_account(
        self, log: Log, ada: Caller, bob: Caller
    ) -> None:
        lamp = (await bob.create_product("Lamp")).json["id"]
        log.forget()

        await ada.get("/api/users")
        await ada.delete(lamp)
        await ada.post("/api/auth/logout")
        await ada.get("/api/auth/me")
        await ada.get("/api/auth/me", token="x")

        requests = [each for each in log.lines if each["event"] == "request"]
        assert [(each["status"], each["user_id"]) for each in requests] == [
            (403, ada.user_id),
            (403, ada.user_id),
            (204, ada.user_id),
            (401, ada.user_id),
            (401, None),
        ]


class TestSecrets:
    """No credential and no user input appears in a log line at any level."""

    @pytest.fixture
    def log_level(self) -> str:
        """Set the most verbose level."""
        return "debug"

    async def test_conversation_leaves_no_secret_in_the_log(
        self, log: Log, app: Quart, database: Database
    ) -> None:
        secrets = {
            *("typed-username", "Typed@Example.com", "Moved@Example.com"),
            *("a typed password", "another typed password", "a mistyped password"),
            "typed into the wrong field",
        }
        anyone = Caller(app)
        fields = {"username": "typed-username", "email": "Typed@Example.com"}
        signed_up = await send(
            anyone, "POST", "auth/signup", {**fields, "password": "a typed password"}
        )
        ada = Caller(app, signed_up.json)
        secrets |= {signed_up.json["access_token"], signed_up.json["refresh_token"]}
        taken = {**fields, "password": "a typed password"}
        assert (await send(anyone, "POST", "auth/signup", taken)).status_code == 409
        for login, password in (
            ("typed-username", "a mistyped password"),
            ("Typed@Example.com", "a mistyped password"),
            ("typed into the wrong field", "a mistyped password"),
            ("typed-username", "a typed password"),
        ):
            answer = await log_in(anyone, login, password)
        secrets |= {answer.json["access_token"], answer.json["refresh_token"]}
        rotated = [await rotate(ada), await rotate(ada)]
        secrets |= {each.json[name] for each in rotated for name in each.json}
        await rotate(ada, "not.a.token" + "secret")
        await send(ada, "PATCH", "auth/me", {"email": "Moved@Example.com"})
        change = {
            "current_password": "a mistyped password",
            "new_password": "another typed password",
        }
        await send(ada, "POST", "auth/password", change)
        change["current_password"] = "a typed password"
        assert (await send(ada, "POST", "auth/password", change)).status_code == 204
        found = await run_on(database.connection(), everything_secret)
        secrets |= found
        assert len(found) >= 5
        for token in list(secrets):
            # Part of a token (its claims, its signature) is as sensitive as the whole.
            secrets |= {part for part in token.split(".") if token.count(".") == 2 and part}
        secrets -= {rotated[0].json["access_token"].split(".")[0]}
        deleted = await send(ada, "DELETE", "auth/me", {"password": "another typed password"})
        assert deleted.status_code == 204

        assert {each["event"] for each in log.audited()} >= {
            *("signed_up", "signed_in", "sign_in_failed", "token_rotated", "email_changed"),
            *("password_check_failed", "password_changed", "account_deleted"),
        }
        text = log.text.casefold()
        assert [secret for secret in secrets if secret.casefold() in text] == []

    async def test_traceback_of_a_bug_has_no_secret(
        self, log: Log, app: Quart, ada: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def break_down(*_: object, **__: object) -> bool:
            raise RuntimeError("a bug")

        monkeypatch.setattr(PasswordHasher, "verify", break_down)

        answer = await log_in(Caller(app), "ada", "a typed password")

        assert problem_of(answer) == (500, "internal-error")
        assert "Traceback" in log.text
        assert "a typed password" not in log.text
        assert ada.user_id


async def everything_secret(connection: AsyncConnection) -> set[str]:
    """Return the hashes of passwords and tokens, and the throttled subjects, from the database."""
    found: set[str] = set()
    for column in (
        User.password_hash,
        LoginSession.refresh_hash,
        SupersededToken.token_hash,
        WrongGuesses.subject,
    ):
        found |= set((await connection.scalars(select(column))).all())
    return found


def test_every_audit_event_has_a_test() -> None:
    source = Path(__file__).read_text(encoding="utf-8")

    assert set(re.findall(r"line\(\s*Audit\.(\w+)", source)) == {event.name for event in Audit}


def test_names_of_the_events_are_stable() -> None:
    # Programs that read the log find them by these names.
    assert {event.value for event in Audit} == {
        "signed_up",
        "signed_in",
        "sign_in_failed",
        "sign_in_blocked",
        "token_rotated",
        "token_reused",
        "signed_out",
        "sessions_ended",
        "password_check_failed",
        "password_check_blocked",
        "password_changed",
        "password_rehashed",
        "email_changed",
        "account_deleted",
        "account_changed",
        "key_created",
        "key_revoked",
        "access_refused",
    }
