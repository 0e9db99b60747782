"""``/api/users``: account management by administrators."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.app import create_app
from catalog.auth.models import Role, User
from catalog.db.database import Database
from catalog.settings import Settings
from tests.auth.callers import tokens_work
from tests.db.support import on_sqlite
from tests.engines import settings_for
from tests.support import PASSWORD, Caller, Response, fields_of, problem_of, until

USERS = "/api/users"

# The documented bound, in seconds, with several workers or instances.
SOON = 2.0

OPERATIONS = {
    ("GET", USERS): None,
    ("GET", f"{USERS}/1"): None,
    ("PATCH", f"{USERS}/1"): {"disabled": True},
    ("DELETE", f"{USERS}/1/sessions"): None,
}
each_operation = pytest.mark.parametrize(
    ("method", "path"), OPERATIONS, ids=lambda text: text.removeprefix("/api/")
)


@pytest.fixture
def settings(database_url: URL) -> Settings:
    """Return settings without rate limits for log-in and sign-up."""
    return settings_for(database_url, login_limit="off", signup_limit="off")


@pytest.fixture
async def admin(admin: Caller) -> Caller:
    """Log in again as the administrator, for a token with that role."""
    return await Caller.logged_in(admin.app, "grace")


async def change(caller: Caller, user: Caller | int, **fields: object) -> Response:
    user_id = user if isinstance(user, int) else user.user_id
    return await caller.send("PATCH", f"{USERS}/{user_id}", json=fields)


async def end_sessions(caller: Caller, user: Caller) -> Response:
    return await caller.send("DELETE", f"{USERS}/{user.user_id}/sessions")


async def add_users(database: Database, count: int) -> None:
    """Insert accounts that cannot log in."""

    async def add(session: AsyncSession) -> None:
        for number in range(count):
            name = f"user{number}"
            names = {"username": name, "username_key": name}
            session.add(User(**names, email=name, email_key=name, password_hash=""))

    await database.transaction(add)


class TestEachOperation:
    @each_operation
    async def test_anonymous_request_is_refused(
        self, stranger: Caller, method: str, path: str
    ) -> None:
        answer = await stranger.send(method, path, json=OPERATIONS[method, path])

        assert problem_of(answer) == (401, "token-missing")

    @on_sqlite
    async def test_user_is_refused_for_any_account(self, ada: Caller, bob: Caller) -> None:
        assert ada.user_id == 1
        for (method, path), body in OPERATIONS.items():
            for caller in (ada, bob):
                answer = await caller.send(method, path, json=body)

                assert problem_of(answer) == (403, "forbidden")

    @each_operation
    async def test_refresh_token_is_the_wrong_kind(
        self, holder: Caller, method: str, path: str
    ) -> None:
        body = OPERATIONS[method, path]
        answer = await holder.send(method, path, json=body, token=holder.refresh_token)

        assert problem_of(answer) == (401, "token-wrong-kind")

    @on_sqlite
    async def test_administrator_is_refused_after_log_out(self, admin: Caller) -> None:
        await admin.post("/api/auth/logout")

        for (method, path), body in OPERATIONS.items():
            answer = await admin.send(method, path, json=body)
            assert problem_of(answer) == (401, "session-ended")

    @on_sqlite
    async def test_unknown_or_malformed_id_is_not_found(self, admin: Caller) -> None:
        for user_id in ("7", str(2**63 - 1)):
            path = f"{USERS}/{user_id}"
            for answer in (
                await admin.get(path),
                await admin.send("PATCH", path, json={"disabled": True}),
                await admin.send("PATCH", path, json={}),
                await admin.send("DELETE", f"{path}/sessions"),
            ):
                assert problem_of(answer) == (404, "not-found")
        for no_id in ("0", "-1", "x", "01", str(2**63), "1.0", "\u0661"):
            for method in ("GET", "PATCH"):
                answer = await admin.send(method, f"{USERS}/{no_id}", json={})
                assert problem_of(answer) == (404, "not-found"), (method, no_id)


class TestListUsers:
    async def test_list_shows_the_newest_account_first(self, ada: Caller, admin: Caller) -> None:
        answer = await admin.get(USERS)

        assert answer.status_code == 200
        assert [user["id"] for user in answer.json["users"]] == [admin.user_id, ada.user_id]
        shown = answer.json["users"][1]
        assert shown.pop("created_at").endswith("Z")
        assert shown == {
            "id": ada.user_id,
            "username": "ada",
            "email": "ada@example.com",
            "role": "user",
            "disabled": False,
        }
        assert answer.json["next"] is None

    async def test_pages_show_each_account_once(self, admin: Caller, database: Database) -> None:
        await add_users(database, 12)

        for limit in (1, 7, 12, 13, 1000):
            seen: list[int] = []
            pages = 0
            path: str | None = f"{USERS}?limit={limit}"
            while path:
                page = (await admin.get(path)).json
                seen += [user["id"] for user in page["users"]]
                pages += 1
                path = page["next"]

            assert len(seen) == 13
            assert seen == sorted(set(seen), reverse=True)
            assert pages == -(-13 // limit)

    @on_sqlite
    async def test_default_page_has_a_hundred_accounts(
        self, admin: Caller, database: Database
    ) -> None:
        await add_users(database, 100)

        first = (await admin.get(USERS)).json
        second = (await admin.get(first["next"])).json
        same = (await admin.get(f"{USERS}?cursor={first['next_cursor']}")).json

        assert (len(first["users"]), len(second["users"])) == (100, 1)
        assert second["next"] is second["next_cursor"] is None
        assert same == second

    async def test_cursor_stays_valid_when_its_account_is_deleted(
        self, ada: Caller, bob: Caller, admin: Caller
    ) -> None:
        first = (await admin.get(f"{USERS}?limit=2")).json
        await bob.send("DELETE", "/api/auth/me", json={"password": PASSWORD})

        second = (await admin.get(first["next"])).json

        assert [user["id"] for user in second["users"]] == [ada.user_id]

    @on_sqlite
    async def test_cursor_of_another_list_is_refused(self, ada: Caller, admin: Caller) -> None:
        for name in ("Lamp", "Desk"):
            await ada.create_product(name)
        products = (await admin.get("/api/products?limit=1")).json["next"].partition("?")[2]
        mine = (await ada.get("/api/products/my?limit=1")).json["next"].partition("?")[2]
        own = (await admin.get(f"{USERS}?limit=1")).json["next"].partition("?")[2]
        cursor = own.partition("&")[0]

        for query in (products, mine, "cursor=x", cursor[:-2], cursor + "A", cursor.swapcase()[6:]):
            query = query if query.startswith("cursor=") else f"cursor={query}"
            answer = await admin.get(f"{USERS}?{query}")
            assert problem_of(answer) == (400, "cursor-invalid")
        assert problem_of(await admin.get(f"/api/products?{own}")) == (400, "cursor-invalid")

    @on_sqlite
    async def test_invalid_parameter_is_reported(self, admin: Caller) -> None:
        for query in ("limit=0", "limit=1001", "limit=x", "offset=1", "role=admin"):
            answer = await admin.get(f"{USERS}?{query}")

            assert problem_of(answer) == (422, "invalid")
            assert fields_of(answer) == [query.partition("=")[0]]


class TestReadUser:
    @on_sqlite
    async def test_response_is_the_listed_account(self, ada: Caller, admin: Caller) -> None:
        answer = await admin.get(f"{USERS}/{ada.user_id}")

        assert answer.status_code == 200
        assert answer.json in (await admin.get(USERS)).json["users"]
        assert answer.json == (await ada.get("/api/auth/me")).json


async def is_admin(caller: Caller) -> bool:
    status = (await caller.get(USERS)).status_code
    assert status in {200, 403}
    return status == 200


class TestRole:
    async def test_changed_role_applies_at_once_without_a_new_log_in(
        self, ada: Caller, bob: Caller, admin: Caller
    ) -> None:
        lamp = (await bob.create_product("Lamp")).json["id"]

        answer = await change(admin, ada, role="admin")
        assert (answer.status_code, answer.json["role"]) == (200, "admin")
        assert await is_admin(ada)
        assert (await ada.delete(lamp)).status_code == 200

        await change(admin, ada, role="user")
        assert not await is_admin(ada)
        assert problem_of(await change(ada, bob, disabled=True)) == (403, "forbidden")

    @on_sqlite
    async def test_new_tokens_have_the_changed_role(self, ada: Caller, admin: Caller) -> None:
        await change(admin, ada, role="admin")

        refreshed = await ada.post("/api/auth/refresh", token=ada.refresh_token)
        again = await ada.log_in("ada")

        assert again.json["user"]["role"] == "admin"
        for tokens in (refreshed.json, again.json):
            assert (await ada.get(USERS, token=tokens["access_token"])).status_code == 200

    async def test_demoted_administrator_is_refused_where_the_change_is_not_known_yet(
        self, ada: Caller, admin: Caller, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Changes to accounts are authorized by the database, not by the token."""
        await change(admin, ada, role="admin")
        monkeypatch.setattr("catalog.app.REVOCATION_SECONDS", 60)
        other = create_app(settings)
        async with other.test_app():
            elsewhere = Caller(other, {"access_token": ada.access_token, "id": ada.user_id})
            assert await is_admin(elsewhere)

            await change(admin, ada, role="user")

            assert problem_of(await change(elsewhere, admin, disabled=True)) == (403, "forbidden")
            assert problem_of(await end_sessions(elsewhere, admin)) == (403, "forbidden")
        assert await is_admin(admin)

    @on_sqlite
    async def test_administrator_can_demote_themselves(self, ada: Caller, admin: Caller) -> None:
        await change(admin, ada, role="admin")

        assert (await change(admin, admin, role="user")).status_code == 200

        assert not await is_admin(admin)
        assert await is_admin(ada)


class TestDisabled:
    async def test_disabled_account_is_logged_out_and_cannot_log_in(
        self, ada: Caller, admin: Caller
    ) -> None:
        other = await Caller.logged_in(ada.app, "ada")

        answer = await change(admin, ada, disabled=True)

        assert (answer.status_code, answer.json["disabled"]) == (200, True)
        for caller in (ada, other):
            assert problem_of(await caller.get("/api/products/my")) == (401, "session-ended")
            refreshed = await caller.post("/api/auth/refresh", token=caller.refresh_token)
            assert problem_of(refreshed) == (401, "session-ended")
        assert problem_of(await ada.log_in("ada")) == (401, "credentials-wrong")

    async def test_enabled_account_can_log_in_but_old_tokens_stay_invalid(
        self, ada: Caller, admin: Caller
    ) -> None:
        await change(admin, ada, disabled=True)

        assert (await change(admin, ada, disabled=False)).json["disabled"] is False

        assert not await tokens_work(ada)
        assert await tokens_work(await Caller.logged_in(ada.app, "ada"))

    @on_sqlite
    async def test_products_of_a_disabled_account_stay(self, ada: Caller, admin: Caller) -> None:
        await ada.create_product("Lamp")

        await change(admin, ada, disabled=True)

        assert len((await admin.get("/api/products")).json["products"]) == 1

    async def test_concurrent_log_in_does_not_outlive_the_change(
        self, ada: Caller, admin: Caller
    ) -> None:
        anyone = Caller(ada.app)
        for _ in range(3):
            disabled, *logged_in = await asyncio.gather(
                change(admin, ada, disabled=True), *(anyone.log_in("ada") for _ in range(3))
            )

            assert disabled.status_code == 200
            for answer in logged_in:
                assert answer.status_code in {200, 401}
                if answer.status_code == 200:
                    assert not await tokens_work(Caller(ada.app, answer.json))
            await change(admin, ada, disabled=False)

    @on_sqlite
    async def test_administrator_can_disable_themselves(self, ada: Caller, admin: Caller) -> None:
        await change(admin, ada, role="admin")

        assert (await change(admin, admin, disabled=True)).status_code == 200

        assert problem_of(await admin.get(USERS)) == (401, "session-ended")
        assert await is_admin(ada)


class TestEndUserSessions:
    async def test_all_sessions_of_the_account_end_and_no_others(
        self, ada: Caller, bob: Caller, admin: Caller
    ) -> None:
        other = await Caller.logged_in(ada.app, "ada")

        answer = await end_sessions(admin, ada)

        assert (answer.status_code, answer.body) == (204, b"")
        accepted = [await tokens_work(each) for each in (ada, other, bob, admin)]
        assert accepted == [False, False, True, True]
        assert await tokens_work(await Caller.logged_in(ada.app, "ada"))
        assert (await end_sessions(admin, ada)).status_code == 204


class TestOtherInstance:
    """Other instances learn of changes within two seconds, without a query for each request."""

    async def test_roles_and_disabled_accounts_are_known_on_another_instance(
        self, ada: Caller, bob: Caller, admin: Caller, settings: Settings
    ) -> None:
        other = create_app(settings)
        async with other.test_app():

            def there(caller: Caller) -> Caller:
                return Caller(other, {"access_token": caller.access_token})

            assert (await there(bob).get("/api/products/my")).status_code == 200
            await change(admin, ada, role="admin")
            await change(admin, bob, disabled=True)

            async def knows() -> bool:
                promoted = (await there(ada).get(USERS)).status_code == 200
                return promoted and (await there(bob).get("/api/products/my")).status_code == 401

            await until(knows, within=SOON)
            await change(admin, ada, role="user")

            async def knows_better() -> bool:
                return (await there(ada).get(USERS)).status_code == 403

            await until(knows_better, within=SOON)


class TestChangeUser:
    async def test_last_administrator_cannot_be_removed(self, ada: Caller, admin: Caller) -> None:
        for fields in (
            {"role": "user"},
            {"disabled": True},
            {"role": "user", "disabled": True},
            {"role": "user", "disabled": False},
            {"role": "admin", "disabled": True},
        ):
            answer = await change(admin, admin, **fields)

            assert problem_of(answer) == (409, "last-admin")
        assert await is_admin(admin)
        assert (await change(admin, ada, disabled=True)).status_code == 200

    async def test_update_without_a_change_changes_nothing(
        self, ada: Caller, admin: Caller
    ) -> None:
        before = (await admin.get(f"{USERS}/{ada.user_id}")).json

        same: list[dict[str, Any]] = [{}, {"role": "user"}, {"disabled": False}]
        for fields in same:
            answer = await change(admin, ada, **fields)
            assert (answer.status_code, answer.json) == (200, before)

        assert (await change(admin, admin)).json["role"] == "admin"
        assert await tokens_work(ada)

    @on_sqlite
    async def test_invalid_fields_are_reported(self, ada: Caller, admin: Caller) -> None:
        cases: list[tuple[dict[str, Any], list[str]]] = [
            ({"role": None}, ["/role"]),
            ({"disabled": None}, ["/disabled"]),
            ({"role": "Admin"}, ["/role"]),
            ({"role": "root"}, ["/role"]),
            ({"role": ""}, ["/role"]),
            ({"role": 1}, ["/role"]),
            ({"role": ["admin"]}, ["/role"]),
            ({"role": {"admin": True}}, ["/role"]),
            ({"disabled": 1}, ["/disabled"]),
            ({"disabled": "true"}, ["/disabled"]),
            ({"role": "user ", "disabled": 0}, ["/role", "/disabled"]),
            ({"email": "x@example.com", "role": "admin"}, ["/email"]),
            ({"username": "x"}, ["/username"]),
            ({"password": PASSWORD}, ["/password"]),
            ({"id": 7}, ["/id"]),
        ]
        for fields, pointers in cases:
            answer = await change(admin, ada, **fields)

            assert problem_of(answer) == (422, "invalid")
            assert fields_of(answer) == pointers
        assert not await is_admin(ada)

    @on_sqlite
    async def test_body_that_is_not_a_json_object_is_refused(
        self, ada: Caller, admin: Caller
    ) -> None:
        path = f"{USERS}/{ada.user_id}"
        json = {"Content-Type": "application/json"}

        for body in (b"[]", b"null", b'"admin"', b"7"):
            answer = await admin.send("PATCH", path, data=body, headers=json)
            assert problem_of(answer) == (422, "invalid")
        assert problem_of(await admin.send("PATCH", path, data=b"{", headers=json))[0] == 400
        form = await admin.send("PATCH", path, form={"role": "admin"})
        assert problem_of(form) == (415, "unsupported-media-type")

    async def test_mutual_demotion_leaves_one_administrator(
        self, ada: Caller, admin: Caller
    ) -> None:
        await change(admin, ada, role="admin")

        answers = await asyncio.gather(
            change(admin, ada, role="user"), change(ada, admin, role=Role.USER)
        )

        first, second = sorted(answer.status_code for answer in answers)
        assert first == 200
        assert second in {403, 409}
        assert [await is_admin(admin), await is_admin(ada)].count(True) == 1
