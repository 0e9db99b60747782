"""Export of all products as NDJSON and CSV."""

import asyncio
import csv
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from io import StringIO
from typing import Any

import orjson
import pytest
from quart import Quart

from catalog.db.database import Database
from catalog.errors import DatabaseUnavailable
from catalog.http.replies.reply import Reply
from catalog.http.replies.streaming import stream_reply
from catalog.products import service
from catalog.products.bulk import exporting
from catalog.products.bulk.exporting import MAX_EXPORTS
from catalog.products.bulk.formats import FORMATS
from catalog.products.bulk.importing import MAX_IMPORTS
from catalog.products.context import products
from catalog.products.models import NewProduct
from catalog.products.seed_data import make_samples
from tests.db.support import on_sqlite
from tests.support import Caller, Response, fields_of, handling, problem_of

LIST = "/api/products"
NDJSON = {"Accept": "application/x-ndjson"}
CSV = {"Accept": "text/csv"}
TO_NDJSON = {"Content-Type": "application/x-ndjson"}
SAMPLES = 250


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "EXPORTED_ROWS", 40)


@pytest.fixture
async def stocked(ada: Caller, bob: Caller, database: Database) -> None:
    """Insert products of two owners, more than are read at a time."""
    owners = [ada.user_id or 0, bob.user_id or 0]
    for new_products in make_samples(SAMPLES, owner_ids=owners, seed=3):
        await database.transaction(service.insert_products, new_products)


async def all_products(caller: Caller, path: str = f"{LIST}?limit=1000") -> list[dict[str, Any]]:
    products: list[dict[str, Any]] = (await caller.get(path)).json["products"]
    return products


def lines_of(answer: Response) -> list[Any]:
    assert answer.status_code == 200, answer.body
    assert answer.body.endswith(b"\n") or not answer.body
    return [orjson.loads(line) for line in answer.body.splitlines()]


def records_of(answer: Response) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.body
    return list(csv.DictReader(StringIO(answer.body.decode(), newline="")))


@pytest.mark.usefixtures("stocked")
class TestExport:
    async def test_ndjson_has_every_product_as_pages_show_it(self, anyone: Caller) -> None:
        answer = await anyone.get(LIST, headers=NDJSON)

        assert lines_of(answer) == await all_products(anyone)
        assert answer.headers["Content-Type"] == "application/x-ndjson; charset=utf-8"
        assert answer.headers["Catalog-Position"] == str(SAMPLES)
        assert answer.headers["Vary"] == "Accept"
        assert answer.headers["Content-Disposition"] == 'attachment; filename="products.ndjson"'

    async def test_csv_has_every_product_as_pages_show_it(self, anyone: Caller) -> None:
        answer = await anyone.get(LIST, headers=CSV)

        shown = await all_products(anyone)
        records = records_of(answer)
        assert [int(record["id"]) for record in records] == [each["id"] for each in shown]
        assert [float(record["price"]) for record in records] == [each["price"] for each in shown]
        assert list(records[0]) == list(shown[0])
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"

    @pytest.mark.parametrize(
        "query",
        [
            "sort=price",
            "sort=-name&min_price=20",
            "q=oak",
            "limit=41",
            "limit=40",
            "ids=1,2,3",
            "limit=7&sort=created_at&max_price=50&q=made",
        ],
    )
    async def test_filters_sorts_and_limits_apply(self, anyone: Caller, query: str) -> None:
        page = query if "limit" in query else f"{query}&limit=1000"

        assert lines_of(await anyone.get(f"{LIST}?{query}", headers=NDJSON)) == await all_products(
            anyone, f"{LIST}?{page}"
        )

    async def test_fields_are_chosen_and_ordered(self, anyone: Caller) -> None:
        chosen = lines_of(await anyone.get(f"{LIST}?fields=price,id&limit=2", headers=NDJSON))
        one = records_of(await anyone.get(f"{LIST}?fields=name&limit=2", headers=CSV))

        assert [list(product) for product in chosen] == [["price", "id"]] * 2
        assert [list(record) for record in one] == [["name"]] * 2

    async def test_export_begins_at_a_cursor(self, anyone: Caller) -> None:
        page = (await anyone.get(f"{LIST}?limit=100")).json

        rest = lines_of(await anyone.get(page["next"].replace("&limit=100", ""), headers=NDJSON))

        assert page["products"] + rest == await all_products(anyone)

    async def test_own_list_exports_only_own_products(self, ada: Caller) -> None:
        lines = lines_of(await ada.get(f"{LIST}/my", headers=NDJSON))

        assert {line["user_id"] for line in lines} == {ada.user_id}
        assert lines == await all_products(ada, f"{LIST}/my?limit=1000")

    async def test_head_sends_no_products(self, anyone: Caller) -> None:
        answer = await anyone.send("HEAD", LIST, headers=NDJSON)

        assert (answer.status_code, answer.body) == (200, b"")
        assert answer.headers["Content-Type"] == "application/x-ndjson; charset=utf-8"

    async def test_total_is_refused(self, anyone: Caller) -> None:
        answer = await anyone.get(f"{LIST}?total=true", headers=CSV)

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == ["total"]

    @pytest.mark.parametrize("guard", ["false", "true"])
    async def test_csv_may_have_a_byte_order_mark_and_bare_formulas(
        self, ada: Caller, guard: str
    ) -> None:
        await ada.create_product("=1+1")
        query = f"limit=1&fields=name,price&bom=true&guard={guard}"

        answer = await ada.get(f"{LIST}?{query}", headers=CSV)

        cell = b"'=1+1" if guard == "true" else b"=1+1"
        assert answer.body == b"\xef\xbb\xbfname,price\r\n" + cell + b",9.5\r\n"

    @on_sqlite  # How the format is chosen does not depend on the engine.
    @pytest.mark.parametrize("headers", [{}, NDJSON])
    @pytest.mark.parametrize("query", ["bom=true", "guard=false"])
    async def test_option_of_csv_is_refused_elsewhere(
        self, anyone: Caller, query: str, headers: dict[str, str]
    ) -> None:
        answer = await anyone.get(f"{LIST}?{query}", headers=headers)

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == [query.partition("=")[0]]

    @on_sqlite  # The same.
    @pytest.mark.parametrize("accept", ["application/json", "text/csv", "image/png", "*/*;q=0"])
    @pytest.mark.parametrize("path", [LIST, f"{LIST}/my"])
    async def test_format_takes_precedence_over_accept(
        self, ada: Caller, path: str, accept: str
    ) -> None:
        headers = {"Accept": accept}

        for form in FORMATS.values():
            asked = [
                f"format={form.name}",
                f"%66ormat={form.name}&format=",
                f"q=&format={form.name}",
            ]
            expected = await ada.get(path, headers={"Accept": form.media_type})
            for query in asked:
                export = await ada.get(f"{path}?{query}", headers=headers)
                assert export.body == expected.body
                for name in ("Content-Type", "Content-Disposition"):
                    assert export.headers[name] == expected.headers[name]
        page = await ada.get(f"{path}?format=json&limit=2", headers=headers)
        following = await ada.get(page.json["next"], headers=headers)

        assert page.headers["Content-Type"] == "application/json"
        assert "Content-Disposition" not in page.headers
        assert len(page.json["products"]) == len(following.json["products"]) == 2

    @pytest.mark.parametrize("query", ["format=xml", "format=JSON", "format=csv&format=csv"])
    async def test_unknown_or_repeated_format_is_refused(self, anyone: Caller, query: str) -> None:
        answer = await anyone.get(f"{LIST}?{query}", headers=CSV)

        assert (problem_of(answer), fields_of(answer)) == ((422, "invalid"), ["format"])

    @pytest.mark.parametrize("media_type", list(FORMATS))
    async def test_imported_export_creates_the_same_products(
        self, anyone: Caller, bob: Caller, media_type: str
    ) -> None:
        before = await all_products(anyone, f"{LIST}?limit=1000&sort=id")
        export = await anyone.get(f"{LIST}?sort=id", headers={"Accept": media_type})

        answer = await bob.post(LIST, data=export.body, headers={"Content-Type": media_type})

        assert (answer.json["created"], answer.json["failed"]) == (SAMPLES, 0)
        after = await all_products(anyone, f"{LIST}?limit=1000&sort=id")
        said = [(each["name"], each["description"], each["price"]) for each in after]
        assert (
            said[SAMPLES:]
            == said[:SAMPLES]
            == [(each["name"], each["description"], each["price"]) for each in before]
        )


class TestEmpty:
    async def test_empty_export_is_a_csv_header_or_no_ndjson_line(self, anyone: Caller) -> None:
        assert (await anyone.get(LIST, headers=NDJSON)).body == b""
        header = b"id,name,description,price,key,user_id,version,created_at,updated_at\r\n"
        assert (await anyone.get(LIST, headers=CSV)).body == header


class TestMirror:
    async def test_export_and_followed_changes_equal_a_fresh_export(
        self, ada: Caller, anyone: Caller, database: Database
    ) -> None:
        new_products = [
            NewProduct(f"Product {number}", None, number, ada.user_id or 0) for number in range(300)
        ]
        await database.transaction(service.insert_products, new_products)
        rounds, writing = 0, True

        async def write(number: int) -> None:
            nonlocal rounds
            own = number * 40 + 1
            while writing:
                await ada.create_product(f"New {number}")
                await ada.send("PATCH", f"{LIST}/{own}", json={"name": f"Changed {own}"})
                await ada.delete(own + 1)
                own += 2
                rounds += 1

        async def write_more() -> None:
            wanted = rounds + 4
            async with asyncio.timeout(30):
                while rounds < wanted:
                    # The writers count their rounds, without an event.
                    await asyncio.sleep(0.001)

        writers = [asyncio.create_task(write(number)) for number in range(4)]
        await write_more()
        export = await anyone.get(LIST, headers=NDJSON)
        copy = {product["id"]: product for product in lines_of(export)}
        await write_more()
        writing = False
        await asyncio.gather(*writers)

        since, more, seen = int(export.headers["Catalog-Position"]), True, 0
        while more:
            page = (await anyone.get(f"{LIST}/changes?since={since}&limit=50")).json
            for change in page["changes"]:
                seen += 1
                if change["product"] is None:
                    copy.pop(change["id"], None)
                else:
                    copy[change["id"]] = change["product"]
            since, more = page["position"], page["more"]

        fresh = await anyone.get(LIST, headers=NDJSON)
        mirrored = b"".join(orjson.dumps(copy[number]) + b"\n" for number in sorted(copy)[::-1])
        assert mirrored == fresh.body
        assert int(fresh.headers["Catalog-Position"]) == since
        # There were changes meanwhile, so the export alone was not enough.
        assert seen > 0
        assert export.body != fresh.body


class TestAbort:
    async def test_aborted_export_does_not_look_complete(self, app: Quart) -> None:
        taken: list[bytes] = []

        async def pieces() -> AsyncGenerator[bytes, None]:
            yield b"one\n"
            raise DatabaseUnavailable

        async def take(reply: Reply) -> None:
            assert not isinstance(reply.body, bytes)
            async for piece in reply.body:
                taken.append(piece)  # noqa: PERF401 (it ends by an exception)

        with handling(app):
            reply = await stream_reply(pieces(), media_type="text/csv", headers={})
            # The exception makes the framework omit the end of the body.
            with pytest.raises(TimeoutError):
                await take(reply)

        assert taken == [b"one\n"]

    async def test_failure_before_the_first_piece_is_an_error(self, app: Quart) -> None:
        async def pieces() -> AsyncGenerator[bytes, None]:
            raise DatabaseUnavailable
            yield b""

        with handling(app), pytest.raises(DatabaseUnavailable):
            await stream_reply(pieces(), media_type="text/csv", headers={})


class TestCapacity:
    async def test_exports_and_imports_are_limited_and_release_their_slots(
        self, app: Quart, ada: Caller
    ) -> None:
        exports, imports = products(app).exports, products(app).imports
        with ExitStack() as stack:
            for _ in range(MAX_EXPORTS - 1):
                stack.enter_context(exports.taken())
            for _ in range(MAX_IMPORTS - 1):
                stack.enter_context(imports.taken())
            # Use the last slots more than once.
            for _ in range(2):
                assert (await ada.get(LIST, headers=CSV)).status_code == 200
                assert (await ada.send("HEAD", LIST, headers=CSV)).status_code == 200
                assert (await ada.post(LIST, data=b"", headers=TO_NDJSON)).status_code == 200

            stack.enter_context(exports.taken())
            stack.enter_context(imports.taken())

            assert problem_of(await ada.get(LIST, headers=CSV)) == (503, "overloaded")
            refused = await ada.post(LIST, data=b"", headers=TO_NDJSON)
            assert problem_of(refused) == (503, "overloaded")
            assert (await ada.get(LIST)).status_code == 200
