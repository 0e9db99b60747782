"""``/console/session``: the refresh token in a cookie, and who may use it."""

from http.cookies import SimpleCookie
from typing import Any

import pytest
from quart import Quart

from catalog.ui.console_session import COOKIE, PATH
from tests.db.support import on_sqlite
from tests.support import PASSWORD, Caller, Response, problem_of

# The routes pass on to those of the API, which are tested on every engine.
pytestmark = on_sqlite

OURS = {"Sec-Fetch-Site": "same-origin"}


class Console:
    """A browser that has the console open; it keeps the cookie."""

    def __init__(self, app: Quart) -> None:
        # The cookie is sent by hand, so that a test can see and change it.
        self._caller = Caller(app)
        self.cookie: str | None = None
        self.morsel: Any = None

    async def send(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, json: Any = None
    ) -> Response:
        headers = {**(OURS if headers is None else headers)}
        if self.cookie:
            headers["Cookie"] = f"{COOKIE}={self.cookie}"
        answer = await self._caller.send(
            method, f"{PATH}{path}", headers=headers, json={} if json is None else json
        )
        if "Set-Cookie" in answer.headers:
            self.morsel = SimpleCookie(answer.headers["Set-Cookie"])[COOKIE]
            self.cookie = self.morsel.value or None
        return answer

    async def sign_up(self, username: str = "ada") -> Response:
        account = {"username": username, "email": f"{username}@example.com", "password": PASSWORD}
        return await self.send("POST", "/account", json=account)


@pytest.fixture
def console(app: Quart) -> Console:
    return Console(app)


class TestSignIn:
    async def test_sign_up_sets_a_cookie_that_scripts_cannot_read(self, console: Console) -> None:
        answer = await console.sign_up()

        assert answer.status_code == 200
        assert answer.json["user"]["username"] == "ada"
        assert "refresh_token" not in answer.body.decode()
        assert console.morsel["httponly"]
        assert console.morsel["samesite"] == "Strict"
        assert console.morsel["path"] == PATH
        assert int(console.morsel["max-age"]) > 24 * 3600
        assert not console.morsel["secure"]

    async def test_log_in_gives_an_access_token_for_the_api(self, app: Quart) -> None:
        await Console(app).sign_up()
        console = Console(app)

        answer = await console.send("POST", "", json={"username": "ada", "password": PASSWORD})

        assert answer.json["user"]["role"] == "user"
        me = await Caller(app, answer.json).get("/api/auth/me")
        assert me.json["username"] == "ada"

    async def test_wrong_password_is_refused_as_by_the_api(self, console: Console) -> None:
        await console.sign_up()
        console.cookie = None

        answer = await console.send("POST", "", json={"username": "ada", "password": "not this"})

        assert problem_of(answer) == (401, "credentials-wrong")
        assert console.cookie is None

    async def test_invalid_sign_up_names_the_field(self, console: Console) -> None:
        answer = await console.send("POST", "/account", json={"username": "a"})

        assert problem_of(answer) == (422, "invalid")
        assert "/email" in {error["pointer"] for error in answer.json["errors"]}


class TestRefresh:
    async def test_cookie_gets_a_new_access_token(self, app: Quart, console: Console) -> None:
        await console.sign_up()

        answer = await console.send("POST", "/refresh")

        assert answer.status_code == 200
        assert answer.json["user"]["username"] == "ada"
        assert (await Caller(app, answer.json).get("/api/auth/me")).status_code == 200

    async def test_refresh_without_a_cookie_is_401(self, console: Console) -> None:
        assert problem_of(await console.send("POST", "/refresh")) == (401, "token-missing")

    @pytest.mark.parametrize("cookie", ["x", "a.b.c", '"', "é"])
    async def test_invalid_cookie_is_deleted(self, console: Console, cookie: str) -> None:
        console.cookie = cookie

        answer = await console.send("POST", "/refresh")

        assert answer.status_code == 401
        assert console.cookie is None

    async def test_ended_session_deletes_the_cookie(self, app: Quart, console: Console) -> None:
        signed_up = await console.sign_up()
        await Caller(app, signed_up.json).post("/api/auth/logout-all")

        answer = await console.send("POST", "/refresh")

        assert problem_of(answer) == (401, "session-ended")
        assert console.morsel["max-age"] == "0"


class TestLogOut:
    async def test_log_out_ends_the_session_and_deletes_the_cookie(
        self, app: Quart, console: Console
    ) -> None:
        signed_up = await console.sign_up()
        stolen = console.cookie

        answer = await console.send("DELETE", "")

        assert answer.status_code == 204
        assert console.cookie is None
        assert (await Caller(app, signed_up.json).get("/api/auth/me")).status_code == 401
        console.cookie = stolen
        assert (await console.send("POST", "/refresh")).status_code == 401


class TestOrigin:
    REQUESTS = (("POST", ""), ("POST", "/account"), ("POST", "/refresh"), ("DELETE", ""))

    @pytest.mark.parametrize(("method", "path"), REQUESTS)
    @pytest.mark.parametrize(
        "headers",
        [
            {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "none"},
            {"Origin": "https://evil.example"},
            {"Origin": "http://localhost.evil.example"},
            {"Origin": "null"},
            {"Origin": "null", "Host": ""},
            {"Origin": "http://["},
            {"Origin": "http://[a]"},
            {},
        ],
        ids=lambda headers: " ".join(headers.values()) or "none",
    )
    async def test_other_origin_is_refused(
        self, console: Console, method: str, path: str, headers: dict[str, str]
    ) -> None:
        await console.sign_up()

        answer = await console.send(method, path, headers=headers)

        assert problem_of(answer) == (403, "forbidden")
        assert (await console.send("POST", "/refresh")).status_code == 200

    async def test_browser_without_fetch_metadata_is_known_by_its_origin(
        self, console: Console
    ) -> None:
        await console.sign_up()

        answer = await console.send("POST", "/refresh", headers={"Origin": "http://localhost:8000"})

        assert answer.status_code == 200

    async def test_form_is_refused(self, app: Quart) -> None:
        answer = await Caller(app).post(PATH, headers=OURS, form={"username": "ada"})

        assert problem_of(answer) == (415, "unsupported-media-type")

    async def test_cookie_is_no_token_for_the_api(self, app: Quart, console: Console) -> None:
        await console.sign_up()

        answer = await Caller(app).get(
            "/api/auth/me", headers={"Cookie": f"{COOKIE}={console.cookie}"}
        )

        assert problem_of(answer) == (401, "token-missing")


class TestTransport:
    async def test_cookie_is_secure_over_https(self, app: Quart) -> None:
        account = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}

        answer = await app.test_client().post(
            f"{PATH}/account", json=account, headers=OURS, scheme="https"
        )

        assert "Secure" in answer.headers["Set-Cookie"]
