"""``/api/auth/me`` and ``/api/auth/password``: self-service for accounts."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from quart import Quart
from sqlalchemy import URL, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.auth import accounts
from catalog.auth.context import auth
from catalog.auth.models import LoginSession, User
from catalog.db.database import Database
from catalog.products.models import Product
from catalog.settings import Settings
from tests.auth.callers import tokens_work
from tests.auth.rows import run
from tests.db.support import on_sqlite, run_on
from tests.engines import settings_for
from tests.support import PASSWORD, Caller, Response, at_once, fields_of, problem_of

ME, PASSWORD_PATH = "/api/auth/me", "/api/auth/password"
SESSIONS = "/api/auth/sessions"
NEW = "staple battery horse correct"

# A valid body for each operation.
GOOD: dict[tuple[str, str], dict[str, str] | None] = {
    ("GET", ME): None,
    ("PATCH", ME): {"email": "lovelace@example.com"},
    ("DELETE", ME): {"password": PASSWORD},
    ("POST", PASSWORD_PATH): {"current_password": PASSWORD, "new_password": NEW},
}
each_operation = pytest.mark.parametrize(
    ("method", "path"), GOOD, ids=lambda text: text.rpartition("/")[2]
)
WITH_BODY = [operation for operation, body in GOOD.items() if body]
each_with_a_body = pytest.mark.parametrize(
    ("method", "path"), WITH_BODY, ids=lambda text: text.rpartition("/")[2]
)


@pytest.fixture
def settings(database_url: URL) -> Settings:
    """Return settings without rate limits for log-in and sign-up."""
    return settings_for(database_url, login_limit="off", signup_limit="off")


async def change_password(caller: Caller, current: str = PASSWORD, new: str = NEW) -> Response:
    body = {"current_password": current, "new_password": new}
    return await caller.post(PASSWORD_PATH, json=body)


async def change_email(caller: Caller, email: object) -> Response:
    return await caller.send("PATCH", ME, json={"email": email})


async def delete_account(caller: Caller, password: str = PASSWORD) -> Response:
    return await caller.send("DELETE", ME, json={"password": password})


async def counted(database: Database, model: type[Any]) -> int:
    async def count(connection: AsyncConnection) -> int:
        return await connection.scalar(select(func.count()).select_from(model)) or 0

    return await run_on(database.connection(), count)


class TestEachOperation:
    @each_operation
    async def test_anonymous_request_is_refused(
        self, stranger: Caller, method: str, path: str
    ) -> None:
        answer = await stranger.send(method, path, json=GOOD[method, path])

        assert problem_of(answer) == (401, "token-missing")

    @each_operation
    async def test_refresh_token_is_the_wrong_kind(
        self, holder: Caller, method: str, path: str
    ) -> None:
        body = GOOD[method, path]
        answer = await holder.send(method, path, json=body, token=holder.refresh_token)

        assert problem_of(answer) == (401, "token-wrong-kind")

    @on_sqlite
    async def test_request_after_log_out_is_refused(self, ada: Caller) -> None:
        await ada.post("/api/auth/logout")

        for (method, path), body in GOOD.items():
            answer = await ada.send(method, path, json=body)
            assert problem_of(answer) == (401, "session-ended")

    @on_sqlite
    @each_with_a_body
    async def test_invalid_body_is_refused(self, ada: Caller, method: str, path: str) -> None:
        good = GOOD[method, path]
        assert good is not None
        json = {"Content-Type": "application/json"}

        missing = await ada.send(method, path, json={})
        null = await ada.send(method, path, json=dict.fromkeys(good))
        number = await ada.send(method, path, json=dict.fromkeys(good, 12345678))
        unknown = await ada.send(method, path, json={**good, "role": "admin", "username": "x"})
        broken = await ada.send(method, path, data=b"{", headers=json)
        form = await ada.send(method, path, form=good)
        nothing = await ada.send(method, path)

        pointers = [f"/{name}" for name in good]
        for answer, fields in (
            (missing, pointers),
            (null, pointers),
            (number, pointers),
            (unknown, ["/role", "/username"]),
        ):
            assert problem_of(answer) == (422, "invalid")
            assert fields_of(answer) == fields
        assert problem_of(broken) == (400, "malformed")
        assert problem_of(form) == (415, "unsupported-media-type")
        assert problem_of(nothing)[0] in {400, 415}
        # No refused request has changed the account.
        assert (await ada.get(ME)).json["email"] == "ada@example.com"
        assert (await ada.log_in("ada")).status_code == 200

    @on_sqlite
    @each_operation
    async def test_response_is_not_cacheable_and_has_no_password(
        self, ada: Caller, method: str, path: str
    ) -> None:
        answer = await ada.send(method, path, json=GOOD[method, path])

        assert answer.status_code == (200 if method in {"GET", "PATCH"} else 204)
        assert answer.headers.getlist("Cache-Control") == ["no-store"]
        assert "password" not in answer.body.decode()


class TestReadAccount:
    @on_sqlite
    async def test_response_is_the_callers_own_account(self, ada: Caller, bob: Caller) -> None:
        answers = [await caller.get(ME) for caller in (ada, bob)]

        for answer, caller, name in zip(answers, (ada, bob), ("ada", "bob"), strict=True):
            assert answer.json.pop("created_at").endswith("Z")
            assert answer.json == {
                "id": caller.user_id,
                "username": name,
                "email": f"{name}@example.com",
                "role": "user",
                "disabled": False,
            }


class TestChangeEmail:
    async def test_new_address_replaces_the_old_one(self, ada: Caller, anyone: Caller) -> None:
        answer = await change_email(ada, "Lovelace@Example.com")

        assert answer.status_code == 200
        assert answer.json == (await ada.get(ME)).json
        assert answer.json["email"] == "Lovelace@Example.com"
        assert (await anyone.log_in("lovelace@example.com")).json["user"]["id"] == ada.user_id
        assert problem_of(await anyone.log_in("ada@example.com")) == (401, "credentials-wrong")
        # The old address is free again.
        assert (await anyone.sign_up("bob", email="ada@example.com")).status_code == 201

    async def test_other_spelling_of_the_own_address_is_no_conflict(self, ada: Caller) -> None:
        for email in ("ADA@example.com", "ADA@example.com", "\uff41da@example.com"):
            answer = await change_email(ada, email)

            assert answer.status_code == 200
            assert answer.json["email"] == email

    async def test_taken_address_is_refused_in_any_spelling(self, ada: Caller, bob: Caller) -> None:
        for email in ("bob@example.com", "BOB@Example.COM", "\uff42ob@example.com"):
            answer = await change_email(ada, email)

            assert problem_of(answer) == (409, "taken")
            assert fields_of(answer) == ["/email"]
        assert (await ada.get(ME)).json["email"] == "ada@example.com"
        assert (await bob.get(ME)).json["email"] == "bob@example.com"

    async def test_concurrent_changes_to_one_address_have_one_winner(
        self, ada: Caller, bob: Caller
    ) -> None:
        spellings = [
            "new@example.com",
            "NEW@example.com",
            "new@EXAMPLE.com",
            "\uff4eew@example.com",
        ]
        carol = Caller(ada.app)

        answers = await asyncio.gather(
            change_email(ada, spellings[0]),
            change_email(bob, spellings[1]),
            carol.sign_up("carol", email=spellings[2]),
            carol.sign_up("dora", email=spellings[3]),
        )

        codes = Counter(answer.status_code for answer in answers)
        assert codes in ({200: 1, 409: 3}, {201: 1, 409: 3})
        for answer in answers:
            if answer.status_code == 409:
                assert problem_of(answer) == (409, "taken")
                assert fields_of(answer) == ["/email"]

    @on_sqlite
    async def test_invalid_address_is_refused(self, ada: Caller) -> None:
        for email in ("", "ada", "ada@example.com\n", "x" * 120 + "@example.com"):
            answer = await change_email(ada, email)

            assert problem_of(answer) == (422, "invalid")
            assert fields_of(answer) == ["/email"]


class TestChangePassword:
    async def test_new_password_logs_in_and_the_old_one_does_not(
        self, ada: Caller, anyone: Caller
    ) -> None:
        answer = await change_password(ada)

        assert (answer.status_code, answer.body) == (204, b"")
        assert problem_of(await anyone.log_in("ada")) == (401, "credentials-wrong")
        assert (await anyone.log_in("ada", NEW)).status_code == 200

    async def test_other_sessions_end_and_the_current_one_stays(
        self, ada: Caller, bob: Caller
    ) -> None:
        others = [await Caller.logged_in(ada.app, "ada") for _ in range(3)]

        assert (await change_password(ada)).status_code == 204

        assert await tokens_work(ada)
        assert await tokens_work(bob)
        assert [await tokens_work(other) for other in others] == [False] * 3
        listed = (await ada.get("/api/auth/sessions")).json["sessions"]
        assert [each["current"] for each in listed] == [True]

    @on_sqlite
    async def test_wrong_current_password_changes_nothing(self, ada: Caller) -> None:
        other = await Caller.logged_in(ada.app, "ada")

        answer = await change_password(ada, current="wrong password")

        assert problem_of(answer) == (403, "password-wrong")
        assert fields_of(answer) == ["/current_password"]
        assert "WWW-Authenticate" not in answer.headers
        assert await tokens_work(other)
        assert (await ada.log_in("ada")).status_code == 200

    @on_sqlite
    async def test_password_that_sign_up_refuses_is_refused(self, ada: Caller) -> None:
        for password in ("", "x" * 7, "x" * 129, "e\u0301" * 7, "nul\0nul\0"):
            answer = await change_password(ada, new=password)

            assert problem_of(answer) == (422, "invalid")
            assert fields_of(answer) == ["/new_password"]
        assert (await ada.log_in("ada")).status_code == 200

    async def test_concurrent_changes_have_one_winner(self, ada: Caller, anyone: Caller) -> None:
        passwords = [f"{NEW} {number}" for number in range(5)]

        answers = await at_once(5, lambda number: change_password(ada, new=passwords[number]))

        won = [answer.status_code for answer in answers].index(204)
        refused = [problem_of(answer) for answer in answers if answer.status_code != 204]
        assert refused == [(403, "password-wrong")] * 4
        assert {tuple(fields_of(a)) for a in answers if a.body} == {("/current_password",)}
        for number, password in enumerate(passwords):
            expected = 200 if number == won else 401
            assert (await anyone.log_in("ada", password)).status_code == expected

    async def test_concurrent_log_in_with_the_old_password_gets_no_lasting_session(
        self, ada: Caller, anyone: Caller
    ) -> None:
        for number in range(5):
            old = PASSWORD if number == 0 else f"{NEW} {number - 1}"
            changed, *logged_in = await asyncio.gather(
                change_password(ada, current=old, new=f"{NEW} {number}"),
                *(anyone.log_in("ada", old) for _ in range(3)),
            )

            assert changed.status_code == 204
            for answer in logged_in:
                assert answer.status_code in {200, 401}
                if answer.status_code == 200:
                    assert not await tokens_work(Caller(ada.app, answer.json))

    @on_sqlite
    async def test_new_password_is_normalized_as_at_sign_up(
        self, ada: Caller, anyone: Caller
    ) -> None:
        new = "e\u0301" * 8

        assert (await change_password(ada, new=new)).status_code == 204

        assert (await anyone.log_in("ada", "\u00e9" * 8)).status_code == 200


class TestDeleteAccount:
    async def test_account_is_deleted_with_its_products(
        self, ada: Caller, bob: Caller, database: Database
    ) -> None:
        for name in ("Lamp", "Desk"):
            await ada.create_product(name)
        await bob.create_product("Chair")

        answer = await delete_account(ada)

        assert (answer.status_code, answer.body) == (204, b"")
        products = (await bob.get("/api/products")).json["products"]
        assert [product["name"] for product in products] == ["Chair"]
        assert await counted(database, Product) == 1
        assert await counted(database, User) == 1
        assert problem_of(await bob.log_in("ada")) == (401, "credentials-wrong")

    async def test_products_of_several_transactions_are_deleted_before_the_account(
        self, ada: Caller, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.products.service.MAX_DELETED", 2)
        for number in range(5):
            await ada.create_product(f"Lamp {number}")

        answer = await delete_account(ada)

        assert answer.status_code == 204
        assert (await counted(database, Product), await counted(database, User)) == (0, 0)
        changes = (await ada.get("/api/products/changes?since=5")).json["changes"]
        assert [(each["type"], each["id"]) for each in changes] == [
            ("deleted", number + 1) for number in range(5)
        ]

    async def test_sessions_end_with_the_account(self, ada: Caller) -> None:
        other = await Caller.logged_in(ada.app, "ada")

        await delete_account(ada)

        for caller in (ada, other):
            assert problem_of(await caller.get(ME)) == (401, "session-ended")
            refreshed = await caller.post("/api/auth/refresh", token=caller.refresh_token)
            assert problem_of(refreshed) == (401, "session-ended")
            assert problem_of(await caller.create_product("Lamp")) == (401, "session-ended")
        assert problem_of(await delete_account(ada)) == (401, "session-ended")

    async def test_address_and_agent_of_sessions_are_deleted(
        self, app: Quart, bob: Caller, database: Database
    ) -> None:
        origin = {"X-Forwarded-For": "192.0.2.7", "User-Agent": "a browser"}
        fields = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
        signed_up = await Caller(app).post("/api/auth/signup", json=fields, headers=origin)

        async def origins(connection: AsyncConnection) -> set[tuple[str, str]]:
            columns = select(LoginSession.address, LoginSession.agent)
            return {(address, agent) for address, agent in await connection.execute(columns)}

        assert ("192.0.2.7", "a browser") in await run_on(database.connection(), origins)

        await delete_account(Caller(app, signed_up.json))

        assert not any("192.0.2.7" in row for row in await run_on(database.connection(), origins))
        assert not any("a browser" in row for row in await run_on(database.connection(), origins))
        assert await tokens_work(bob)

    @on_sqlite
    async def test_name_and_email_are_free_after_deletion(
        self, ada: Caller, anyone: Caller
    ) -> None:
        await delete_account(ada)

        newcomer = Caller(ada.app, (await anyone.sign_up("ada")).json)

        assert newcomer.user_id != ada.user_id
        assert (await newcomer.get("/api/products/my")).json["products"] == []
        assert problem_of(await ada.get(ME)) == (401, "session-ended")

    @on_sqlite
    async def test_wrong_password_deletes_nothing(self, ada: Caller) -> None:
        await ada.create_product("Lamp")

        answer = await delete_account(ada, "wrong password")

        assert problem_of(answer) == (403, "password-wrong")
        assert fields_of(answer) == ["/password"]
        assert len((await ada.get("/api/products/my")).json["products"]) == 1

    @on_sqlite
    async def test_last_administrator_cannot_be_deleted(self, admin: Caller) -> None:
        admin = await Caller.logged_in(admin.app, "grace")

        answer = await delete_account(admin)

        assert problem_of(answer) == (409, "last-admin")
        assert (await admin.get(ME)).json["role"] == "admin"

    @on_sqlite
    async def test_second_administrator_can_be_deleted(self, admin: Caller, ada: Caller) -> None:
        admin = await Caller.logged_in(admin.app, "grace")
        promoted = await admin.send("PATCH", f"/api/users/{ada.user_id}", json={"role": "admin"})
        assert promoted.status_code == 200

        assert (await delete_account(admin)).status_code == 204
        assert problem_of(await delete_account(ada)) == (409, "last-admin")

    async def test_concurrent_deletions_have_one_winner(
        self, ada: Caller, database: Database
    ) -> None:
        answers = await at_once(4, lambda _: delete_account(ada))

        statuses = sorted(answer.status_code for answer in answers)
        assert statuses[0] == 204
        assert set(statuses[1:]) <= {401, 403}
        assert await counted(database, User) == 0

    async def test_concurrent_products_do_not_outlive_the_account(
        self, ada: Caller, database: Database
    ) -> None:
        answers = await asyncio.gather(
            delete_account(ada), *(ada.create_product(f"Lamp {number}") for number in range(8))
        )

        assert answers[0].status_code == 204
        assert {answer.status_code for answer in answers[1:]} <= {201, 401, 409}
        assert await counted(database, Product) == 0

    async def test_concurrent_log_in_does_not_outlive_the_account(self, ada: Caller) -> None:
        anyone = Caller(ada.app)

        _, *logged_in = await asyncio.gather(
            delete_account(ada), *(anyone.log_in("ada") for _ in range(4))
        )

        for answer in logged_in:
            assert answer.status_code in {200, 401}
            if answer.status_code == 200:
                assert not await tokens_work(Caller(ada.app, answer.json))


class TestSessions:
    @pytest.mark.parametrize(("method", "path"), [("GET", SESSIONS), ("DELETE", f"{SESSIONS}/1")])
    async def test_anonymous_request_is_refused(
        self, stranger: Caller, method: str, path: str
    ) -> None:
        assert problem_of(await stranger.send(method, path)) == (401, "token-missing")

    @on_sqlite
    async def test_ended_session_is_refused_and_the_callers_own_stays(self, ada: Caller) -> None:
        again = await Caller.logged_in(ada.app, "ada")
        listed = (await ada.get(SESSIONS)).json["sessions"]
        (other,) = (each["id"] for each in listed if not each["current"])

        ended = await ada.send("DELETE", f"{SESSIONS}/{other}")

        assert (ended.status_code, ended.body) == (204, b"")
        assert problem_of(await again.get(ME)) == (401, "session-ended")
        assert (await ada.get(ME)).status_code == 200
        assert problem_of(await ada.send("DELETE", f"{SESSIONS}/{other}")) == (404, "not-found")


class TestSharedReads:
    async def test_concurrent_reads_share_round_trips(
        self, ada: Caller, bob: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batches: list[list[int]] = []

        async def noted(connection: Any, ids: Any) -> Any:
            batches.append(sorted(ids))
            return await accounts.read_usable(connection, ids)

        reader = auth(ada.app).accounts
        monkeypatch.setattr(reader._loader, "_read", noted)

        answers = await at_once(60, lambda number: (ada, bob)[number % 2].get(ME))

        expected = [ada.user_id, bob.user_id] * 30
        assert [answer.json["id"] for answer in answers] == expected
        assert len(batches) < 20

    async def test_read_after_a_change_shows_it(self, ada: Caller, database: Database) -> None:
        for number in range(5):
            email = f"ada{number}@example.com"
            reading = asyncio.gather(*(ada.get(ME) for _ in range(5)))
            assert (await change_email(ada, email)).status_code == 200
            assert (await ada.get(ME)).json["email"] == email
            await reading

        disable = update(User).where(User.id == ada.user_id).values(disabled=True)
        await run(database, disable)
        assert problem_of(await ada.get(ME)) == (401, "account-unavailable")
