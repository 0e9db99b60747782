"""Fast path: answers exactly as the framework does, and takes plain requests only."""

from collections.abc import Mapping
from typing import Any

import pytest
from quart import Quart, request, request_started

from catalog.app import create_app
from catalog.db.database import Database
from catalog.errors import DatabaseUnavailable
from catalog.products.schemas import PATH
from catalog.settings import Rate, Settings
from tests.db.support import on_sqlite
from tests.http.accept_cases import ACCEPT_CASES
from tests.products.listing.test_page_cache import fill
from tests.support import Caller, Response, problem_of


class TestPageFastPath:
    LONG = (("Content-Length", "0"),)
    QUERIES = (
        *("", "?limit=2", "?sort=price&limit=3", "?fields=id,name", "?total=true&min_price=0.5"),
        *(
            "?limit=0",
            "?limit=2&limit=3",
            "?unknown=1",
            "?cursor=forged",
            "?limit",
            "?limit=",
            "?&",
        ),
        *("?q=lamp", "?q=desk%20lamp", "?sort=%70rice", "?ids=1,2,3", "?user_id=1", "?limit=2&"),
    )
    ACCEPTS = ("*/*", "application/json", "text/csv", "application/x-ndjson", "image/png", "a;q=0")

    @pytest.mark.parametrize("query", QUERIES)
    async def test_queries_get_the_same_answer_on_both_paths(
        self, ada: Caller, anyone: Caller, database: Database, query: str
    ) -> None:
        await fill(database, ada)

        await self.is_the_same(anyone, query, {})

    async def test_headers_get_the_same_answer_on_both_paths(
        self, ada: Caller, anyone: Caller, database: Database
    ) -> None:
        await fill(database, ada)
        etag = (await anyone.get(PATH)).headers["ETag"]

        for accept in self.ACCEPTS:
            await self.is_the_same(anyone, "", {"Accept": accept})
        for tags in (etag, f'W/{etag}, "x"', '"x"', "*", "nonsense"):
            await self.is_the_same(anyone, "", {"If-None-Match": tags})
        assert (await anyone.get(PATH, headers={"If-None-Match": etag})).status_code == 304

    @on_sqlite
    async def test_accept_is_negotiated_alike_on_both_paths(self, ada: Caller) -> None:
        outcomes = {}
        for case in ACCEPT_CASES:
            # A token keeps a request off the fast path.
            for token in (None, ""):
                answer = await ada.get(PATH, headers={"Accept": case.accept}, token=token)
                media_type = answer.headers["Content-Type"].partition(";")[0]
                outcomes[case.accept, token] = (answer.status_code, media_type)

        assert outcomes == {
            (case.accept, token): (case.status, case.media_type or "application/problem+json")
            for case in ACCEPT_CASES
            for token in (None, "")
        }

    async def test_fast_path_takes_plain_requests_only(self, ada: Caller, anyone: Caller) -> None:
        seen: list[str] = []

        async def note(_app: Quart, **_: object) -> None:
            seen.append(request.full_path)

        with request_started.connected_to(note, sender=anyone.app):
            for query in ("", "?limit=7", "?sort=-price&fields=id,name&min_price=1.5"):
                assert (await anyone.get(PATH + query)).status_code == 200
            assert seen == []

            await ada.get(PATH)
            await anyone.get(f"{PATH}/")
            await anyone.get(PATH, headers=dict(self.LONG))
            await anyone.get(f"{PATH}?limit=0")
        assert len(seen) == 4

    async def is_the_same(self, anyone: Caller, query: str, headers: dict[str, str]) -> None:
        headers = {**headers, "X-Request-ID": "same"}
        short = await anyone.get(PATH + query, headers=headers)
        long = await anyone.get(PATH + query, headers={**headers, **dict(self.LONG)})

        assert short.status_code == long.status_code
        assert short.body == long.body
        assert sorted(short.headers.items(lower=True)) == sorted(long.headers.items(lower=True))

    async def test_database_outage_is_answered_503(
        self, anyone: Caller, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def away(*_: Any, **__: Any) -> Any:
            raise DatabaseUnavailable

        monkeypatch.setattr(database, "reading", away)

        answer = await anyone.get(PATH)

        assert problem_of(answer) == (503, "database-unavailable")
        assert answer.headers["Retry-After"]


LAMP = b'{"name": "Lamp", "price": 24.9, "description": "Warm light."}'
LONG_TYPE = {"Content-Type": "application/json; charset=utf-8"}
SHORT_TYPE = {"Content-Type": "application/json"}


class Seen:
    """Counter of the requests that reach the framework."""

    def __init__(self) -> None:
        self.requests = 0

    async def note(self, _app: Quart, **_: object) -> None:
        self.requests += 1


async def create(
    caller: Caller,
    body: bytes = LAMP,
    headers: Mapping[str, str] | None = None,
    *,
    path: str = PATH,
    token: str | None = None,
) -> Response:
    """Send a body with its Content-Length, as servers do and the test client does not."""
    given = {**SHORT_TYPE, "Content-Length": str(len(body)), **(headers or {})}
    return await caller.post(path, data=body, headers=given, token=token)


def telling(answer: Response) -> tuple[int, dict[str, str], Any]:
    """Return an answer without the parts that differ between two products."""
    headers = {
        name: value
        for name, value in answer.headers.items(lower=True)
        if name not in {"location", "etag", "catalog-position", "catalog-change", "content-length"}
    }
    body: Any = answer.json if answer.body else {}
    if answer.status_code == 201:
        body |= {"id": 0, "created_at": "", "updated_at": ""}
    return answer.status_code, headers, body


class TestCreateFastPath:
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
    )

    async def is_the_same(self, ada: Caller, body: bytes, headers: dict[str, str]) -> None:
        headers = {**headers, "X-Request-ID": "same"}
        token = "" if "Authorization" in headers else None
        short, long = [
            await create(ada, body, {**headers, **kind}, token=token)
            for kind in (SHORT_TYPE, LONG_TYPE)
        ]

        assert telling(short) == telling(long)

    async def test_bodies_get_the_same_answer_on_both_paths(self, ada: Caller) -> None:
        for body in self.BODIES:
            await self.is_the_same(ada, body, {})

    async def test_headers_get_the_same_answer_on_both_paths(self, ada: Caller) -> None:
        for headers in self.HEADERS:
            await self.is_the_same(ada, self.BODIES[0], headers)

    async def test_refresh_token_is_refused(self, ada: Caller) -> None:
        answer = await create(ada, token=ada.refresh_token)

        assert problem_of(answer) == (401, "token-wrong-kind")

    async def test_ended_session_is_refused(self, ada: Caller) -> None:
        await ada.post("/api/auth/logout")

        assert problem_of(await create(ada)) == (401, "session-ended")

    async def test_fast_path_takes_plain_requests_only(self, ada: Caller) -> None:
        seen = Seen()
        with request_started.connected_to(seen.note, sender=ada.app):
            created = await create(ada)
            keyed = await create(ada, LAMP, {"Idempotency-Key": "a"})
            assert (created.status_code, keyed.status_code) == (201, 201)
            assert seen.requests == 0

            await create(ada, path=f"{PATH}?atomic=true")
            await create(ada, LAMP, LONG_TYPE)
            await create(ada, b"{}")
            await create(ada, token="")
        assert seen.requests == 4

    async def test_idempotency_key_holds_across_both_paths(self, ada: Caller) -> None:
        answers = [
            await create(ada, LAMP, {"Idempotency-Key": "a", **kind})
            for kind in (SHORT_TYPE, LONG_TYPE, SHORT_TYPE)
        ]

        assert [answer.status_code for answer in answers] == [201] * 3
        assert len({answer.body for answer in answers}) == 1
        replayed = [answer.headers.get("Idempotency-Replayed") for answer in answers]
        assert replayed == [None, "true", "true"]
        listed = await ada.get(f"{PATH}/my")
        assert len(listed.json["products"]) == 1

    async def test_rate_limit_counts_both_paths(self, settings: Settings) -> None:
        app = create_app(settings.model_copy(update={"write_limit": Rate(3, 3600)}))
        async with app.test_app():
            await self.creates_up_to_three(await Caller.signed_up(app, "ada"))

    async def creates_up_to_three(self, ada: Caller) -> None:
        answers = [
            await create(ada, LAMP, kind)
            for kind in (SHORT_TYPE, LONG_TYPE, SHORT_TYPE, SHORT_TYPE, LONG_TYPE)
        ]

        assert [answer.status_code for answer in answers] == [201, 201, 201, 429, 429]
        left = [answer.headers["RateLimit"].split(";")[1] for answer in answers]
        assert left == ["r=2", "r=1", "r=0", "r=0", "r=0"]
        assert problem_of(answers[3]) == (429, "rate-limited")
