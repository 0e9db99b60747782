"""Upserts: a file that was exported, edited and sent back changes products instead of doubling."""

import asyncio
import csv
import json
from collections.abc import Callable, Sequence
from io import StringIO
from typing import Any

import pytest
from sqlalchemy import URL, event, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from catalog.db.database import Database
from catalog.errors import Overloaded
from catalog.products.bulk import importing, upserting
from catalog.products.bulk.formats import NDJSON, ReaderOptions, UpsertLine
from catalog.products.bulk.importing import import_products
from catalog.products.bulk.upserting import Upserts
from catalog.products.models import Product
from tests.db.support import run_on
from tests.support import Caller, Response, problem_of

PATH = "/api/products"
CLIENTS, KEYS = 50, 1000


async def upsert(caller: Caller, *lines: dict[str, Any], query: str = "") -> Response:
    """Send lines as NDJSON."""
    body = "".join(f"{json.dumps(line)}\n" for line in lines)
    headers = {"Content-Type": "application/x-ndjson"}
    return await caller.post(f"{PATH}?mode=upsert{query}", data=body.encode(), headers=headers)


def counts(answer: Response) -> tuple[int, int, int, int]:
    """Return the numbers of created, updated, unchanged and failed lines."""
    assert answer.status_code in {200, 422}, answer.body
    report = answer.json
    return report["created"], report["updated"], report["unchanged"], report["failed"]


def faults(answer: Response) -> list[tuple[int, str, str | None]]:
    return [(each["line"], each["code"], each.get("pointer")) for each in answer.json["errors"]]


async def position(caller: Caller) -> int:
    return int((await caller.get(f"{PATH}?limit=1")).headers["Catalog-Position"])


async def product(caller: Caller, product_id: int) -> dict[str, Any]:
    found: dict[str, Any] = (await caller.get(f"{PATH}/{product_id}")).json
    return found


LAMP = {"name": "Lamp", "price": 1.0, "key": "a"}


class TestUpsert:
    async def test_line_creates_then_changes_then_leaves_a_product(self, ada: Caller) -> None:
        created = await upsert(ada, LAMP, {"name": "Rug", "price": 2})
        changed = await upsert(ada, {**LAMP, "price": 3})
        again = await upsert(ada, {**LAMP, "price": 3})

        assert [counts(each) for each in (created, changed, again)] == [
            *((2, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)),
        ]
        assert (created.json["first_id"], created.json["last_id"]) == (1, 2)
        assert (changed.json["first_id"], changed.json["last_id"]) == (None, None)
        positions = [each.headers["Catalog-Position"] for each in (created, changed, again)]
        assert positions == ["2", "3", "3"]
        lamp = await product(ada, 1)
        assert (lamp["price"], lamp["version"], lamp["key"]) == (3.0, 2, "a")
        assert lamp["updated_at"] > lamp["created_at"]
        changes = (await ada.get(f"{PATH}/changes?since=0")).json["changes"]
        assert [(each["type"], each["id"], each["version"]) for each in changes] == [
            *(("created", 1, 1), ("created", 2, 1), ("updated", 1, 2)),
        ]

    async def test_fields_that_a_line_leaves_out_stay(self, ada: Caller) -> None:
        await ada.create_product("Lamp", description="Warm", key="a")

        await upsert(ada, {"id": 1, "price": 3}, {"key": "a", "description": None})

        lamp = await product(ada, 1)
        assert (lamp["name"], lamp["price"], lamp["description"]) == ("Lamp", 3.0, None)
        assert lamp["version"] == 3

    async def test_words_of_a_changed_product_are_found(self, ada: Caller) -> None:
        await upsert(ada, LAMP)
        await upsert(ada, {"key": "a", "name": "Chandelier"})

        assert len((await ada.get(f"{PATH}?q=chandelier")).json["products"]) == 1
        assert (await ada.get(f"{PATH}?q=lamp")).json["products"] == []

    async def test_lines_of_one_product_are_decided_in_order(self, ada: Caller) -> None:
        answer = await upsert(
            ada, LAMP, {**LAMP, "price": 2}, {**LAMP, "price": 2}, {"key": "a", "name": "Rug"}
        )

        assert counts(answer) == (1, 2, 1, 0)
        rug = await product(ada, 1)
        assert (rug["name"], rug["price"], rug["version"]) == ("Rug", 2.0, 3)
        changes = (await ada.get(f"{PATH}/changes?since=0")).json["changes"]
        assert [(each["type"], each["version"]) for each in changes] == [
            *(("created", 1), ("updated", 2), ("updated", 3)),
        ]
        assert len((await ada.get(f"{PATH}?q=rug")).json["products"]) == 1

    async def test_version_has_to_be_current_unless_nothing_changes(self, ada: Caller) -> None:
        await ada.create_product("Lamp")

        answer = await upsert(
            ada,
            {"id": 1, "version": 1, "price": 3},
            {"id": 1, "version": 1, "price": 4},
            {"id": 1, "version": 1, "price": 3},
            {"id": 1, "version": 2, "price": 5},
        )

        assert counts(answer) == (0, 2, 1, 1)
        assert faults(answer) == [(2, "precondition-failed", "/version")]
        assert answer.json["errors"][0]["message"] == "The product has version 2."
        assert (await product(ada, 1))["price"] == 5.0

    async def test_line_may_name_only_own_products(self, ada: Caller, bob: Caller) -> None:
        await bob.create_product("Lamp", key="a")

        answer = await upsert(
            ada, {"id": 1, "price": 3}, {"id": 99, "price": 3}, {"key": "a", "price": 3}, LAMP
        )

        assert counts(answer) == (1, 0, 0, 3)
        assert faults(answer) == [
            *((1, "forbidden", None), (2, "not-found", None), (3, "invalid", "/name")),
        ]
        assert (await product(bob, 1))["version"] == 1

    async def test_administrator_changes_only_own_products(
        self, ada: Caller, admin: Caller
    ) -> None:
        await ada.create_product("Lamp")

        assert counts(await upsert(admin, {"id": 1, "price": 3})) == (0, 0, 0, 1)

    async def test_key_is_moved_in_the_order_of_the_lines(self, ada: Caller) -> None:
        await ada.create_product("Lamp", key="a")
        await ada.create_product("Rug", key="b")

        answer = await upsert(
            ada,
            {"id": 1, "key": "b"},
            {"id": 1, "key": "c"},
            {"id": 2, "key": "a"},
            {"name": "Desk", "price": 1, "key": "b"},
            {"id": 1, "key": None},
            {"name": "Chair", "price": 1, "key": "c"},
        )

        assert counts(answer) == (2, 3, 0, 1)
        assert faults(answer) == [(1, "taken", "/key")]
        listed = (await ada.get(f"{PATH}?sort=id")).json["products"]
        assert [(each["name"], each["key"]) for each in listed] == [
            *(("Lamp", None), ("Rug", "a"), ("Desk", "b"), ("Chair", "c")),
        ]

    async def test_keys_passed_on_and_back_within_a_round(self, ada: Caller) -> None:
        await ada.create_product("Lamp", key="a")
        await ada.create_product("Rug", key="b")

        answer = await upsert(
            ada,
            {"id": 1, "key": "c"},
            {"id": 2, "key": "a"},
            {"id": 1, "key": "b"},
            {"id": 1, "key": "c"},
            {"name": "Desk", "price": 1, "key": "b"},
            {"id": 2, "key": None},
            {"id": 1, "key": "a"},
            {"id": 2, "key": "c"},
        )

        assert counts(answer) == (1, 7, 0, 0)
        listed = (await ada.get(f"{PATH}?sort=id")).json["products"]
        assert [(each["name"], each["key"]) for each in listed] == [
            *(("Lamp", "a"), ("Rug", "c"), ("Desk", "b")),
        ]

    @pytest.mark.parametrize("query", ["", "&atomic=true", "&dry_run=true"])
    async def test_chain_of_moved_keys_is_read_and_stored_once(
        self, ada: Caller, database: Database, query: str
    ) -> None:
        """Each line takes the key that the line before it gave up."""
        count = 100
        await upsert(ada, *({**LAMP, "key": f"t-{number}"} for number in range(count)))
        statements: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if "products" in statement:
                statements.append(statement)

        for engine in database.engines:
            event.listen(engine.sync_engine, "before_cursor_execute", note)

        moved = await upsert(
            ada,
            {"id": 1, "key": "t-x"},
            *({"id": number + 1, "key": f"t-{number - 1}"} for number in range(1, count)),
            query=query,
        )

        assert counts(moved) == (0, count, 0, 0)
        assert len(statements) < 10
        if "dry_run" not in query:
            assert (await product(ada, count))["key"] == f"t-{count - 2}"

    async def test_invalid_lines_are_reported(self, ada: Caller) -> None:
        answer = await upsert(
            ada,
            {"id": "1", "price": 1},
            {"id": 1.5, "name": ""},
            {"key": "", "version": 0},
            {"key": "x", "colour": "red"},
            {"user_id": 7, "created_at": "x", "updated_at": "y", "key": "a"},
        )

        assert counts(answer) == (0, 0, 0, 5)
        assert faults(answer) == [
            (1, "invalid", "/id"),
            *((2, "invalid", "/name"), (2, "invalid", "/id")),
            *((3, "invalid", "/key"), (3, "invalid", "/version")),
            (4, "invalid", "/colour"),
            *((5, "invalid", "/name"), (5, "invalid", "/price")),
        ]

    async def test_lines_of_several_rounds_and_chunks(
        self, ada: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(upserting, "ROUND_LINES", 7)
        monkeypatch.setattr("catalog.products.bulk.chunks.CHUNK_ROWS", 20)
        lines = [{"key": str(number), "name": f"n{number}", "price": 1} for number in range(50)]

        created = await upsert(ada, *lines)
        mixed = await upsert(ada, *({**line, "price": n % 2} for n, line in enumerate(lines * 2)))

        assert counts(created) == (50, 0, 0, 0)
        assert counts(mixed) == (0, 25, 75, 0)
        assert mixed.headers["Catalog-Position"] == "75"

    @pytest.mark.parametrize(("size", "rounds", "commits"), [(1000, 3, 3), (70, 1, 1)])
    async def test_rounds_and_transactions_are_cut_by_the_texts_of_their_products(
        self,
        ada: Caller,
        monkeypatch: pytest.MonkeyPatch,
        size: int,
        rounds: int,
        commits: int,
    ) -> None:
        """Short lines replace the words of long products."""
        description = "ä" * (size // 2)
        await upsert(
            ada, *({**LAMP, "key": str(key), "description": description} for key in range(6))
        )
        monkeypatch.setattr(upserting, "ROUND_BYTES", 2100)
        monkeypatch.setattr(importing, "UPSERTED_BYTES", 2100)
        read: list[int] = []
        logged: list[int] = []
        original_read, original_log = Upserts._read, Upserts.log

        async def note_read(upserts: Upserts, lines: Sequence[UpsertLine]) -> list[dict[str, Any]]:
            read.append(len(lines))
            return await original_read(upserts, lines)

        async def note_log(upserts: Upserts) -> upserting.Upserted:
            logged.append(upserts.done.updated)
            return await original_log(upserts)

        monkeypatch.setattr(Upserts, "_read", note_read)
        monkeypatch.setattr(Upserts, "log", note_log)

        answer = await upsert(ada, *({"key": str(key), "name": "Rug"} for key in range(6)))

        assert counts(answer) == (0, 6, 0, 0)
        assert read == [6 // rounds] * rounds
        assert logged == [6 // commits] * commits
        assert answer.headers["Catalog-Position"] == "12"
        assert len((await ada.get(f"{PATH}?q=rug")).json["products"]) == 6

    async def test_error_between_transactions_of_a_chunk_reports_the_last_line_before_it(
        self, ada: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await upsert(ada, *({**LAMP, "key": str(key)} for key in range(4)))
        monkeypatch.setattr(upserting, "ROUND_BYTES", 8)
        monkeypatch.setattr(importing, "UPSERTED_BYTES", 8)
        original, logs = Upserts.log, 0

        async def fail_once(upserts: Upserts) -> upserting.Upserted:
            nonlocal logs
            logs += 1
            if logs == 2:
                raise Overloaded
            return await original(upserts)

        monkeypatch.setattr(Upserts, "log", fail_once)

        failed = await upsert(ada, *({"key": str(key), "price": 7} for key in range(4)))

        assert problem_of(failed) == (503, "overloaded")
        assert (failed.json["updated"], failed.json["line"]) == (2, 2)
        products = (await ada.get(f"{PATH}?sort=id")).json["products"]
        assert [each["price"] for each in products] == [7.0, 7.0, 1.0, 1.0]

    @pytest.mark.parametrize("query", ["&dry_run=true", "&dry_run=true&atomic=true"])
    async def test_dry_run_reports_and_writes_nothing(self, ada: Caller, query: str) -> None:
        await ada.create_product("Lamp", key="a")
        lines = ({"key": "a", "price": 3}, {"key": "b", "name": "Rug", "price": 1}, {"id": 1})

        answer = await upsert(ada, *lines, query=query)

        assert counts(answer) == (1, 1, 1, 0)
        assert (answer.json["first_id"], await position(ada)) == (None, 1)

    async def test_atomic_upsert_changes_all_or_nothing(self, ada: Caller) -> None:
        await ada.create_product("Lamp", key="a")
        lines = ({"key": "a", "price": 3}, {"key": "b", "name": "Rug", "price": 1})

        failed = await upsert(ada, *lines, {"id": 99}, query="&atomic=true")
        assert problem_of(failed) == (422, "lines-invalid")
        assert (counts(failed), faults(failed)) == ((0, 0, 0, 1), [(3, "not-found", None)])
        assert (await position(ada), (await product(ada, 1))["price"]) == (1, 9.5)

        assert counts(await upsert(ada, *lines, query="&atomic=true")) == (1, 1, 0, 0)
        assert await position(ada) == 3

    @pytest.mark.parametrize("query", ["", "&atomic=true"])
    async def test_first_thousand_faults_are_reported_and_the_others_counted(
        self, ada: Caller, query: str
    ) -> None:
        answer = await upsert(ada, *([{"id": 99}] * 2500), query=query)

        assert counts(answer) == (0, 0, 0, 2500)
        assert [line for line, _, _ in faults(answer)] == list(range(1, 1001))

    async def test_mode_is_for_bulk_requests(self, ada: Caller) -> None:
        answer = await ada.post(f"{PATH}?mode=upsert", json={"name": "Lamp", "price": 1})

        assert problem_of(answer) == (422, "invalid")


class TestCreateWithKeys:
    @pytest.mark.parametrize("atomic", ["", "&atomic=true"])
    async def test_taken_key_is_a_fault_of_its_line(self, ada: Caller, atomic: str) -> None:
        await ada.create_product("Lamp", key="a")
        text = b"name,price,key\nx,1,\na,1,a\nb,1,b\nb,1,b\n"

        answer = await ada.post(
            f"{PATH}?mode=create{atomic}", data=text, headers={"Content-Type": "text/csv"}
        )

        assert faults(answer) == [(3, "taken", "/key"), (5, "taken", "/key")]
        assert answer.status_code == (422 if atomic else 200)
        assert (answer.json["created"], answer.json["failed"]) == (0 if atomic else 2, 2)
        assert "updated" not in answer.json
        total = (await ada.get(f"{PATH}?total=true")).json["total"]
        assert total == (1 if atomic else 3)


class TestRoundTrip:
    @pytest.mark.parametrize("media_type", ["text/csv", "application/x-ndjson"])
    async def test_edited_export_changes_what_was_edited_once(
        self, ada: Caller, media_type: str
    ) -> None:
        for number in range(30):
            description = None if number % 3 else f'\'=text {number}\n"quoted", ä'
            key = f"sku-{number}" if number % 2 else None
            await ada.create_product(
                f"=n{number}", price=number / 3, description=description, key=key
            )
        exported = await ada.get(f"{PATH}/my?sort=id", headers={"Accept": media_type})
        edited = self.edited(exported.body.decode(), media_type)

        async def send(body: str) -> Response:
            headers = {"Content-Type": media_type}
            return await ada.post(f"{PATH}?mode=upsert", data=body.encode(), headers=headers)

        untouched = await send(exported.body.decode())
        first = await send(edited)
        after = await position(ada)
        second = await send(edited)

        assert counts(untouched) == (0, 0, 30, 0)
        assert counts(first) == (1, 1, 29, 0)
        assert after == 32
        assert counts(second) == (0, 0, 31, 0)
        assert await position(ada) == after
        assert (await product(ada, 3))["price"] == 77.5

    def edited(self, text: str, media_type: str) -> str:
        """Change the price of product 3, and add a product with a key."""
        if media_type != "text/csv":
            products = [json.loads(line) for line in text.splitlines()]
            products[2]["price"] = 77.5
            products.append({"key": "new", "name": "New", "price": 1})
            return "".join(f"{json.dumps(each)}\n" for each in products)
        rows = list(csv.DictReader(StringIO(text, newline="")))
        rows[2]["price"] = "77.5"
        rows.append({**dict.fromkeys(rows[0], ""), "key": "new", "name": "New", "price": "1"})
        out = StringIO(newline="")
        writer = csv.DictWriter(out, rows[0].keys(), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()

    async def test_csv_may_have_only_ids_and_prices(self, ada: Caller) -> None:
        await ada.create_product("Lamp")
        headers = {"Content-Type": "text/csv"}

        async def send(text: bytes) -> Response:
            return await ada.post(f"{PATH}?mode=upsert", data=text, headers=headers)

        assert counts(await send(b"id;price\n1.0;2,5\n;3\n1x;3\n1;\n")) == (0, 1, 0, 3)
        assert counts(await send(b"id;price\n1,0;2,5\n")) == (0, 0, 1, 0)
        assert problem_of(await send(b"price\n1\n")) == (422, "lines-invalid")
        assert (await product(ada, 1))["price"] == 2.5


async def one_client(database: Database, owner_id: int, price: int) -> None:
    async def pieces() -> Any:
        for number in range(KEYS):
            yield b'{"key":"k%d","name":"n%d","price":%d}\n' % (number, number, price)

    reader = NDJSON.reader(ReaderOptions(upsert=True))
    report = await import_products(database, pieces(), reader, owner_id=owner_id, upsert=True)
    assert report.created + report.updated + report.unchanged == KEYS, report


async def key_counts(database: Database) -> tuple[int, int]:
    """Return the numbers of products and of their keys."""

    async def read(connection: AsyncConnection) -> tuple[int, int]:
        numbers = select(func.count(), func.count(func.distinct(Product.key)))
        row = (await connection.execute(numbers)).one()
        return row[0], row[1]

    return await run_on(database.connection(), read)


class TestConcurrency:
    @pytest.mark.timeout(300)
    async def test_concurrent_upserts_of_the_same_keys_create_each_once(
        self, ada: Caller, database: Database, opened: Callable[[], Database]
    ) -> None:
        instances = [database, opened()]

        await asyncio.gather(
            *(
                one_client(instances[number % 2], ada.user_id or 0, number % 3)
                for number in range(CLIENTS)
            )
        )

        assert await key_counts(database) == (KEYS, KEYS)
        last = await position(ada)
        versions = (await ada.get(f"{PATH}/my?fields=version&limit=1000")).json["products"]
        assert sum(each["version"] for each in versions) == last

    async def test_products_are_doubled_without_look_up_and_index(
        self, ada: Caller, database: Database, database_url: URL, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Negative control: the counts detect keys that several products have."""

        async def find_none(upserts: Upserts, keys: object) -> dict[str, int]:  # noqa: ARG001
            return {}

        index = "ix_products_client_key_user_id"
        on = "" if database_url.get_backend_name() == "sqlite" else " ON products"

        async def drop(session: AsyncSession) -> None:
            await session.execute(text(f"DROP INDEX {index}{on}"))

        async def restore(session: AsyncSession) -> None:
            await session.execute(text("DELETE FROM products"))
            columns = "products (client_key, user_id)"
            await session.execute(text(f"CREATE UNIQUE INDEX {index} ON {columns}"))

        monkeypatch.setattr(Upserts, "_holders", find_none)
        await database.transaction(drop)
        try:
            await asyncio.gather(*(one_client(database, ada.user_id or 0, 1) for _ in range(2)))
            counts = await key_counts(database)
        finally:
            # On a server all tests share one database.
            await database.transaction(restore)

        assert counts == (2 * KEYS, KEYS)
