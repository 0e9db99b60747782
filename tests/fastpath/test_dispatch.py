"""The fast path calls the same views as the framework, so both give the same answers."""

import gzip
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from quart import Quart, request_started
from sqlalchemy import URL

from catalog.app import HOT_OPERATIONS, MAX_BATCHED_READS, MAX_CHANGE_READS, create_app
from catalog.db.database import Database
from catalog.fastpath.dispatch import Dispatcher, Operation
from catalog.http.adapter import CatalogApp, Routes
from catalog.http.middleware.concurrency_limit import UNBOUNDED
from catalog.http.replies.reply import Reply
from catalog.products.schemas import PATH
from catalog.settings import Rate, Settings
from tests.db.support import on_sqlite
from tests.engines import settings_for
from tests.http.replies.accept_cases import ACCEPT_CASES
from tests.http.wire import app_without_database
from tests.products.listing.filling import fill
from tests.support import Caller, Response, problem_of

LAMP = b'{"name": "Lamp", "price": 24.9, "description": "Warm light."}'


@pytest.fixture
def settings(database_url: URL) -> Settings:
    """Return the settings of ``app``, with the fast path whatever the other tests run with."""
    return settings_for(database_url, fast_path="on")


@pytest.fixture
async def framework(settings: Settings) -> AsyncIterator[Quart]:
    """Start the service without the fast path."""
    framework = create_app(settings.model_copy(update={"fast_path": "off"}))
    async with framework.test_app():
        yield framework


class Seen:
    """Counter of the requests that reach the framework of an app."""

    def __init__(self) -> None:
        self.requests = 0

    async def note(self, _app: Quart, **_: object) -> None:
        self.requests += 1


def on(app: Quart, caller: Caller) -> Caller:
    """Return a caller with the same tokens on another app."""
    other = Caller(app)
    other.access_token, other.refresh_token = caller.access_token, caller.refresh_token
    return other


async def send(
    caller: Caller,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    **options: Any,
) -> Response:
    """Send a request with its Content-Length, as clients do and the test client does not."""
    given = {"X-Request-ID": "same", **(headers or {})}
    if body is not None:
        given = {"Content-Length": str(len(body)), "Content-Type": "application/json", **given}
    return await caller.send(method, path, data=body, headers=given, **options)


def telling(answer: Response) -> tuple[int, list[tuple[str, str]], Any]:
    """Return an answer without the parts that differ between two products."""
    changing = {"location", "etag", "catalog-position", "catalog-change", "content-length"}
    headers = answer.headers.items(lower=True)
    is_created = answer.status_code == 201
    body: Any = answer.body
    if is_created:
        body = answer.json | {"id": 0, "created_at": "", "updated_at": ""}
    told = [(name, value) for name, value in headers if not (is_created and name in changing)]
    return answer.status_code, sorted(told), body


def refreshed(answer: Response) -> tuple[int, list[tuple[str, str]], Any]:
    """Return the answer to a refresh without the access token and the time, which differ."""
    status, headers, body = telling(answer)
    headers = [(name, value.partition(";t=")[0]) for name, value in headers]
    if status == 200:
        body = answer.json.keys()
    return status, headers, body


class TestAnswers:
    QUERIES = (
        *("", "?limit=2", "?sort=price&limit=3", "?fields=id,name", "?total=true&min_price=0.5"),
        *("?limit=0", "?limit=2&limit=3", "?unknown=1", "?cursor=forged", "?limit", "?limit="),
        *("?q=lamp", "?q=desk%20lamp", "?sort=%70rice", "?ids=1,2,3", "?user_id=1", "?limit=2&"),
        *("?&", "?q=%ff", "?limit=%32", f"?q={'x' * 600}", "?ids=1&ids=2", "?ids[]=1", "?total=1"),
        *(
            "?format=json",
            "?format=csv",
            "?%66ormat=ndjson",
            "?format=",
            "?format=x",
            "?xformat=csv",
        ),
    )
    ACCEPTS = ("*/*", "application/json", "text/csv", "application/x-ndjson", "image/png", "a;q=0")
    BODIES = (
        b'{"name": "Lamp", "price": 24.9}',
        b'{"name": "Lamp", "price": -0.0, "description": null}',
        b'{"name": " ", "price": 1}',
        b'{"name": "Lamp", "price": "1"}',
        b'{"name": "Lamp", "price": 1, "is_admin": true}',
        b'{"name": "Lamp", "name": "Lamp", "price": 1}',
        b'{"price": NaN}',
        b"\xff",
        b"[]",
        b"{}",
        b"",
    )
    HEADERS: tuple[dict[str, str], ...] = (
        {"Accept": "application/json"},
        {"Accept": "text/csv"},
        {"Authorization": ""},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer not.a.token"},
        {"Idempotency-Key": "x" * 256},
        {"Idempotency-Key": "é"},
        {"If-Match": '"x"'},
        {"If-Match": "nonsense"},
        {"If-Match": "*"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json; charset=utf8"},
        {"Content-Type": "application/merge-patch+json"},
        {"Content-Type": "Application/JSON ; charset=UTF-8"},
        {"Accept": "image/png"},
        {"If-Match": '"1-x-gzip"'},
        {"Idempotency-Key": '""'},
    )

    async def assert_equal_responses(
        self, ada: Caller, framework: Quart, method: str, path: str, *args: Any, **options: Any
    ) -> None:
        fast = await send(ada, method, path, *args, **options)
        slow = await send(on(framework, ada), method, path, *args, **options)

        assert telling(fast) == telling(slow)

    async def test_responses_are_equal_for_list_queries(
        self, ada: Caller, framework: Quart, database: Database
    ) -> None:
        await fill(database, ada)

        for query in self.QUERIES:
            await self.assert_equal_responses(ada, framework, "GET", f"{PATH}{query}", token="")
            await self.assert_equal_responses(ada, framework, "GET", f"{PATH}/my{query}")

    async def test_responses_are_equal_for_conditional_list_requests(
        self, ada: Caller, framework: Quart, database: Database
    ) -> None:
        await fill(database, ada)
        etag = (await ada.get(PATH)).headers["ETag"]

        for tags in (etag, f'W/{etag}, "x"', '"x"', "*", "nonsense"):
            headers = {"If-None-Match": tags}
            await self.assert_equal_responses(
                ada, framework, "GET", PATH, headers=headers, token=""
            )
        assert (await ada.get(PATH, headers={"If-None-Match": etag})).status_code == 304

    async def test_responses_are_equal_for_media_types(
        self, ada: Caller, framework: Quart, database: Database
    ) -> None:
        await fill(database, ada)

        for accept in self.ACCEPTS:
            for path in (PATH, f"{PATH}/1", "/livez"):
                await self.assert_equal_responses(
                    ada, framework, "GET", path, headers={"Accept": accept}
                )

    @on_sqlite
    async def test_responses_are_equal_for_weighted_accept_headers(
        self, ada: Caller, framework: Quart
    ) -> None:
        outcomes = {}
        for case in ACCEPT_CASES:
            for mode, caller in (("fast", ada), ("framework", on(framework, ada))):
                answer = await caller.get(PATH, headers={"Accept": case.accept}, token="")
                media_type = answer.headers["Content-Type"].partition(";")[0]
                outcomes[case.accept, mode] = (answer.status_code, media_type)

        assert outcomes == {
            (case.accept, mode): (case.status, case.media_type or "application/problem+json")
            for case in ACCEPT_CASES
            for mode in ("fast", "framework")
        }

    async def test_responses_are_equal_for_request_bodies(
        self, ada: Caller, framework: Quart
    ) -> None:
        await ada.create_product("Lamp", 24.9)

        for body in self.BODIES:
            await self.assert_equal_responses(ada, framework, "POST", PATH, body)
            await self.assert_equal_responses(ada, framework, "PATCH", f"{PATH}/1", body)
            await self.assert_equal_responses(ada, framework, "DELETE", f"{PATH}/99", body)

    async def test_responses_are_equal_for_encoded_bodies(
        self, ada: Caller, framework: Quart
    ) -> None:
        await ada.create_product("Lamp", 24.9)
        encoded = gzip.compress(LAMP)

        for coding in ("gzip", "x-gzip", "br", "gzip, gzip", "identity"):
            for body in (
                encoded,
                encoded[:-1],
                encoded + b"x",
                LAMP,
                gzip.compress(b" " * 300_000),
            ):
                for method, path in (
                    ("POST", PATH),
                    ("PATCH", f"{PATH}/1"),
                    ("DELETE", f"{PATH}/9"),
                ):
                    headers = {"Content-Encoding": coding}
                    await self.assert_equal_responses(ada, framework, method, path, body, headers)

    async def test_responses_are_equal_for_request_headers(
        self, ada: Caller, framework: Quart
    ) -> None:
        await ada.create_product("Lamp", 24.9)
        body = b'{"name": "Lamp", "price": 24.9}'

        for headers in self.HEADERS:
            token = "" if "Authorization" in headers else None
            for method, path in (("POST", PATH), ("PATCH", f"{PATH}/1"), ("PATCH", f"{PATH}/9")):
                await self.assert_equal_responses(
                    ada, framework, method, path, body, headers, token=token
                )
            await self.assert_equal_responses(
                ada, framework, "GET", f"{PATH}/1", None, headers, token=token
            )

    async def test_responses_are_equal_for_products_and_accounts(
        self, ada: Caller, bob: Caller, framework: Quart
    ) -> None:
        await ada.create_product("Lamp", 24.9)

        for last in ("1", "01", "0", "2", "9223372036854775808", "x", "1/", "my"):
            for method in ("GET", "DELETE", "PUT", "OPTIONS", "HEAD"):
                await self.assert_equal_responses(bob, framework, method, f"{PATH}/{last}")
        await self.assert_equal_responses(ada, framework, "GET", "/api/auth/me")
        await self.assert_equal_responses(
            ada, framework, "GET", "/api/auth/me", token=ada.refresh_token
        )
        await self.assert_equal_responses(ada, framework, "GET", "/api/auth/me", token="")

    async def test_responses_are_equal_for_change_requests(
        self, ada: Caller, framework: Quart, database: Database
    ) -> None:
        await fill(database, ada)
        queries = (
            "",
            "?since=0&limit=2",
            "?since=99",
            "?since=x",
            "?since=1.0000000000",
            "?limit=0",
        )
        waits = ("?wait=0", "?%77ait=0", "?wait=x", "?since=2&wait=1&limit=1")

        for query in (*queries, *waits, "?unknown=1", "?since=0&since=1", "?since="):
            await self.assert_equal_responses(
                ada, framework, "GET", f"{PATH}/changes{query}", token=""
            )
        for accept in self.ACCEPTS:
            headers = {"Accept": accept}
            await self.assert_equal_responses(
                ada, framework, "GET", f"{PATH}/changes", headers=headers
            )

    async def test_responses_are_equal_for_account_operations(
        self, ada: Caller, bob: Caller, admin: Caller, framework: Quart
    ) -> None:
        requests: tuple[tuple[str, str, bytes | None], ...] = (
            *(("GET", "/api/auth/sessions", None), ("GET", "/api/auth/me?x=1", None)),
            *(("GET", "/api/users", None), ("GET", "/api/users?limit=1", None)),
            *(("GET", "/api/users?limit=0", None), ("GET", "/api/users/99", None)),
            *(("GET", f"/api/users/{bob.user_id}", None), ("GET", "/api/users/0", None)),
            ("PATCH", f"/api/users/{bob.user_id}", b'{"disabled": false}'),
            ("PATCH", f"/api/users/{bob.user_id}", b'{"role": "king"}'),
            ("PATCH", "/api/users/99", b'{"role": "user"}'),
            ("PATCH", "/api/auth/me", b'{"email": "ada@example.org"}'),
            ("PATCH", "/api/auth/me", b'{"email": "nobody"}'),
            ("PATCH", "/api/auth/me", b'{"email": "bob@example.com"}'),
            ("PATCH", "/api/auth/me", b"[]"),
            *(("DELETE", "/api/auth/sessions/99", None), ("DELETE", "/api/auth/sessions/0", None)),
            *(("PUT", "/api/auth/sessions", None), ("DELETE", "/api/auth/me", b"{}")),
        )

        for method, path, body in requests:
            for caller in (ada, admin):
                await self.assert_equal_responses(caller, framework, method, path, body)
            await self.assert_equal_responses(ada, framework, method, path, body, token="")
            await self.assert_equal_responses(
                ada, framework, method, path, body, token=ada.refresh_token
            )

    async def test_responses_are_equal_for_refresh_and_log_out(
        self, ada: Caller, bob: Caller, framework: Quart
    ) -> None:
        path = "/api/auth/refresh"
        bodies = (None, b"", b"{}", b'{"rotate": false}', b'{"rotate": 1}', b"[]", b"x")

        for token in (ada.refresh_token, ada.access_token, "", "not.a.token"):
            for body in bodies:
                fast = await send(ada, "POST", path, body, token=token)
                slow = await send(on(framework, ada), "POST", path, body, token=token)
                assert refreshed(fast) == refreshed(slow)
            fast = await send(ada, "GET", path, token=token)
            assert refreshed(fast) == refreshed(
                await send(on(framework, ada), "GET", path, token=token)
            )
        # Within the grace period a superseded token yields the same successor.
        rotated = [
            await send(each, "POST", path, b'{"rotate": true}', token=ada.refresh_token)
            for each in (ada, on(framework, ada))
        ]
        assert rotated[0].json["refresh_token"] == rotated[1].json["refresh_token"]
        for way in ("logout", "logout-all"):
            for token in (bob.refresh_token, bob.access_token, ""):
                await self.assert_equal_responses(
                    bob, framework, "POST", f"/api/auth/{way}", token=token
                )

    async def test_ended_session_is_refused(self, ada: Caller) -> None:
        await ada.post("/api/auth/logout")

        for method, path, body in (("GET", "/api/auth/me", None), ("POST", PATH, LAMP)):
            answer = await send(ada, method, path, body)
            assert problem_of(answer) == (401, "session-ended")

    async def test_idempotency_key_holds_across_both(self, ada: Caller, framework: Quart) -> None:
        key = {"Idempotency-Key": "a"}

        answers = [
            await send(caller, "POST", PATH, LAMP, key) for caller in (ada, on(framework, ada), ada)
        ]

        assert [answer.status_code for answer in answers] == [201] * 3
        assert len({answer.body for answer in answers}) == 1
        replayed = [answer.headers.get("Idempotency-Replayed") for answer in answers]
        assert replayed == [None, "true", "true"]
        listed = await ada.get(f"{PATH}/my")
        assert len(listed.json["products"]) == 1

    async def test_rate_limit_counts_both(self, settings: Settings) -> None:
        app = create_app(settings.model_copy(update={"write_limit": Rate(3, 3600)}))
        async with app.test_app():
            ada = await Caller.signed_up(app, "ada")
            # A trailing slash keeps a request off the fast path.
            answers = [
                await send(ada, "POST", path, LAMP)
                for path in (PATH, f"{PATH}/", PATH, PATH, f"{PATH}/")
            ]

        assert [answer.status_code for answer in answers] == [201, 201, 201, 429, 429]
        left = [answer.headers["RateLimit"].split(";")[1] for answer in answers]
        assert left == ["r=2", "r=1", "r=0", "r=0", "r=0"]
        assert problem_of(answers[3]) == (429, "rate-limited")

    async def test_database_outage_is_answered_503(self, tmp_path: Path) -> None:
        anyone = Caller(app_without_database(tmp_path, fast_path="on"))

        for path in (PATH, f"{PATH}/1"):
            answer = await anyone.get(path)
            assert problem_of(answer) == (503, "database-unavailable")
            assert answer.headers["Retry-After"]


class TestMatch:
    HOT = (
        *(("GET", PATH), ("GET", f"{PATH}?limit=0"), ("GET", f"{PATH}?sort=%70rice")),
        *(("GET", f"{PATH}/my"), ("GET", f"{PATH}/1"), ("GET", f"{PATH}/99")),
        *(("GET", "/api/auth/me"), ("GET", "/livez"), ("DELETE", f"{PATH}/99")),
        *(("GET", f"{PATH}?q=format%3Dcsv"), ("GET", f"{PATH}?sort=name&informat=csv")),
        *(("GET", f"{PATH}/changes"), ("GET", f"{PATH}/changes?since=0&limit=5")),
        *(("GET", "/api/auth/refresh"), ("GET", "/api/auth/sessions"), ("GET", "/api/users")),
        *(("DELETE", "/api/auth/sessions/99"), ("GET", "/api/users/1")),
    )
    COLD = (
        *(("GET", f"{PATH}/"), ("HEAD", PATH), ("OPTIONS", PATH), ("PUT", PATH), ("PUT", "/x")),
        *(("GET", f"{PATH}/01"), ("GET", f"{PATH}/x"), ("GET", "/x")),
        *(("GET", f"{PATH}/changes?wait=0"), ("GET", f"{PATH}/changes?%77ait=0")),
    )

    async def test_hot_requests_do_not_reach_the_framework(self, ada: Caller) -> None:
        seen = Seen()
        with request_started.connected_to(seen.note, sender=ada.app):
            for method, path in self.HOT:
                await send(ada, method, path)
            for headers in ({}, {"Idempotency-Key": "a"}):
                assert (await send(ada, "POST", PATH, LAMP, headers)).status_code == 201
            await send(ada, "POST", PATH, b"{}")
            for media_type in (
                "application/json",
                "application/json; charset=utf-8",
                "application/merge-patch+json",
            ):
                headers = {"Content-Type": media_type}
                edited = await send(ada, "PATCH", f"{PATH}/1", b'{"price": 1}', headers)
                assert edited.status_code == 200

        assert seen.requests == 0

    async def test_other_requests_reach_the_framework(self, ada: Caller) -> None:
        seen = Seen()
        with request_started.connected_to(seen.note, sender=ada.app):
            for method, path in self.COLD:
                await send(ada, method, path)
            for query in ("format=csv", "q=&format=json", "%66ormat=csv", "q=a&format%3D=csv"):
                await send(ada, "GET", f"{PATH}?{query}")
            await send(ada, "GET", f"{PATH}/1?limit=1")
            await send(ada, "GET", PATH, headers={"Accept": "text/csv"})
            await send(ada, "GET", PATH, headers={"Accept": "image/png"})
            await send(ada, "GET", PATH, headers={"Accept": "a," * 300 + "*/*"})
            for media_type in ("application/x-ndjson", "application/json; charset=latin-1"):
                await send(ada, "POST", PATH, LAMP, {"Content-Type": media_type})

        assert seen.requests == len(self.COLD) + 10

    async def test_reads_that_share_round_trips_have_bounds_of_their_own(self, app: Quart) -> None:
        dispatcher = Dispatcher(app, HOT_OPERATIONS)

        def bound_of(method: str, path: str) -> int | None:
            scope: Any = {"method": method, "path": path, "query_string": b"", "headers": []}
            capacity = dispatcher.capacity_of(scope)
            return None if capacity is None else capacity.most

        requests = [*self.HOT, *self.COLD]
        paths = [(method, path.partition("?")[0]) for method, path in requests]
        bounds = {each: bound for each in paths if (bound := bound_of(*each)) is not None}
        assert bounds == {
            ("GET", PATH): UNBOUNDED,
            ("GET", f"{PATH}/my"): UNBOUNDED,
            **dict.fromkeys([("GET", f"{PATH}/1"), ("GET", f"{PATH}/99")], MAX_BATCHED_READS),
            ("GET", "/api/auth/me"): MAX_BATCHED_READS,
            ("GET", "/api/auth/refresh"): MAX_BATCHED_READS,
            ("GET", f"{PATH}/changes"): MAX_CHANGE_READS,
        }

    async def test_all_hot_operations_exist(self, app: Quart) -> None:
        assert {each.endpoint for each in HOT_OPERATIONS} <= app.view_functions.keys()


class TestRegistration:
    @staticmethod
    async def view(**_: object) -> Reply:
        return Reply()

    def app_with(self, rule: str) -> tuple[CatalogApp, Routes]:
        app, routes = CatalogApp("test"), Routes("things", __name__)
        routes.get(rule)(self.view)
        return app, routes

    async def test_hooks_of_the_framework_are_refused(self) -> None:
        app, routes = self.app_with("/things")

        async def hook() -> None: ...

        routes.before_request(hook)
        app.register_blueprint(routes)

        with pytest.raises(ValueError, match="hooks"):
            Dispatcher(app, [Operation("things.view")])

    async def test_parameters_other_than_an_id_are_refused(self) -> None:
        app, routes = self.app_with("/things/<name>")
        app.register_blueprint(routes)

        with pytest.raises(ValueError, match="parameters"):
            Dispatcher(app, [Operation("things.view")])
