"""Access guards of handlers, and how a token is presented."""

import asyncio

import pytest
from quart import Quart
from quart_jwt_extended import get_raw_jwt

from catalog.auth.guards import (
    any_token_required,
    audience_of,
    caller,
    caller_id,
    for_admins,
    public,
    refresh_token_required,
    session_required,
    signed_in,
)
from catalog.auth.models import Role
from catalog.auth.tokens.revocations import Revocations
from catalog.db.deadlines import deadline_start
from tests.http.wire import app_without_database, exchange, tokens_of
from tests.support import Caller, problem_of

# With a valid token a request gets as far as the database, which this app does not have.
GOOD = (503, "database-unavailable")
MISSING = (401, "token-missing")
INVALID = (401, "token-invalid")


class TestRole:
    @pytest.mark.parametrize(
        ("role", "outcome"), [(Role.ADMIN, GOOD), (Role.USER, (403, "forbidden"))]
    )
    async def test_role_is_the_current_one_and_not_that_of_the_token(
        self, holder: Caller, monkeypatch: pytest.MonkeyPatch, role: Role, outcome: tuple[int, str]
    ) -> None:
        monkeypatch.setattr(Revocations, "check", lambda *_: role)

        assert problem_of(await holder.get("/api/users")) == outcome


class TestAuthorizationHeader:
    @staticmethod
    async def ask(app: Quart, *values: bytes) -> tuple[int, str]:
        headers = [(b"authorization", value) for value in values]
        return problem_of(await exchange(app, "GET", "/api/products/my", headers=headers))

    @pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER", b"bEaReR"])
    async def test_scheme_is_case_insensitive(
        self, bare_app: Quart, holder: Caller, scheme: bytes
    ) -> None:
        token = str(holder.access_token).encode()

        assert await self.ask(bare_app, scheme + b" " + token) == GOOD

    @pytest.mark.parametrize("form", [b"Bearer   %s", b"  Bearer %s", b"Bearer %s  "])
    async def test_spaces_around_scheme_and_token_are_ignored(
        self, bare_app: Quart, holder: Caller, form: bytes
    ) -> None:
        assert await self.ask(bare_app, form % str(holder.access_token).encode()) == GOOD

    @pytest.mark.parametrize(
        "form",
        [
            b"",
            b" ",
            b",",
            b", ,",
            b", Bearer %s",
            b"%s",
            b"Basic %s",
            b"Basic YWRhOnNlY3JldA==",
            b"Digest %s",
            b"DPoP %s",
            b"Token %s",
            b"JWT %s",
            b"Bearer%s",
            b"Bearer:%s",
            b"Bearer=%s",
            b"Bearer,%s",
            b"Bearer\t%s",
            b"Bearers %s",
            b'"Bearer %s"',
            b"\xff",
            b"B\xe9arer %s",
        ],
        ids=repr,
    )
    async def test_header_without_the_bearer_scheme_has_no_token(
        self, bare_app: Quart, holder: Caller, form: bytes
    ) -> None:
        value = form.replace(b"%s", str(holder.access_token).encode())

        assert await self.ask(bare_app, value) == MISSING

    @pytest.mark.parametrize(
        "form",
        [
            b"Bearer",
            b"Bearer ",
            b"bearer    ",
            b"Bearer ,",
            b"Bearer %s,",
            b"Bearer ,%s",
            b"Bearer %s, Bearer %s",
            b"Bearer %s,%s",
            b"Bearer %s %s",
            b"Bearer %s x",
            b"Bearer x %s",
            b"Bearer Bearer %s",
            b"Bearer %s; charset=utf-8",
            b'Bearer "%s"',
            b"Bearer token=%s",
            b"Bearer %s\t%s",
            b"Bearer \xff",
            b"Bearer %s\xe9",
            b"Bearer \xc2\xa0%s",
            b"Bearer \x00%s",
            b"Bearer null",
        ],
        ids=repr,
    )
    async def test_bearer_scheme_with_anything_but_one_token_is_invalid(
        self, bare_app: Quart, holder: Caller, form: bytes
    ) -> None:
        value = form.replace(b"%s", str(holder.access_token).encode())

        assert await self.ask(bare_app, value) == INVALID

    async def test_two_authorization_headers_are_refused(
        self, bare_app: Quart, holder: Caller
    ) -> None:
        good = b"Bearer " + str(holder.access_token).encode()

        assert await self.ask(bare_app, good, good) == INVALID
        assert await self.ask(bare_app, good, b"Bearer x") == INVALID
        assert await self.ask(bare_app, good, b"") == INVALID
        assert await self.ask(bare_app, b"Basic x", good) == MISSING

    async def test_token_outside_the_authorization_header_is_ignored(
        self, bare_app: Quart, holder: Caller
    ) -> None:
        token = str(holder.access_token).encode()
        text = token.decode()
        path = f"/api/products/my?access_token={text}&jwt={text}&token={text}"
        headers = [
            (b"cookie", b"access_token_cookie=" + token + b"; access_token=" + token),
            (b"x-access-token", token),
            (b"proxy-authorization", b"Bearer " + token),
        ]

        assert problem_of(await exchange(bare_app, "GET", path, headers=headers)) == MISSING


class TestChallenge:
    async def test_missing_token_gets_a_challenge_without_an_error(self, stranger: Caller) -> None:
        answer = await stranger.get("/api/products/my")

        assert answer.headers.getlist("WWW-Authenticate") == ['Bearer realm="catalog"']

    async def test_invalid_token_gets_a_challenge_with_its_error(
        self, stranger: Caller, holder: Caller
    ) -> None:
        for token in ("x", str(holder.refresh_token)):
            answer = await stranger.get("/api/products/my", token=token)

            challenge = 'Bearer realm="catalog", error="invalid_token"'
            assert answer.headers.getlist("WWW-Authenticate") == [challenge]

    async def test_token_is_checked_before_the_rest_of_the_request(self, stranger: Caller) -> None:
        answers = [
            await stranger.post("/api/products", data=b"{", headers={"Content-Type": "x/y"}),
            await stranger.get("/api/products/my?limit=x"),
            await stranger.post("/api/auth/refresh", data=b"{"),
        ]

        assert [problem_of(answer) for answer in answers] == [MISSING] * 3

    async def test_public_route_ignores_the_token(self, stranger: Caller) -> None:
        assert (await stranger.get("/livez", token="x")).status_code == 200
        assert problem_of(await stranger.get("/api/products", token="x")) == GOOD


class TestDecorators:
    @pytest.mark.parametrize(
        ("guard", "audience"),
        [
            (public, "public"),
            (signed_in, "access"),
            (session_required, "session"),
            (for_admins, "admin"),
            (refresh_token_required, "refresh"),
            (any_token_required, "any"),
        ],
        ids=["public", "signed-in", "session", "for-admins", "refreshing", "leaving"],
    )
    async def test_decorator_states_its_audience(self, guard: object, audience: str) -> None:
        async def view() -> str:
            """Do what it does."""
            return ""

        guarded = guard(view)  # type: ignore[operator]  # three functions with type variables

        assert audience_of(guarded) == audience
        assert guarded.__name__ == "view"
        assert guarded.__doc__ == "Do what it does."

    def test_view_without_a_decorator_has_no_audience(self) -> None:
        assert audience_of(lambda: None) is None

    @pytest.mark.parametrize("user_id", [1, 2**53 + 1, 2**63 - 1])
    async def test_view_reads_the_caller_from_the_token(
        self, tmp_path_factory: pytest.TempPathFactory, user_id: int
    ) -> None:
        app = app_without_database(tmp_path_factory.mktemp("callers"))

        @app.get("/caller/<name>")
        @refresh_token_required
        async def tell(name: str) -> str:
            assert caller().user_id == caller_id()
            assert caller().token_id == get_raw_jwt()["jti"]
            return f"{name} is {caller_id()}"

        token = (await tokens_of(app, user_id))["refresh_token"]
        answer = await Caller(app).get("/caller/ada", token=token)

        assert answer.body == f"ada is {user_id}".encode()

    async def test_wait_for_the_check_of_a_token_is_part_of_the_deadline(
        self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app = app_without_database(tmp_path_factory.mktemp("waits"))
        token = (await tokens_of(app, 1))["access_token"]
        began = asyncio.get_running_loop().time()

        @app.get("/waited")
        @signed_in
        async def tell() -> str:
            assert began <= deadline_start() <= began + 1
            return "after a wait"

        async def refresh(revocations: Revocations) -> None:
            # More than the second within which the deadline must have begun.
            await asyncio.sleep(1.5)
            revocations._loaded_at = 0.0

        monkeypatch.setattr(Revocations, "refresh", refresh)

        answer = await Caller(app).get("/waited", token=token)

        assert answer.body == b"after a wait"
        assert asyncio.get_running_loop().time() - began >= 1.5
