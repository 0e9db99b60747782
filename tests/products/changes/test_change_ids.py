"""Change ids: tokens beside the positions, which tell one history from another."""

import re
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.db.database import Database
from catalog.products.changes import change_ids, change_log
from catalog.products.changes.change_ids import ChangeId
from catalog.products.models import TOKEN_LENGTH
from tests.products.changes.support import followed
from tests.support import Caller, problem_of

PATH = "/api/products/changes"


class TestHeaders:
    def test_headers_have_the_documented_names(self) -> None:
        change = ChangeId(8, "5f0c29a1be")
        told = {"Catalog-Position": "8", "Catalog-Change": "8.5f0c29a1be"}

        assert change_ids.position_headers(change) == told
        no_cache = {"Cache-Control": "no-cache", "Vary": "Accept"}
        assert change_ids.read_headers(change) == {**no_cache, **told}
        assert change_ids.BATCH_HEADER == "Catalog-Batch-Position"
        assert change_ids.UNAFFECTED_HEADER == "Catalog-Unaffected-By"

    @pytest.mark.parametrize("change", [ChangeId(0), ChangeId(8), ChangeId(8, "5f0c29a1be")])
    def test_text_is_parsed_to_the_same(self, change: ChangeId) -> None:
        assert ChangeId.parse(str(change)) == change

    def test_position_0_has_no_token(self) -> None:
        assert ChangeId.parse("0.5f0c29a1be") == ChangeId(0)

    def test_bare_position_may_be_any_change_there(self) -> None:
        known, other = ChangeId(8, "a"), ChangeId(8, "b")

        assert known.may_be(ChangeId(8))
        assert ChangeId(8).may_be(known)
        assert known.may_be(known)
        assert not known.may_be(other)
        assert not known.may_be(ChangeId(9, "a"))
        assert not ChangeId(8).may_be(ChangeId(9))

    def test_tokens_are_of_letters_and_digits_and_never_the_same(self) -> None:
        tokens = {change_ids.new_token() for _ in range(1000)}

        assert len(tokens) == 1000
        assert all(re.fullmatch(f"[A-Za-z0-9]{{{TOKEN_LENGTH}}}", each) for each in tokens)


class TestHistories:
    async def test_every_answer_has_its_position_and_change_id(
        self, ada: Caller, anyone: Caller
    ) -> None:
        empty = await anyone.get("/api/products")
        lamp = await ada.create_product("Lamp")
        path = lamp.headers["Location"]
        read = await anyone.get(path)
        patched = await ada.send("PATCH", path, json={"price": 5})
        unchanged = await ada.send("PATCH", path, json={"price": 5})
        deleted = await ada.send("DELETE", path)
        missing = await anyone.get(path)
        mine = await ada.get("/api/products/my")
        page = await anyone.get("/api/products")
        export = await anyone.get("/api/products", headers={"Accept": "text/csv"})
        bulk = await ada.post(
            "/api/products", data=b"", headers={"Content-Type": "application/x-ndjson"}
        )
        cached = await anyone.get("/api/products", headers={"If-None-Match": "*"})
        followed = await anyone.get(PATH)

        answers = [empty, lamp, read, patched, unchanged, deleted, missing, mine, page, export]
        answers += [bulk, cached]
        positions = [int(answer.headers["Catalog-Position"]) for answer in answers]
        assert positions == [0, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3]
        assert cached.status_code == 304
        told = [answer.headers["Catalog-Change"] for answer in answers]
        assert [int(text.partition(".")[0]) for text in told] == positions
        assert told[0] == "0"
        assert told[2:3] + told[4:5] + told[6:] == [told[1], told[3], *[told[5]] * 6]
        assert len(set(told)) == 4
        assert (followed.headers["Catalog-Change"], followed.json["change"]) == (told[5], told[5])

    async def test_changes_of_one_transaction_share_their_token(
        self, ada: Caller, anyone: Caller
    ) -> None:
        last = (await ada.import_products(300)).headers

        token = last["Catalog-Change"].partition(".")[2]
        assert len(token) == TOKEN_LENGTH
        for position in (1, 150, 299):
            assert len(await followed(anyone, since=f"{position}.{token}")) == 300 - position

    async def test_change_of_another_history_is_gone(self, ada: Caller, anyone: Caller) -> None:
        told = [(await ada.create_product("Lamp")).headers["Catalog-Change"] for _ in range(3)]

        for position, change in enumerate(told, start=1):
            assert len(await followed(anyone, since=change)) == 3 - position
            for token in ("0" * TOKEN_LENGTH, "x", told[position % 3].partition(".")[2]):
                answer = await anyone.get(f"{PATH}?since={position}.{token}")
                assert problem_of(answer) == (410, "changes-gone"), (position, token)
        # Position 0 is the same in every history.
        assert len(await followed(anyone, since="0.x")) == 3

    async def test_change_whose_token_was_swept_is_gone(
        self, ada: Caller, anyone: Caller, database: Database
    ) -> None:
        told = [(await ada.create_product("Lamp")).headers["Catalog-Change"] for _ in range(2)]
        await database.transaction(change_log.sweep, kept=timedelta(0), limit=1)

        assert problem_of(await anyone.get(f"{PATH}?since={told[0]}")) == (410, "changes-gone")
        assert len(await followed(anyone, since="1")) == 1
        # The token of the last position is also in the counter.
        await database.transaction(change_log.sweep, kept=timedelta(0), limit=1)
        assert (await anyone.get(f"{PATH}?since={told[1]}")).json["changes"] == []
        assert problem_of(await anyone.get(f"{PATH}?since=2.x")) == (410, "changes-gone")

    async def test_changes_written_by_the_previous_release_can_be_followed(
        self, ada: Caller, anyone: Caller, database: Database
    ) -> None:
        first = (await ada.create_product("Lamp")).headers["Catalog-Change"]

        async def change(session: AsyncSession) -> None:
            await session.execute(text("UPDATE change_counter SET position = position + 1"))
            await session.execute(
                text(
                    "INSERT INTO product_changes (position, type, product_id, version, at)"
                    " SELECT 2, type, product_id, 2, at FROM product_changes"
                )
            )

        await database.transaction(change)
        second = (await anyone.get("/api/products")).headers["Catalog-Change"]
        third = (await ada.create_product("Lamp")).headers["Catalog-Change"]

        assert second.partition(".")[0] == "2"
        left = [len(await followed(anyone, since=since)) for since in (first, second, third)]
        assert left == [2, 1, 0]

    async def test_cached_page_is_not_served_for_the_same_position_of_another_history(
        self, ada: Caller, anyone: Caller, database: Database
    ) -> None:
        await ada.create_product("Lamp")
        await anyone.get("/api/products")

        async def restore(session: AsyncSession) -> None:
            await session.execute(text("UPDATE products SET price = 7"))
            await session.execute(text("UPDATE change_counter SET token = 'other'"))

        await database.transaction(restore)
        page = await anyone.get("/api/products")

        assert page.headers["Catalog-Change"] == "1.other"
        assert page.json["products"][0]["price"] == 7

    @pytest.mark.parametrize(
        "since", ["1.", ".x", "1.x.y", "1.%C3%A9", f"{2**63}", "1." + "x" * 33]
    )
    async def test_malformed_change_id_is_refused(self, anyone: Caller, since: str) -> None:
        answer = await anyone.get(f"{PATH}?since={since}")

        assert problem_of(answer) == (422, "invalid")
