"""``/api/auth`` over HTTP: sign-up, log-in, refresh."""

import asyncio
import unicodedata
from collections import Counter
from itertools import product
from typing import Any

import pytest
from quart import Quart
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.auth.models import User
from catalog.db.database import Database
from tests.auth.callers import refresh
from tests.db.support import run_on
from tests.http.wire import holder_of_tokens
from tests.support import PASSWORD, Caller, Response, fields_of, problem_of


async def set_disabled(database: Database, user_id: int | None, disabled: bool) -> None:
    async def change(session: AsyncSession) -> None:
        await session.execute(update(User).where(User.id == user_id).values(disabled=disabled))

    await database.transaction(change)


async def delete_account(database: Database, user_id: int | None) -> None:
    async def remove(session: AsyncSession) -> None:
        await session.execute(delete(User).where(User.id == user_id))

    await database.transaction(remove)


async def accounts(database: Database) -> list[tuple[Any, ...]]:
    async def read(connection: AsyncConnection) -> list[tuple[Any, ...]]:
        columns = (User.username, User.email, User.role, User.disabled, User.password_hash)
        return [tuple(row) for row in await connection.execute(select(*columns).order_by(User.id))]

    return await run_on(database.connection(), read)


def without_id(answer: Response) -> dict[str, Any]:
    """Return a problem without its request id."""
    return {name: value for name, value in answer.json.items() if name != "request_id"}


class TestSignUp:
    async def test_response_has_the_account_and_its_tokens(self, anyone: Caller) -> None:
        answer = await anyone.sign_up("Ada", email="Ada@Example.com")

        assert answer.status_code == 201
        assert answer.headers["Content-Type"] == "application/json"
        tokens = {name: answer.json.pop(name) for name in ("access_token", "refresh_token")}
        assert all(token.count(".") == 2 for token in tokens.values())
        assert answer.json == {"id": 1, "username": "Ada", "email": "Ada@Example.com"}

    async def test_tokens_are_accepted(self, anyone: Caller) -> None:
        signed_up = (await anyone.sign_up("ada")).json

        created = await anyone.post(
            "/api/products", json={"name": "Lamp", "price": 1}, token=signed_up["access_token"]
        )
        refreshed = await anyone.post("/api/auth/refresh", token=signed_up["refresh_token"])

        assert created.status_code == 201
        assert created.json["user_id"] == signed_up["id"]
        assert refreshed.status_code == 200

    async def test_stored_row_is_a_user_with_a_hash(
        self, anyone: Caller, database: Database
    ) -> None:
        await anyone.sign_up("ada")

        ((username, email, role, disabled, password_hash),) = await accounts(database)
        assert (username, email, role, disabled) == ("ada", "ada@example.com", "user", False)
        assert password_hash.startswith("$argon2id$v=19$m=8,t=2,p=1$")

    @pytest.mark.parametrize("field", ["role", "is_admin", "id", "disabled", "password_hash"])
    async def test_privileged_field_is_refused(self, stranger: Caller, field: str) -> None:
        answer = await stranger.sign_up("ada", **{field: "admin"})

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == [f"/{field}"]

    async def test_names_are_kept_as_sent(self, anyone: Caller) -> None:
        for username, email in (
            ("王小明", "wang@example.com"),
            ("Ærøskøbing 🦊", "Ærø@example.com"),
            ("x" * 80, "x" * 64 + "@" + "d" * 51 + ".com"),
        ):
            answer = await anyone.sign_up(username, email=email)

            assert answer.status_code == 201
            assert (answer.json["username"], answer.json["email"]) == (username, email)
            user = (await anyone.log_in(username)).json["user"]
            assert (user["username"], user["email"]) == (username, email)

    @pytest.mark.parametrize(
        "username",
        [
            *["", "a", "x" * 81, "ada@home", " ada", "ada\u200b", "ada\u202e", "ada\n"],
            *["ada\u3164", "p\u0430yp\u0430l", "ada\u06611"],
        ],
        ids=ascii,
    )
    async def test_invalid_username_is_refused(self, stranger: Caller, username: str) -> None:
        answer = await stranger.sign_up(username, email="ada@example.com")

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == ["/username"]

    @pytest.mark.parametrize(
        "email",
        [
            *["", "ada", "ada@", "@example.com", "ada@example", "ada@example.com\n", "a b@x.co"],
            *["x" * 65 + "@example.com", "ada@" + "d" * 60 + "." + "d" * 60 + ".com"],
        ],
        ids=lambda email: ascii(email)[:24],
    )
    async def test_invalid_email_is_refused(self, stranger: Caller, email: str) -> None:
        answer = await stranger.sign_up("ada", email=email)

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == ["/email"]

    async def test_all_invalid_fields_are_reported(self, stranger: Caller) -> None:
        answer = await stranger.sign_up("a", email="ada", password="x" * 129)

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == ["/username", "/email", "/password"]

    async def test_taken_username_is_refused_in_any_spelling(self, anyone: Caller) -> None:
        first = await anyone.sign_up("Fiona Straße", email="fiona@example.com")
        assert first.status_code == 201

        spellings = ["Fiona Straße", "fiona straße", "FIONA STRASSE", "\ufb01ona Strasse"]
        for number, username in enumerate([*spellings, "\uff26iona Straße", "Fiona\u00a0Straße"]):
            answer = await anyone.sign_up(username, email=f"{number}@example.com")

            assert problem_of(answer) == (409, "taken")
            assert fields_of(answer) == ["/username"]

    async def test_taken_email_is_refused_in_any_spelling(self, anyone: Caller) -> None:
        await anyone.sign_up("ada", email="ada@example.com")

        for number, email in enumerate(
            ["ada@example.com", "ADA@EXAMPLE.COM", "\uff41da@example.com"]
        ):
            answer = await anyone.sign_up(f"ada{number}", email=email)

            assert problem_of(answer) == (409, "taken")
            assert fields_of(answer) == ["/email"]

    async def test_taken_username_and_email_are_both_reported(self, anyone: Caller) -> None:
        await anyone.sign_up("ada")
        await anyone.sign_up("bob")

        same = await anyone.sign_up("ADA", email="Ada@example.com")
        crossed = await anyone.sign_up("Ada", email="Bob@example.com")

        for answer in (same, crossed):
            assert problem_of(answer) == (409, "taken")
            assert fields_of(answer) == ["/username", "/email"]

    async def test_visually_similar_names_are_different(self, anyone: Caller) -> None:
        cyrillic = "\u0430\u0435\u043e"
        for number, username in enumerate(["aeo", cyrillic, "josé", "jose", "fox 😀", "fox 😁"]):
            answer = await anyone.sign_up(username, email=f"{number}@example.com")

            assert answer.status_code == 201

    async def test_refused_sign_up_leaves_nothing_behind(
        self, anyone: Caller, database: Database
    ) -> None:
        await anyone.sign_up("ada")

        await anyone.sign_up("ADA", email="other@example.com")

        assert [row[0] for row in await accounts(database)] == ["ada"]
        assert (await anyone.sign_up("bob", email="other@example.com")).status_code == 201

    async def test_fifty_concurrent_sign_ups_have_one_winner_for_the_name(
        self, anyone: Caller, database: Database
    ) -> None:
        letters = [("f", "F", "\uff46", "\uff26"), ("i", "I", "\uff49", "\u2170"), ("x", "X")]
        spellings = ["".join(each) for each in product(*letters, ("e", "E", "\uff25"))][:50]
        assert len({unicodedata.normalize("NFKC", each).casefold() for each in spellings}) == 1
        assert len(set(spellings)) == 50

        answers = await asyncio.gather(
            *(
                anyone.sign_up(username, email=f"{number}@example.com")
                for number, username in enumerate(spellings)
            )
        )

        assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 49}
        for answer in answers:
            if answer.status_code == 409:
                assert problem_of(answer) == (409, "taken")
                assert fields_of(answer) == ["/username"]
        assert len(await accounts(database)) == 1

    async def test_twenty_concurrent_sign_ups_have_one_winner_for_the_address(
        self, anyone: Caller, database: Database
    ) -> None:
        addresses = ["ada@example.com", "ADA@example.com", "ada@EXAMPLE.com", "Ada@Example.Com"]

        answers = await asyncio.gather(
            *(anyone.sign_up(f"ada{number}", email=addresses[number % 4]) for number in range(20))
        )

        assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 19}
        assert {tuple(fields_of(a)) for a in answers if a.status_code == 409} == {("/email",)}
        assert len(await accounts(database)) == 1

    async def test_twenty_concurrent_sign_ups_with_different_names_all_succeed(
        self, anyone: Caller
    ) -> None:
        answers = await asyncio.gather(*(anyone.sign_up(f"user{n}") for n in range(20)))

        assert [answer.status_code for answer in answers] == [201] * 20
        assert len({answer.json["id"] for answer in answers}) == 20


# "é" as one code point, and as a letter with a combining accent.
COMPOSED, DECOMPOSED = "\u00e9", "e\u0301"


class TestPassword:
    @pytest.mark.parametrize(
        "password",
        [
            *["", "x" * 7, "x" * 129, "x" * 100_000, "🦊" * 7, "🦊" * 129],
            *[COMPOSED * 7, DECOMPOSED * 7, DECOMPOSED * 129],
        ],
        ids=lambda password: f"{password[:1]!a}-{len(password)}",
    )
    async def test_password_outside_the_length_bounds_is_refused(
        self, stranger: Caller, password: str
    ) -> None:
        answer = await stranger.sign_up("ada", password=password)

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == ["/password"]

    async def test_any_characters_are_accepted_within_the_length_bounds(
        self, anyone: Caller
    ) -> None:
        passwords = ["x" * 8, "x" * 128, "🦊" * 8, "🦊" * 128, " " * 8, "a\nb\tc\u200bd\u202ee"]

        for number, password in enumerate(passwords):
            assert (await anyone.sign_up(f"user{number}", password=password)).status_code == 201
            assert (await anyone.log_in(f"user{number}", password)).status_code == 200

    @pytest.mark.parametrize("length", [8, 128])
    async def test_characters_are_counted_and_compared_composed(
        self, anyone: Caller, length: int
    ) -> None:
        composed, decomposed = COMPOSED * length, DECOMPOSED * length
        assert (await anyone.sign_up("ada", password=decomposed)).status_code == 201
        assert (await anyone.sign_up("bob", password=composed)).status_code == 201

        for username in ("ada", "bob"):
            for password in (composed, decomposed):
                assert (await anyone.log_in(username, password)).status_code == 200

    async def test_every_character_is_significant(self, anyone: Caller) -> None:
        await anyone.sign_up("ada", password="x" * 127 + "y")

        for wrong in ("x" * 127 + "z", "x" * 127, "X" * 127 + "y", "x" * 72):
            answer = await anyone.log_in("ada", wrong)

            assert problem_of(answer) == (401, "credentials-wrong")


class TestLogIn:
    async def test_response_has_tokens_and_the_user(self, ada: Caller, anyone: Caller) -> None:
        answer = await anyone.log_in("ada")

        assert answer.status_code == 200
        assert set(answer.json) == {"access_token", "refresh_token", "user"}
        assert answer.json["user"] == {
            "id": ada.user_id,
            "username": "ada",
            "email": "ada@example.com",
            "role": "user",
        }

    async def test_tokens_are_accepted(self, ada: Caller) -> None:
        again = await Caller.logged_in(ada.app, "ada")

        assert (await again.create_product("Lamp")).json["user_id"] == ada.user_id
        refreshed = await again.post("/api/auth/refresh", token=again.refresh_token)
        assert refreshed.status_code == 200

    async def test_response_states_the_role_of_an_administrator(self, admin: Caller) -> None:
        answer = await admin.log_in("grace")

        assert answer.json["user"]["role"] == "admin"

    async def test_any_spelling_of_name_or_email_logs_in(self, ada: Caller, anyone: Caller) -> None:
        names = ["ada", "ADA", "\uff21\uff24\uff21"]
        addresses = ["ada@example.com", "Ada@EXAMPLE.com", "\uff41da@example.com"]

        for login in (*names, *addresses, "ada\uff20example.com"):
            answer = await anyone.log_in(login)

            assert answer.status_code == 200, ascii(login)
            assert answer.json["user"]["id"] == ada.user_id

    async def test_unknown_name_and_wrong_password_get_the_same_response(
        self, ada: Caller, anyone: Caller, verifications: list[tuple[str, str]]
    ) -> None:
        answers = [
            await anyone.log_in("ada", "wrong password"),
            await anyone.log_in("ada@example.com", "wrong password"),
            await anyone.log_in("nobody", "wrong password"),
            await anyone.log_in("nobody@example.com", "wrong password"),
        ]

        assert ada.user_id
        assert [problem_of(answer) for answer in answers] == [(401, "credentials-wrong")] * 4
        assert all(without_id(answer) == without_id(answers[0]) for answer in answers)
        names = [{name.lower() for name, _ in answer.headers.items()} for answer in answers]
        assert all(each == names[0] for each in names)
        # The cost is the same too: one verification each.
        assert [password for _, password in verifications] == ["wrong password"] * 4

    async def test_disabled_account_gets_the_same_response(
        self, ada: Caller, bob: Caller, database: Database, verifications: list[tuple[str, str]]
    ) -> None:
        await set_disabled(database, ada.user_id, True)

        disabled = await ada.log_in("ada")
        wrong = await bob.log_in("bob", "wrong password")

        assert problem_of(disabled) == (401, "credentials-wrong")
        assert without_id(disabled) == without_id(wrong)
        assert len(verifications) == 2

    async def test_impossible_name_is_an_unknown_name(self, ada: Caller, anyone: Caller) -> None:
        assert ada.user_id
        none = ["", " ", "ab", "x" * 256, "@", "@@", "ada\u200b", "ad\u0130", "a da"]
        patterns = ["%", "_", "ad_", "ada%", "*", "' OR 1=1 --", "ada\\", "ada/*"]

        for login in (*none, *patterns):
            answer = await anyone.log_in(login)

            assert problem_of(answer) == (401, "credentials-wrong"), ascii(login)

    async def test_blanks_around_a_name_are_no_part_of_it(self, ada: Caller) -> None:
        for login in (" ada", "ada ", "ada\n", "\tada@example.com\r\n", "\u00a0ada\u3000"):
            assert (await ada.log_in(login)).status_code == 200, ascii(login)

    async def test_impossible_password_is_a_wrong_password(self, ada: Caller) -> None:
        for password in ("", "short"):
            assert problem_of(await ada.log_in("ada", password)) == (401, "credentials-wrong")

    @pytest.mark.parametrize(
        ("username", "password", "pointer"),
        [("x" * 257, PASSWORD, "/username"), ("ada", "x" * 129, "/password")],
        ids=["name", "password"],
    )
    async def test_oversized_credential_is_invalid(
        self, stranger: Caller, username: str, password: str, pointer: str
    ) -> None:
        answer = await stranger.log_in(username, password)

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == [pointer]

    async def test_token_is_ignored(self, ada: Caller) -> None:
        answer = await ada.post(
            "/api/auth/login", json={"username": "ada", "password": PASSWORD}, token="x"
        )

        assert answer.status_code == 200

    async def test_twenty_concurrent_log_ins_are_served(self, ada: Caller, anyone: Caller) -> None:
        answers = await asyncio.gather(*(anyone.log_in("ada") for _ in range(20)))

        assert {answer.status_code for answer in answers} == {200}
        assert {answer.json["user"]["id"] for answer in answers} == {ada.user_id}
        assert len({answer.json["refresh_token"] for answer in answers}) == 20


each_method = pytest.mark.parametrize("method", ["POST", "GET"])


class TestRefresh:
    @each_method
    async def test_response_has_an_access_token(self, ada: Caller, method: str) -> None:
        answer = await refresh(ada, method)

        assert answer.status_code == 200
        assert list(answer.json) == ["access_token"]
        assert answer.json["access_token"] != ada.access_token

    @each_method
    async def test_new_access_token_is_accepted(self, ada: Caller, method: str) -> None:
        ada.access_token = (await refresh(ada, method)).json["access_token"]

        assert (await ada.create_product("Lamp")).json["user_id"] == ada.user_id

    @each_method
    async def test_refresh_can_be_repeated(self, ada: Caller, method: str) -> None:
        answers = [await refresh(ada, method) for _ in range(3)]
        answers += await asyncio.gather(*(refresh(ada, method) for _ in range(10)))

        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json["access_token"] for answer in answers}) == 13

    async def test_rotation_replaces_the_refresh_token(self, ada: Caller) -> None:
        answer = await refresh(ada, "POST", json={"rotate": True})

        assert answer.status_code == 200
        assert answer.json["refresh_token"] != ada.refresh_token
        again = await refresh(ada, "POST", token=answer.json["refresh_token"])
        assert again.status_code == 200

    @each_method
    async def test_missing_or_invalid_token_is_refused(self, stranger: Caller, method: str) -> None:
        assert problem_of(await refresh(stranger, method)) == (401, "token-missing")
        assert problem_of(await refresh(stranger, method, token="x")) == (401, "token-invalid")

    @each_method
    async def test_access_token_is_the_wrong_kind(self, holder: Caller, method: str) -> None:
        answer = await refresh(holder, method, token=holder.access_token)

        assert problem_of(answer) == (401, "token-wrong-kind")

    async def test_refresh_token_is_refused_by_other_routes(self, holder: Caller) -> None:
        answers = [
            await holder.get("/api/products/my", token=holder.refresh_token),
            await holder.send("DELETE", "/api/products/1", token=holder.refresh_token),
            await holder.post("/api/products", json={}, token=holder.refresh_token),
        ]

        assert [problem_of(answer) for answer in answers] == [(401, "token-wrong-kind")] * 3

    async def test_head_is_answered_like_get(self, ada: Caller) -> None:
        answer = await refresh(ada, "HEAD")

        assert answer.status_code == 200
        assert answer.headers.getlist("Cache-Control") == ["no-store"]

    async def test_body_is_optional(self, ada: Caller) -> None:
        answers = [
            await refresh(ada, "POST"),
            await refresh(ada, "POST", json={}),
            await refresh(ada, "POST", data=b"", headers={"Content-Type": "text/plain"}),
        ]

        assert [answer.status_code for answer in answers] == [200] * 3

    async def test_unknown_field_is_reported(self, holder: Caller) -> None:
        answer = await refresh(holder, "POST", json={"user_id": 7})

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == ["/user_id"]

    async def test_body_that_is_not_json_is_refused(self, holder: Caller) -> None:
        form = await refresh(holder, "POST", form={"rotate": "true"})
        broken = await refresh(
            holder, "POST", data=b"{", headers={"Content-Type": "application/json"}
        )
        nothing = await refresh(holder, "POST", json=None)

        assert problem_of(form) == (415, "unsupported-media-type")
        assert problem_of(broken) == (400, "malformed")
        assert problem_of(nothing) == (422, "invalid")

    @each_method
    async def test_disabled_account_is_refused(
        self, ada: Caller, database: Database, method: str
    ) -> None:
        await set_disabled(database, ada.user_id, True)
        refused = await refresh(ada, method)
        await set_disabled(database, ada.user_id, False)
        restored = await refresh(ada, method)

        assert problem_of(refused) == (401, "account-unavailable")
        assert restored.status_code == 200

    @each_method
    async def test_deleted_account_is_refused(
        self, ada: Caller, database: Database, method: str
    ) -> None:
        await delete_account(database, ada.user_id)

        assert problem_of(await refresh(ada, method)) == (401, "account-unavailable")

    @each_method
    async def test_account_that_never_existed_is_refused(
        self, app: Quart, ada: Caller, method: str
    ) -> None:
        from_elsewhere = await holder_of_tokens(app, 2**63 - 1)

        assert ada.user_id
        answer = await refresh(from_elsewhere, method)
        assert problem_of(answer) == (401, "account-unavailable")


class TestUnavailableAccount:
    """An access token outlives its account by minutes, but cannot write in that time."""

    async def test_disabled_account_cannot_write(self, ada: Caller, database: Database) -> None:
        lamp = (await ada.create_product("Lamp")).json["id"]
        await set_disabled(database, ada.user_id, True)

        created = await ada.create_product("Desk")
        deleted = await ada.delete(lamp)
        await set_disabled(database, ada.user_id, False)

        assert problem_of(created) == (401, "account-unavailable")
        assert problem_of(deleted) == (401, "account-unavailable")
        products = (await ada.get("/api/products/my")).json["products"]
        assert [product["id"] for product in products] == [lamp]

    async def test_deleted_account_cannot_write(self, ada: Caller, database: Database) -> None:
        await delete_account(database, ada.user_id)

        created = await ada.create_product("Desk")
        deleted = await ada.delete(1)

        assert problem_of(created) == (401, "account-unavailable")
        assert problem_of(deleted) == (401, "account-unavailable")

    async def test_disabled_administrator_has_no_privileges(
        self, ada: Caller, admin: Caller, database: Database
    ) -> None:
        lamp = (await ada.create_product("Lamp")).json["id"]
        await set_disabled(database, admin.user_id, True)

        assert problem_of(await admin.delete(lamp)) == (401, "account-unavailable")

    async def test_id_of_a_deleted_account_is_not_reused(
        self, ada: Caller, anyone: Caller, database: Database
    ) -> None:
        await delete_account(database, ada.user_id)

        newcomer = (await anyone.sign_up("newcomer")).json

        assert newcomer["id"] != ada.user_id
        assert problem_of(await ada.create_product("Lamp")) == (401, "account-unavailable")
