"""Bulk imports over HTTP: many products in one request."""

from collections.abc import Sequence
from typing import Literal

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.app import create_app
from catalog.auth.models import User
from catalog.db.database import Database
from catalog.products.bulk import atomic, chunks
from catalog.products.bulk.chunks import CHUNK_ROWS
from catalog.products.bulk.formats import IMPORTED
from catalog.settings import Settings
from tests.http.wire import Unanswered, exchange
from tests.products.bulk.sending import NDJSON, lines_of, send
from tests.support import Caller, Response, problem_of

Then = Literal["end", "stalls", "hangs up"]

CSV = "text/csv"


async def names_of(caller: Caller) -> list[str]:
    """Return the names of the caller's products, oldest first."""
    page = (await caller.get("/api/products/my?limit=1000&sort=id")).json
    return [product["name"] for product in page["products"]]


class TestCreate:
    async def test_ndjson_lines_become_products_of_the_caller(self, ada: Caller) -> None:
        await ada.create_product("Before")

        answer = await send(ada, b'{"name":"Lamp","price":9.5}\n\n{"price":1,"name":"Rug"}')

        assert answer.status_code == 200
        assert answer.json == {
            "created": 2,
            "failed": 0,
            "first_id": 2,
            "last_id": 3,
            "errors": [],
        }
        assert answer.headers["Catalog-Position"] == "3"
        assert await names_of(ada) == ["Before", "Lamp", "Rug"]
        rug = (await ada.get("/api/products/3")).json
        assert (rug["price"], rug["description"], rug["version"]) == (1.0, None, 1)
        assert rug["user_id"] == ada.user_id

    async def test_csv_records_become_products_of_the_caller(self, ada: Caller) -> None:
        text = 'price,name,description\r\n9.5,"Lamp, oak","two\r\nlines"\r\n1,Tür,\r\n'

        answer = await send(ada, text.encode(), media_type="text/csv; charset=UTF-8")

        assert answer.json["created"] == 2
        assert await names_of(ada) == ["Lamp, oak", "Tür"]
        assert (await ada.get("/api/products/1")).json["description"] == "two\r\nlines"

    @pytest.mark.parametrize("media_type", [*IMPORTED, "Application/JSONL; charset=utf8"])
    async def test_media_types_in_use_are_accepted(self, ada: Caller, media_type: str) -> None:
        body = b"name,price\nLamp,1\n" if "csv" in media_type else b'{"name":"Lamp","price":1}\n'

        answer = await send(ada, body, media_type=media_type)

        assert (answer.status_code, answer.json["created"]) == (200, 1)

    async def test_invalid_lines_are_reported_and_the_others_created(self, ada: Caller) -> None:
        text = b'{"name":"a","price":1}\n{"name":"","price":"1"}\nnonsense\n{"name":"b","price":2}'

        answer = await send(ada, text)

        assert answer.status_code == 200
        assert (answer.json["created"], answer.json["failed"]) == (2, 2)
        assert answer.json["errors"] == [
            {
                "line": 2,
                "code": "invalid",
                "pointer": "/name",
                "message": "name must not be empty.",
            },
            {
                "line": 2,
                "code": "invalid",
                "pointer": "/price",
                "message": "price must be a number.",
            },
            {"line": 3, "code": "malformed", "message": "The line is not valid JSON at column 1."},
        ]
        assert await names_of(ada) == ["a", "b"]

    async def test_first_thousand_errors_are_reported_and_the_others_counted(
        self, ada: Caller
    ) -> None:
        answer = await send(ada, b"{}\n" * 1500 + lines_of(1))

        assert (answer.json["created"], answer.json["failed"]) == (1, 1500)
        assert [error["line"] for error in answer.json["errors"]] == [
            line for line in range(1, 501) for _ in range(2)
        ]

    async def test_chunks_are_written_in_order(self, ada: Caller) -> None:
        count = 2 * CHUNK_ROWS + 1

        answer = await send(ada, lines_of(count))

        assert answer.json["created"] == count
        assert answer.json["last_id"] - answer.json["first_id"] == count - 1
        assert answer.headers["Catalog-Position"] == str(count)
        last = await ada.get(f"/api/products/{answer.json['last_id']}")
        assert last.json["name"] == f"n{count - 1}"
        changes = (await ada.get(f"/api/products/changes?since={count - 3}")).json["changes"]
        assert [change["id"] for change in changes] == list(range(count - 2, count + 1))

    @pytest.mark.parametrize("media_type", [NDJSON, CSV])
    async def test_empty_body_creates_nothing(self, ada: Caller, media_type: str) -> None:
        body = b"" if media_type == NDJSON else b"name,price\r\n"

        answer = await send(ada, body, media_type=media_type)

        assert (answer.json["created"], answer.json["failed"]) == (0, 0)
        assert (answer.json["first_id"], answer.json["last_id"]) == (None, None)
        assert answer.headers["Catalog-Position"] == "0"

    async def test_csv_without_a_valid_header_is_refused(self, ada: Caller) -> None:
        answer = await send(ada, b"title,price\r\nLamp,1\r\n", media_type=CSV)

        assert problem_of(answer) == (422, "lines-invalid")
        assert answer.json["errors"][0] == {
            "line": 1,
            "code": "invalid",
            "pointer": "/title",
            "message": "title is not a known column.",
        }

    async def test_disabled_account_is_refused(self, ada: Caller, database: Database) -> None:
        async def disable(session: AsyncSession) -> None:
            await session.execute(update(User).values(disabled=True))

        await database.transaction(disable)

        answer = await send(ada, lines_of(3))

        assert problem_of(answer) == (401, "account-unavailable")
        assert answer.json["created"] == 0


class TestAtomic:
    async def test_valid_lines_are_all_created(self, ada: Caller) -> None:
        count = CHUNK_ROWS + 1

        answer = await send(ada, lines_of(count), "?atomic=true")

        assert answer.json["created"] == count
        assert (answer.json["first_id"], answer.json["last_id"]) == (1, count)
        assert answer.headers["Catalog-Position"] == str(count)
        log = (await ada.get(f"/api/products/changes?since={count - 2}")).json["changes"]
        assert [(change["position"], change["id"]) for change in log] == [
            (count - 1, count - 1),
            (count, count),
        ]

    async def test_invalid_line_prevents_all_creates(self, ada: Caller) -> None:
        answer = await send(ada, lines_of(CHUNK_ROWS + 1) + b"nonsense", "?atomic=true")

        assert problem_of(answer) == (422, "lines-invalid")
        assert (answer.json["created"], answer.json["failed"]) == (0, 1)
        assert answer.json["errors"] == [
            {
                "line": CHUNK_ROWS + 2,
                "code": "malformed",
                "message": "The line is not valid JSON at column 1.",
            }
        ]
        assert await names_of(ada) == []

    async def test_body_with_too_many_rows_is_refused(
        self, ada: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(atomic, "MAX_ATOMIC_ROWS", 10)

        assert (await send(ada, lines_of(10), "?atomic=true")).json["created"] == 10
        answer = await send(ada, lines_of(11), "?atomic=true")

        assert problem_of(answer) == (413, "body-too-large")
        assert len(await names_of(ada)) == 10


class TestDryRun:
    @pytest.mark.parametrize("atomic", ["true", "false", "1", "0", ""])
    async def test_dry_run_writes_nothing(self, ada: Caller, atomic: str) -> None:
        answer = await send(ada, lines_of(5), f"?dry_run=true&atomic={atomic}")

        assert answer.json == {
            "created": 5,
            "failed": 0,
            "first_id": None,
            "last_id": None,
            "errors": [],
        }
        assert await names_of(ada) == []

    async def test_dry_run_reports_errors(self, ada: Caller) -> None:
        text = lines_of(2) + b"nonsense"

        answer = await send(ada, text, "?dry_run=true")
        refused = await send(ada, text, "?dry_run=true&atomic=true")

        assert (answer.json["created"], answer.json["failed"]) == (2, 1)
        assert problem_of(refused) == (422, "lines-invalid")
        assert refused.json["errors"] == answer.json["errors"]

    async def test_dry_run_of_a_single_create_is_invalid(self, ada: Caller) -> None:
        answer = await ada.post("/api/products?dry_run=true", json={"name": "Lamp", "price": 1})

        assert problem_of(answer) == (422, "invalid")
        assert await names_of(ada) == []


class TestRefusal:
    async def test_anonymous_caller_is_refused(self, anyone: Caller) -> None:
        assert problem_of(await send(anyone, lines_of(1))) == (401, "token-missing")

    @pytest.mark.parametrize(
        "query", ["?atomic=yes", "?dry_run=True", "?x=1", "?x=", "?atomic=true&atomic=true"]
    )
    async def test_invalid_parameter_is_refused(self, ada: Caller, query: str) -> None:
        assert problem_of(await send(ada, lines_of(1), query)) == (422, "invalid")
        assert await names_of(ada) == []

    async def test_idempotency_key_is_refused(self, ada: Caller) -> None:
        answer = await send(ada, lines_of(1), **{"Idempotency-Key": "k"})

        assert problem_of(answer) == (422, "invalid")

    @pytest.mark.parametrize(
        "media_type", ["text/csv; charset=latin-1", "application/json-seq", "multipart/form-data"]
    )
    async def test_other_media_types_are_refused(self, ada: Caller, media_type: str) -> None:
        answer = await send(ada, lines_of(1), media_type=media_type)

        assert problem_of(answer) == (415, "unsupported-media-type")


class TestStream:
    @pytest.fixture(autouse=True)
    def small_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chunks, "CHUNK_ROWS", 10)
        monkeypatch.setattr(chunks, "PIECE_BYTES", 1)

    @staticmethod
    async def stream(
        caller: Caller, body: Sequence[bytes], *, query: str = "", then: Then = "end"
    ) -> Response:
        headers = [
            (b"content-type", NDJSON.encode()),
            (b"transfer-encoding", b"chunked"),
            (b"authorization", f"Bearer {caller.access_token}".encode()),
        ]
        return await exchange(
            caller.app, "POST", f"/api/products{query}", headers=headers, body=body, then=then
        )

    async def test_stream_may_be_larger_than_any_other_body(self, ada: Caller) -> None:
        padding = b" " * 100_000 + b"\n"

        answer = await self.stream(ada, [lines_of(15), *[padding] * 5, lines_of(15)])

        assert answer.json["created"] == 30
        assert "Connection" not in answer.headers

    async def test_aborted_stream_leaves_its_complete_chunks(self, ada: Caller) -> None:
        with pytest.raises(Unanswered):
            await self.stream(ada, [lines_of(15), lines_of(12)], then="hangs up")

        assert len(await names_of(ada)) == 20

    async def test_aborted_atomic_stream_leaves_nothing(self, ada: Caller) -> None:
        with pytest.raises(Unanswered):
            await self.stream(ada, [lines_of(25)], query="?atomic=true", then="hangs up")

        assert await names_of(ada) == []

    async def test_stalled_stream_times_out_and_reports_its_progress(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.app.BODY_SECONDS", 0.05)
        app = create_app(settings)
        async with app.test_app():
            ada = await Caller.signed_up(app, "ada")

            answer = await self.stream(ada, [lines_of(20), b"{}\n", lines_of(3)], then="stalls")

            assert problem_of(answer) == (408, "request-timeout")
            assert answer.headers["Connection"] == "close"
            told = {name: answer.json[name] for name in ("created", "line", "first_id", "last_id")}
            assert told == {"created": 20, "line": 20, "first_id": 1, "last_id": 20}
            assert len(await names_of(ada)) == 20
