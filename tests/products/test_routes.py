"""``/api/products`` over HTTP: permissions and answers."""

import asyncio
import json
import re
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth.models import User
from catalog.db.columns import MAX_ID
from catalog.db.database import Database
from tests.auth.rows import disable
from tests.products.product_ids import create_some, ids_of
from tests.support import Caller, Response, fields_of, problem_of

# All examples of a test share one database: each example adds its own products.
with_one_database = examples(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


# Numbers in JSON, and the doubles that they denote.
PRICES = {
    "0": 0.0,
    "-0": 0.0,
    "-0.0": 0.0,
    "1e12": 1e12,
    "1000000000000": 1e12,
    "5e-324": 5e-324,
    "9007199254.740993": 9007199254.740993,
    "1E-7": 1e-7,
    "0.1000000000000000055511151231257827": 0.1,
}
NO_PRICES = (
    *("-0.01", "-5e-324", "1000000000001", "1000000000000.0002", "1" + "0" * 400),
    *('"9.5"', "true", "null", "[1]", "{}"),
)
BLANK = ("", " ", "\t\n\r", "\u00a0", "\u2003\u2009", "\u3000", "\u2028", "\u1680", "\x1f")
NO_IDS = ("0", "-1", "01", "1.0", "1e0", "%201", "%D9%A1", str(MAX_ID + 1), "9" * 40, "x")


async def post_json(caller: Caller, body: str) -> Response:
    """Create a product from exactly this JSON text."""
    headers = {"Content-Type": "application/json"}
    return await caller.post("/api/products", data=body.encode(), headers=headers)


async def remove(session: AsyncSession, user_id: int) -> None:
    await session.execute(delete(User).where(User.id == user_id))


class TestCreateProduct:
    async def test_created_product_is_returned_with_all_fields(self, ada: Caller) -> None:
        before = datetime.now(UTC)
        answer = await ada.create_product("Lamp", 24.9, description="Warm light.")
        after = datetime.now(UTC)

        product = answer.json
        created_at = product.pop("created_at")
        assert answer.status_code == 201
        assert product.pop("updated_at") == created_at
        assert product == {
            "id": 1,
            "name": "Lamp",
            "description": "Warm light.",
            "key": None,
            "price": 24.9,
            "user_id": ada.user_id,
            "version": 1,
        }
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", created_at)
        assert before <= datetime.fromisoformat(created_at) <= after + timedelta(seconds=1)

    async def test_answer_has_location_and_entity_tag(self, ada: Caller) -> None:
        answer = await ada.create_product("Lamp")

        assert answer.headers["Location"] == f"/api/products/{answer.json['id']}"
        assert re.fullmatch(r'"1-[0-9a-f]{16}"', answer.headers["ETag"])
        assert answer.headers["Cache-Control"] == "no-store"

    async def test_lists_show_the_product_as_it_was_answered(
        self, ada: Caller, anyone: Caller
    ) -> None:
        created = (await ada.create_product("Lamp", 0.1, description=" \t")).json

        assert (await anyone.get("/api/products")).json["products"] == [created]
        assert (await ada.get("/api/products/my")).json["products"] == [created]

    @pytest.mark.parametrize("rest", ["", ', "description": null'], ids=["absent", "null"])
    async def test_missing_or_null_description_is_null(self, ada: Caller, rest: str) -> None:
        answer = await post_json(ada, f'{{"name": "Lamp", "price": 1{rest}}}')

        assert answer.status_code == 201
        assert answer.json["description"] is None

    async def test_empty_description_is_kept(self, ada: Caller) -> None:
        assert (await ada.create_product("Lamp", description="")).json["description"] == ""

    async def test_price_is_returned_as_the_double_that_was_written(
        self, ada: Caller, anyone: Caller
    ) -> None:
        for written, price in PRICES.items():
            created = await post_json(ada, f'{{"name": "Lamp", "price": {written}}}')
            listed = await anyone.get("/api/products?limit=1")

            for found in (created.json["price"], listed.json["products"][0]["price"]):
                assert struct.pack("d", found) == struct.pack("d", price), written
            assert b'"price":-' not in created.body + listed.body

    @with_one_database
    @example(price=1e12)
    @example(price=2.2250738585072014e-308)
    @given(price=st.floats(0, 1e12))
    async def test_every_price_is_returned_as_the_same_double(
        self, ada: Caller, price: float
    ) -> None:
        created = await ada.create_product("Lamp", price)
        listed = await ada.get("/api/products?limit=1")

        for found in (created.json["price"], listed.json["products"][0]["price"]):
            assert struct.pack("d", found) == struct.pack("d", price + 0.0)

    async def test_price_out_of_range_or_of_another_type_is_invalid(self, ada: Caller) -> None:
        for written in NO_PRICES:
            answer = await post_json(ada, f'{{"name": "Lamp", "price": {written}}}')

            assert problem_of(answer) == (422, "invalid"), written
            assert fields_of(answer) == ["/price"], written

        assert (await ada.get("/api/products")).json["products"] == []

    async def test_price_that_is_no_double_is_malformed(self, ada: Caller) -> None:
        for written in ("NaN", "Infinity", "-Infinity", "1e309", "1" * 5000):
            answer = await post_json(ada, f'{{"name": "Lamp", "price": {written}}}')

            assert problem_of(answer) == (400, "malformed"), written

    @pytest.mark.parametrize("letter", ["x", "\u4e00", "\U0001f600"], ids=["1", "3", "4 bytes"])
    async def test_lengths_of_name_and_description_count_characters(
        self, ada: Caller, letter: str
    ) -> None:
        longest = {"name": letter * 512, "description": letter * 16_383}

        created = await ada.create_product(longest["name"], description=longest["description"])
        too_long = await ada.create_product(longest["name"] + letter)
        far_too_long = await ada.create_product("Lamp", description=longest["description"] + letter)

        assert {field: created.json[field] for field in longest} == longest
        assert (problem_of(too_long), fields_of(too_long)) == ((422, "invalid"), ["/name"])
        assert problem_of(far_too_long) == (422, "invalid")
        assert fields_of(far_too_long) == ["/description"]

    async def test_blank_name_is_invalid(self, ada: Caller) -> None:
        for name in BLANK:
            answer = await ada.create_product(name)

            assert problem_of(answer) == (422, "invalid"), ascii(name)
            assert fields_of(answer) == ["/name"], ascii(name)

    async def test_all_errors_are_reported_together(self, ada: Caller) -> None:
        answer = await post_json(
            ada, '{"price": -1, "description": 5, "id": 7, "user_id": 7, "version": 9}'
        )

        assert problem_of(answer) == (422, "invalid")
        assert sorted(fields_of(answer)) == [
            *("/description", "/id", "/name", "/price", "/user_id", "/version"),
        ]

    @with_one_database
    @example(name=" Lamp ", description="\n \u00a0")
    @example(name="100% %s %(name)s", description="\\ \\' \\\" ' \" `; -- :name ?")
    @example(
        name="\u202eright to left \u05d0", description="e\u0301\u0300 \U0001f468\u200d\U0001f3a8"
    )
    @example(name="\ufeff\ufffe\uffff", description="\x01\x1a\x7f\x85")
    @given(
        name=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60).filter(
            str.strip
        ),
        description=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60),
    )
    async def test_text_is_returned_byte_for_byte(
        self, ada: Caller, name: str, description: str
    ) -> None:
        sent = {"name": name, "description": description, "price": 1}

        created = await post_json(ada, json.dumps(sent, ensure_ascii=False))
        listed = await ada.get("/api/products?limit=1")

        for found in (created.json, listed.json["products"][0]):
            assert found["name"] == name
            assert found["description"] == description

    async def test_anonymous_caller_is_refused(self, anyone: Caller) -> None:
        assert problem_of(await anyone.create_product("Lamp")) == (401, "token-missing")
        assert (await anyone.get("/api/products")).json["products"] == []

    async def test_refresh_token_is_refused(self, ada: Caller) -> None:
        answer = await ada.post(
            "/api/products", json={"name": "Lamp", "price": 1}, token=ada.refresh_token
        )

        assert problem_of(answer) == (401, "token-wrong-kind")

    @pytest.mark.parametrize("change", [disable, remove])
    async def test_disabled_or_deleted_account_is_refused(
        self, ada: Caller, anyone: Caller, database: Database, change: Any
    ) -> None:
        await database.transaction(change, ada.user_id)

        assert problem_of(await ada.create_product("Lamp")) == (401, "account-unavailable")
        assert (await anyone.get("/api/products")).json["products"] == []

    async def test_concurrent_creates_get_distinct_ids(self, ada: Caller, bob: Caller) -> None:
        answers = await asyncio.gather(
            *(caller.create_product(f"Lamp {n}") for n in range(10) for caller in (ada, bob))
        )

        assert [answer.status_code for answer in answers] == [201] * 20
        assert sorted(answer.json["id"] for answer in answers) == list(range(1, 21))


class TestReadProduct:
    async def test_anonymous_caller_reads_the_product_as_it_was_answered(
        self, ada: Caller, anyone: Caller
    ) -> None:
        created = await ada.create_product("Lamp", 0.1, description="Oak.")

        answer = await anyone.get(f"/api/products/{created.json['id']}")

        assert answer.status_code == 200
        assert answer.body == created.body
        assert answer.headers["ETag"] == created.headers["ETag"]
        assert answer.headers["Cache-Control"] == "no-cache"

    async def test_matching_entity_tag_gets_304(self, ada: Caller, anyone: Caller) -> None:
        created = await ada.create_product("Lamp")
        path, tag = created.headers["Location"], created.headers["ETag"]

        for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
            answer = await anyone.get(path, headers={"If-None-Match": known})
            assert (answer.status_code, answer.body) == (304, b"")
            assert answer.headers["ETag"] == tag
        for other in ('"1-0"', "nonsense", '"'):
            answer = await anyone.get(path, headers={"If-None-Match": other})
            assert (answer.status_code, answer.body) == (200, created.body)

    async def test_if_match_gets_the_expected_state_only(self, ada: Caller, anyone: Caller) -> None:
        created = await ada.create_product("Lamp")
        path, tag = created.headers["Location"], created.headers["ETag"]

        for expected in (tag, f"W/{tag}", f'"x", {tag}', "*", "nonsense"):
            answer = await anyone.get(path, headers={"If-Match": expected})
            assert (answer.status_code, answer.body) == (200, created.body)
        for method in ("GET", "HEAD"):
            both = {"If-Match": '"1-0"', "If-None-Match": tag}
            answer = await anyone.send(method, path, headers=both)
            assert (answer.status_code, answer.headers["ETag"]) == (412, tag)
        assert problem_of(await anyone.get(path, headers=both)) == (412, "precondition-failed")

    async def test_missing_product_is_not_found(self, anyone: Caller) -> None:
        for number in (*NO_IDS, "1", str(MAX_ID)):
            assert problem_of(await anyone.get(f"/api/products/{number}")) == (404, "not-found")


class TestChangeProduct:
    async def test_given_fields_change_and_the_rest_stays(
        self, ada: Caller, anyone: Caller
    ) -> None:
        created = await ada.create_product("Lamp", 9.5, description="Oak.")
        path = created.headers["Location"]

        answer = await ada.send("PATCH", path, json={"price": 8})

        assert answer.status_code == 200
        changes = {"price": 8.0, "version": 2, "updated_at": answer.json["updated_at"]}
        assert answer.json == {**created.json, **changes}
        assert answer.json["updated_at"] > created.json["updated_at"]
        assert answer.headers["ETag"] != created.headers["ETag"]
        read = await anyone.get(path)
        assert (read.body, read.headers["ETag"]) == (answer.body, answer.headers["ETag"])

    async def test_null_removes_the_description_and_is_invalid_elsewhere(self, ada: Caller) -> None:
        path = (await ada.create_product("Lamp", description="Oak.")).headers["Location"]

        changed = await ada.send("PATCH", path, json={"description": None})

        assert (changed.status_code, changed.json["description"]) == (200, None)
        for field in ("name", "price"):
            answer = await ada.send("PATCH", path, json={field: None})
            assert (problem_of(answer), fields_of(answer)) == ((422, "invalid"), [f"/{field}"])

    @pytest.mark.parametrize("body", [{}, {"name": "Lamp"}, {"price": 9.5, "description": None}])
    async def test_change_to_the_present_values_has_no_effect(
        self, ada: Caller, body: dict[str, Any]
    ) -> None:
        created = await ada.create_product("Lamp", 9.5)

        answer = await ada.send("PATCH", created.headers["Location"], json=body)

        assert (answer.status_code, answer.body) == (200, created.body)

    async def test_only_the_owner_and_administrators_may_change(
        self, ada: Caller, bob: Caller, admin: Caller, anyone: Caller
    ) -> None:
        path = (await ada.create_product("Lamp")).headers["Location"]

        assert problem_of(await bob.send("PATCH", path, json={"price": 1})) == (403, "forbidden")
        assert problem_of(await anyone.send("PATCH", path, json={"price": 1}))[0] == 401
        assert (await admin.send("PATCH", path, json={"price": 1})).json["price"] == 1

    @pytest.mark.parametrize("field", ["id", "user_id", "version", "created_at", "nonsense"])
    async def test_other_fields_are_refused_by_name(self, ada: Caller, field: str) -> None:
        path = (await ada.create_product("Lamp")).headers["Location"]

        answer = await ada.send("PATCH", path, json={field: 7})

        assert (problem_of(answer), fields_of(answer)) == ((422, "invalid"), [f"/{field}"])

    async def test_missing_product_is_not_found(self, ada: Caller) -> None:
        answer = await ada.send("PATCH", "/api/products/1", json={"price": 1})

        assert problem_of(answer) == (404, "not-found")

    async def test_if_match_allows_changes_to_the_expected_state_only(self, ada: Caller) -> None:
        created = await ada.create_product("Lamp")
        path, tag = created.headers["Location"], created.headers["ETag"]
        changed = await ada.send("PATCH", path, json={"price": 8}, headers={"If-Match": tag})

        refused = await ada.send("PATCH", path, json={"price": 7}, headers={"If-Match": tag})

        assert changed.status_code == 200
        assert problem_of(refused) == (412, "precondition-failed")
        assert refused.json["current"] == changed.json
        assert refused.headers["ETag"] == changed.headers["ETag"]
        # A tag weakened by a compressing proxy, a list of tags, and any state.
        for expected in ("W/" + changed.headers["ETag"], f"{tag}, {changed.headers['ETag']}", "*"):
            answer = await ada.send(
                "PATCH", path, json={"price": 8}, headers={"If-Match": expected}
            )
            assert answer.status_code == 200

    async def test_malformed_if_match_is_invalid(self, ada: Caller) -> None:
        path = (await ada.create_product("Lamp")).headers["Location"]

        answer = await ada.send("PATCH", path, json={"price": 8}, headers={"If-Match": "1"})

        assert (problem_of(answer), fields_of(answer)) == ((422, "invalid"), ["If-Match"])

    @pytest.mark.parametrize("method", ["PATCH", "DELETE"])
    async def test_if_none_match_excludes_states(self, ada: Caller, method: str) -> None:
        created = await ada.create_product("Lamp")
        path, tag = created.headers["Location"], created.headers["ETag"]
        body = {"price": 8} if method == "PATCH" else None

        for excluded in ("*", tag, f'"x", W/{tag}'):
            headers = {"If-None-Match": excluded}
            refused = await ada.send(method, path, headers=headers, json=body)
            assert problem_of(refused) == (412, "precondition-failed")
            assert refused.json["current"] == created.json
            assert refused.headers["ETag"] == tag
        for headers in (
            {"If-Match": tag, "If-None-Match": "*"},
            {"If-Match": '"x"', "If-None-Match": '"x"'},
        ):
            refused = await ada.send(method, path, headers=headers, json=body)
            assert problem_of(refused) == (412, "precondition-failed")
        malformed = await ada.send(method, path, headers={"If-None-Match": "1"}, json=body)
        assert (problem_of(malformed), fields_of(malformed)) == (
            (422, "invalid"),
            ["If-None-Match"],
        )
        headers = {"If-Match": tag, "If-None-Match": '"x"'}
        assert (await ada.send(method, path, headers=headers, json=body)).status_code == 200

    async def test_if_match_prevents_lost_updates(self, ada: Caller) -> None:
        path = (await ada.create_product("Counter", 0)).headers["Location"]

        async def increment() -> None:
            while True:
                read = await ada.get(path)
                answer = await ada.send(
                    "PATCH",
                    path,
                    json={"price": read.json["price"] + 1},
                    headers={"If-Match": read.headers["ETag"]},
                )
                if answer.status_code == 200:
                    return
                assert answer.status_code in {412, 503}, answer.body

        async def client() -> None:
            for _ in range(4):
                await increment()

        await asyncio.gather(*(client() for _ in range(10)))

        last = (await ada.get(path)).json
        assert (last["price"], last["version"]) == (40, 41)

    async def test_updates_are_lost_without_if_match(self, ada: Caller) -> None:
        path = (await ada.create_product("Counter", 0)).headers["Location"]
        everyone = asyncio.Barrier(10)

        async def increment() -> None:
            price = (await ada.get(path)).json["price"]
            await everyone.wait()
            await ada.send("PATCH", path, json={"price": price + 1})

        await asyncio.gather(*(increment() for _ in range(10)))

        assert (await ada.get(path)).json["price"] == 1

    async def test_disabled_account_is_refused(self, ada: Caller, database: Database) -> None:
        path = (await ada.create_product("Lamp")).headers["Location"]

        await database.transaction(disable, ada.user_id)

        answer = await ada.send("PATCH", path, json={"price": 1})
        assert problem_of(answer) == (401, "account-unavailable")


class TestDeleteProduct:
    async def test_if_match_allows_deletion_of_the_expected_state_only(self, ada: Caller) -> None:
        created = await ada.create_product("Lamp")
        path, tag = created.headers["Location"], created.headers["ETag"]
        changed = await ada.send("PATCH", path, json={"price": 8})

        refused = await ada.send("DELETE", path, headers={"If-Match": tag})
        done = await ada.send("DELETE", path, headers={"If-Match": changed.headers["ETag"]})

        assert problem_of(refused) == (412, "precondition-failed")
        assert refused.json["current"] == changed.json
        assert refused.headers["ETag"] == changed.headers["ETag"]
        assert done.status_code == 200

    async def test_owner_deletes_the_product_once(self, ada: Caller) -> None:
        lamp = (await ada.create_product("Lamp")).json["id"]

        first = await ada.delete(lamp)
        second = await ada.delete(lamp)

        assert first.status_code == 200
        assert first.json == {"message": f"Product {lamp} deleted.", "id": lamp}
        assert problem_of(second) == (404, "not-found")

    async def test_stranger_is_refused_and_the_product_stays(
        self, ada: Caller, bob: Caller
    ) -> None:
        lamp = (await ada.create_product("Lamp")).json["id"]

        assert problem_of(await bob.delete(lamp)) == (403, "forbidden")
        assert (await ada.delete(lamp)).status_code == 200

    async def test_administrator_deletes_any_product(self, ada: Caller, admin: Caller) -> None:
        lamp = (await ada.create_product("Lamp")).json["id"]

        assert (await admin.delete(lamp)).status_code == 200
        assert problem_of(await ada.delete(lamp)) == (404, "not-found")

    async def test_anonymous_caller_is_refused(self, ada: Caller, anyone: Caller) -> None:
        lamp = (await ada.create_product("Lamp")).json["id"]

        assert problem_of(await anyone.delete(lamp)) == (401, "token-missing")

    async def test_concurrent_deletes_succeed_exactly_once(
        self, ada: Caller, admin: Caller
    ) -> None:
        lamp = (await ada.create_product("Lamp")).json["id"]

        answers = await asyncio.gather(
            *(who.delete(lamp) for who in (ada, admin) for _ in range(4))
        )

        statuses = sorted(answer.status_code for answer in answers)
        assert statuses == [200] + [404] * 7

    async def test_deleted_product_leaves_the_lists(self, ada: Caller, anyone: Caller) -> None:
        ids = await create_some(ada, 3)

        await ada.delete(ids[1])

        assert ids_of(await anyone.get("/api/products")) == [ids[0], ids[2]]
        assert ids_of(await ada.get("/api/products/my")) == [ids[0], ids[2]]

    async def test_id_of_a_deleted_product_is_not_reused(self, ada: Caller) -> None:
        lamp = (await ada.create_product("Lamp")).json["id"]
        await ada.delete(lamp)

        assert (await ada.create_product("Chair")).json["id"] > lamp

    async def test_malformed_id_is_not_found(self, ada: Caller) -> None:
        assert (await ada.create_product("Lamp")).json["id"] == 1

        for text in NO_IDS:
            answer = await ada.send("DELETE", f"/api/products/{text}")

            assert problem_of(answer) == (404, "not-found"), text

    async def test_largest_id_is_not_found(self, ada: Caller) -> None:
        assert problem_of(await ada.delete(MAX_ID)) == (404, "not-found")

    async def test_disabled_account_is_refused(
        self, ada: Caller, anyone: Caller, database: Database
    ) -> None:
        lamp = (await ada.create_product("Lamp")).json["id"]
        await database.transaction(disable, ada.user_id)

        assert problem_of(await ada.delete(lamp)) == (401, "account-unavailable")
        assert ids_of(await anyone.get("/api/products")) == [lamp]
