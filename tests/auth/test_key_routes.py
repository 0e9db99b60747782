"""API keys over HTTP: made and revoked by their owner, used by programs."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from quart import Quart
from sqlalchemy import update

from catalog.app import create_app
from catalog.auth.models import ApiKey
from catalog.auth.tokens import api_keys
from catalog.auth.tokens.api_keys import KEYS_PER_ACCOUNT, generate, is_well_formed
from catalog.db.columns import now
from catalog.db.database import Database
from catalog.settings import Settings
from tests.auth.callers import mine
from tests.auth.programs import PATH, make, program_of
from tests.auth.rows import rows_of, run
from tests.db.support import on_sqlite
from tests.support import PASSWORD, Caller, Response, at_once, problem_of, until

INVALID = (401, "token-invalid")
NO_KEYS = (403, "session-required")
READ_ONLY = (403, "scope-insufficient")
NO_TIME = "must be a time such as 2036-01-31T12:00:00Z"


@pytest.fixture
async def other_app(settings: Settings) -> AsyncIterator[Quart]:
    """Start another instance on the same database."""
    app = create_app(settings)
    async with app.test_app():
        yield app


class TestCreateKey:
    async def test_key_is_shown_once_and_only_its_hash_is_stored(
        self, ada: Caller, database: Database
    ) -> None:
        made = await make(ada, name="nightly import", scope="read")

        assert made.status_code == 201
        assert made.headers["Cache-Control"] == "no-store"
        key = made.json["key"]
        assert is_well_formed(key)
        assert made.json["prefix"] == key[:9]
        listed = await ada.get(PATH)
        assert listed.json["keys"] == [{k: v for k, v in made.json.items() if k != "key"}]
        (row,) = await rows_of(database, ApiKey)
        assert row["key_hash"] == api_keys.hash_of(key)
        assert key not in repr(row)

    async def test_anonymous_caller_is_refused(self, anyone: Caller) -> None:
        for answer in (await make(anyone), await anyone.get(PATH), await anyone.delete(1)):
            assert problem_of(answer) == (401, "token-missing")

    @pytest.mark.parametrize(
        ("name", "value", "rule"),
        [
            ("name", "", "must not be empty"),
            ("name", " \t", "must not be blank"),
            ("name", "a\0b", "must not contain NUL characters"),
            ("name", "x" * 101, "must have at most 100 characters"),
            ("name", 5, "must be a string"),
            ("scope", "admin", "must be read or write"),
            ("scope", "Read", "must be read or write"),
            ("scope", None, "must be read or write"),
            ("expires_at", "2020-01-01T00:00:00Z", "must be in the future"),
            ("expires_at", "2099-01-01", NO_TIME),
            ("expires_at", "2099-01-01T00:00:00", NO_TIME),
            ("expires_at", "2099-02-30T00:00:00Z", NO_TIME),
            ("expires_at", "9999-12-31T23:59:59-01:00", NO_TIME),
            ("expires_at", 4102444800, "must be a time such as 2026-11-23T09:30:00Z"),
            ("expires_at", "٢٠٩٩-01-01T00:00:00Z", NO_TIME),
            ("user_id", 1, "is not a known field"),
        ],
        ids=repr,
    )
    @on_sqlite
    async def test_invalid_field_is_refused_by_name_and_rule(
        self, ada: Caller, name: str, value: object, rule: str
    ) -> None:
        refused = await make(ada, **{name: value})

        assert problem_of(refused) == (422, "invalid")
        assert refused.json["detail"] == f"{name} {rule}."
        assert refused.json["errors"] == [{"pointer": f"/{name}", "message": f"{name} {rule}."}]

    @pytest.mark.parametrize(
        ("sent", "shown"),
        [
            ("2099-01-31T12:00:00+02:00", "2099-01-31T10:00:00.000000Z"),
            ("2099-01-31T12:00:00.123456Z", "2099-01-31T12:00:00.123456Z"),
            ("2099-01-31T12:00:00.123456999Z", "2099-01-31T12:00:00.123456Z"),
            ("2099-01-31T12:00:00.1234567+02:00", "2099-01-31T10:00:00.123456Z"),
            ("2099-01-31t12:00:00.5z", "2099-01-31T12:00:00.500000Z"),
            ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
            (None, None),
        ],
    )
    async def test_expiry_is_shown_in_utc(
        self, ada: Caller, sent: str | None, shown: str | None
    ) -> None:
        assert (await make(ada, expires_at=sent)).json["expires_at"] == shown
        assert (await ada.get(PATH)).json["keys"][0]["expires_at"] == shown

    async def test_account_has_a_bounded_number_of_keys_however_they_are_made(
        self, ada: Caller, bob: Caller, database: Database
    ) -> None:
        for _ in range(KEYS_PER_ACCOUNT - 2):
            assert (await make(ada)).status_code == 201

        answers = await at_once(5, lambda _: make(ada))

        assert sorted(answer.status_code for answer in answers) == [201, 201, 409, 409, 409]
        refused = next(answer for answer in answers if answer.status_code == 409)
        assert problem_of(refused) == (409, "too-many-keys")
        assert (await make(bob)).status_code == 201
        first = (await ada.get(PATH)).json["keys"][-1]["id"]
        assert (await ada.send("DELETE", f"{PATH}/{first}")).status_code == 204
        assert (await make(ada)).status_code == 201
        assert len(await rows_of(database, ApiKey)) == KEYS_PER_ACCOUNT + 2


class TestUseKey:
    async def test_program_writes_and_reads_as_its_owner(self, ada: Caller) -> None:
        program = await program_of(ada)

        made = await program.create_product("Lamp")

        assert made.status_code == 201
        assert made.json["user_id"] == ada.user_id
        path = f"/api/products/{made.json['id']}"
        changed = await program.send("PATCH", path, json={"price": 2})
        assert changed.json["price"] == 2
        assert (await mine(program)).json == (await mine(ada)).json
        assert (await program.get("/api/auth/me")).json["username"] == "ada"
        lines = b'{"name": "A", "price": 1}\n'
        headers = {"Content-Type": "application/x-ndjson"}
        imported = await program.post("/api/products", data=lines, headers=headers)
        assert imported.json["created"] == 1
        assert (await program.delete(made.json["id"])).status_code == 200

    async def test_key_of_scope_read_may_not_write(self, ada: Caller) -> None:
        program = await program_of(ada, scope="read")
        lamp = (await ada.create_product("Lamp")).json["id"]
        headers = {"Content-Type": "application/x-ndjson"}

        refused = [
            await program.create_product("Table"),
            await program.post("/api/products", data=b"{}", headers=headers),
            await program.send("PATCH", f"/api/products/{lamp}", json={"price": 2}),
            await program.delete(lamp),
        ]

        for answer in refused:
            assert problem_of(answer) == READ_ONLY
            assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
        assert len((await mine(program)).json["products"]) == 1
        assert (await program.send("HEAD", "/api/products/my")).status_code == 200
        assert (await program.get("/api/auth/me")).status_code == 200

    async def test_key_makes_no_keys_and_changes_no_account(self, ada: Caller) -> None:
        program = await program_of(ada)
        passwords = {"current_password": PASSWORD, "new_password": "another one entirely"}

        refused = [
            await make(program),
            await program.get(PATH),
            await program.send("DELETE", f"{PATH}/1"),
            await program.post("/api/auth/password", json=passwords),
            await program.send("PATCH", "/api/auth/me", json={"email": "eve@example.com"}),
            await program.send("DELETE", "/api/auth/me", json={"password": PASSWORD}),
            await program.get("/api/auth/sessions"),
            await program.send("DELETE", "/api/auth/sessions/1"),
            await program.post("/api/auth/logout-all"),
        ]

        assert [problem_of(answer) for answer in refused] == [NO_KEYS] * len(refused)
        assert (await ada.get("/api/auth/me")).json["email"] == "ada@example.com"
        assert (await mine(program)).status_code == 200

    async def test_key_neither_refreshes_nor_logs_out(self, ada: Caller) -> None:
        program = await program_of(ada)

        for method, path in (
            ("POST", "/api/auth/refresh"),
            ("GET", "/api/auth/refresh"),
            ("POST", "/api/auth/logout"),
        ):
            assert problem_of(await program.send(method, path)) == (401, "token-wrong-kind")
        assert (await mine(program)).status_code == 200

    async def test_key_of_an_administrator_administers_nothing(
        self, admin: Caller, bob: Caller
    ) -> None:
        admin = await Caller.logged_in(admin.app, "grace")
        program = await program_of(admin)
        lamp = (await bob.create_product("Lamp")).json["id"]
        path = f"/api/products/{lamp}"

        refused = [
            await program.get("/api/users"),
            await program.get("/api/users/1"),
            await program.send("PATCH", "/api/users/1", json={"role": "admin"}),
            await program.send("DELETE", "/api/users/1/sessions"),
        ]

        assert [problem_of(answer) for answer in refused] == [NO_KEYS] * len(refused)
        assert problem_of(await program.delete(lamp)) == (403, "forbidden")
        changing = await program.send("PATCH", path, json={"price": 1})
        assert problem_of(changing) == (403, "forbidden")
        assert (await admin.delete(lamp)).status_code == 200

    @pytest.mark.parametrize(
        "change",
        [
            lambda key: key[:-1] + ("a" if key[-1] != "a" else "b"),
            lambda key: key[:10] + ("a" if key[10] != "a" else "b") + key[11:],
            lambda key: key + "a",
            lambda key: key[:-1],
            lambda key: "CK_" + key[3:],
            lambda key: key.swapcase(),
            lambda _: "ck_",
            lambda _: "ck_" + "é" * 49,
            lambda _: "ck_" + "a" * 4000,
            lambda _: generate(),
        ],
    )
    @on_sqlite
    async def test_any_other_text_is_invalid(self, ada: Caller, change: Any) -> None:
        program = await program_of(ada)
        program.access_token = change(program.access_token)

        assert problem_of(await mine(program)) == INVALID


class TestRevokeKey:
    async def test_revoked_key_is_refused_everywhere_within_two_seconds(
        self, ada: Caller, other_app: Quart
    ) -> None:
        program, other = await program_of(ada), await program_of(ada)
        elsewhere = Caller(other_app)
        elsewhere.access_token = program.access_token
        assert (await mine(program)).status_code == (await mine(elsewhere)).status_code == 200
        key_id = (await ada.get(PATH)).json["keys"][1]["id"]

        answer = await ada.send("DELETE", f"{PATH}/{key_id}")

        assert (answer.status_code, answer.body) == (204, b"")
        assert problem_of(await mine(program)) == INVALID

        async def is_refused_elsewhere() -> bool:
            return (await mine(elsewhere)).status_code == 401

        await until(is_refused_elsewhere, within=2)
        assert problem_of(await mine(elsewhere)) == INVALID
        assert (await mine(other)).status_code == 200

    async def test_unknown_foreign_or_revoked_key_is_not_found(
        self, ada: Caller, bob: Caller
    ) -> None:
        program = await program_of(ada)
        path = f"{PATH}/1"

        assert problem_of(await bob.send("DELETE", path)) == (404, "not-found")
        assert problem_of(await ada.send("DELETE", f"{PATH}/99")) == (404, "not-found")
        assert (await mine(program)).status_code == 200
        answers = await at_once(5, lambda _: ada.send("DELETE", path))
        assert sorted(answer.status_code for answer in answers) == [204, 404, 404, 404, 404]
        assert (await ada.get(PATH)).json["keys"] == []

    async def test_keys_of_a_disabled_account_stop_for_good(
        self, ada: Caller, admin: Caller, other_app: Quart
    ) -> None:
        admin = await Caller.logged_in(admin.app, "grace")
        program = await program_of(ada)
        elsewhere = Caller(other_app)
        elsewhere.access_token = program.access_token
        assert (await mine(elsewhere)).status_code == 200
        path = f"/api/users/{ada.user_id}"

        await admin.send("PATCH", path, json={"disabled": True})

        assert problem_of(await mine(program)) == INVALID

        async def is_refused_elsewhere() -> bool:
            return (await mine(elsewhere)).status_code == 401

        await until(is_refused_elsewhere, within=2)
        await admin.send("PATCH", path, json={"disabled": False})
        assert problem_of(await mine(program)) == INVALID

    async def test_keys_of_a_deleted_account_stop_and_lose_their_names(
        self, ada: Caller, database: Database
    ) -> None:
        program = await program_of(ada, name="a name of mine")
        assert (await mine(program)).status_code == 200

        await ada.send("DELETE", "/api/auth/me", json={"password": PASSWORD})

        assert problem_of(await mine(program)) == INVALID
        (row,) = await rows_of(database, ApiKey)
        assert (row["user_id"], row["name"]) == (None, "")
        assert row["revoked_at"] is not None

    async def test_key_that_is_made_while_its_account_is_disabled_does_not_work(
        self, ada: Caller, admin: Caller
    ) -> None:
        admin = await Caller.logged_in(admin.app, "grace")
        path = f"/api/users/{ada.user_id}"

        async def ask(number: int) -> Response:
            if number == 4:
                return await admin.send("PATCH", path, json={"disabled": True})
            return await make(ada)

        answers = await at_once(8, ask)

        for answer in answers:
            if answer.status_code == 201:
                stranger = Caller(ada.app)
                stranger.access_token = answer.json["key"]
                assert problem_of(await mine(stranger)) == INVALID
            else:
                assert answer.status_code in {200, 401}

    async def test_password_change_and_log_out_leave_keys(self, ada: Caller) -> None:
        program = await program_of(ada)
        passwords = {"current_password": PASSWORD, "new_password": "another one entirely"}

        assert (await ada.post("/api/auth/password", json=passwords)).status_code == 204
        assert (await ada.post("/api/auth/logout-all")).status_code == 204

        assert (await mine(program)).status_code == 200


class TestSweep:
    async def test_sweep_deletes_expired_and_long_revoked_keys_only(
        self, ada: Caller, database: Database
    ) -> None:
        expires_at = (now() + timedelta(hours=1)).isoformat()
        for _ in range(2):
            await make(ada, expires_at=expires_at)
        for _ in range(3):
            await make(ada)
        kept = timedelta(minutes=10)
        long_ago = now() - 2 * kept
        for key_id, values in (
            (1, {"expires_at": long_ago}),
            (3, {"revoked_at": long_ago}),
            (4, {"revoked_at": now()}),
        ):
            await run(database, update(ApiKey).where(ApiKey.id == key_id).values(values))

        gone = await database.transaction(api_keys.sweep, kept_revoked=kept, limit=10)

        assert gone == 2
        assert [row["id"] for row in await rows_of(database, ApiKey)] == [2, 4, 5]
