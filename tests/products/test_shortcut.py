"""The short way to a page answers as the framework does, and only what is plain goes by it."""

from typing import Any

import pytest
from quart import Quart, request, request_started

from catalog.db.database import Database
from catalog.errors import DatabaseUnavailable
from catalog.products.pages import PATH
from tests.products.test_pages import fill
from tests.support import Caller, problem_of


class TestShortcut:
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
    async def test_queries(
        self, ada: Caller, anyone: Caller, database: Database, query: str
    ) -> None:
        await fill(database, ada)

        await self.is_the_same(anyone, query, {})

    async def test_headers(self, ada: Caller, anyone: Caller, database: Database) -> None:
        await fill(database, ada)
        etag = (await anyone.get(PATH)).headers["ETag"]

        for accept in self.ACCEPTS:
            await self.is_the_same(anyone, "", {"Accept": accept})
        for tags in (etag, f'W/{etag}, "x"', '"x"', "*", "nonsense"):
            await self.is_the_same(anyone, "", {"If-None-Match": tags})
        assert (await anyone.get(PATH, headers={"If-None-Match": etag})).status_code == 304

    async def test_it_is_taken_for_plain_requests_alone(self, ada: Caller, anyone: Caller) -> None:
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

    async def test_the_database_being_away_is_told(
        self, anyone: Caller, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def away(*_: Any, **__: Any) -> Any:
            raise DatabaseUnavailable

        monkeypatch.setattr(database, "reading", away)

        answer = await anyone.get(PATH)

        assert problem_of(answer) == (503, "database-unavailable")
        assert answer.headers["Retry-After"]
