"""Keys of products: unique per owner, in every representation, decided alike under concurrency."""

from typing import Any

import pytest

from catalog.db.database import Database
from catalog.errors import DuplicateValue
from catalog.products import service
from catalog.products.keys import KeyClaims
from catalog.products.models import NewProduct
from tests.support import Caller, at_once, fields_of, problem_of

PATH = "/api/products"


async def change(caller: Caller, product_id: int, **fields: Any) -> Any:
    return await caller.send("PATCH", f"{PATH}/{product_id}", json=fields)


class TestCreate:
    async def test_key_is_returned_everywhere(self, ada: Caller) -> None:
        created = await ada.create_product("Lamp", key="sku 1/ä ")

        assert created.json["key"] == "sku 1/ä "
        assert (await ada.get(f"{PATH}/1")).body == created.body
        assert (await ada.get(PATH)).json["products"] == [created.json]
        assert (await ada.get(f"{PATH}?fields=key")).json["products"] == [{"key": "sku 1/ä "}]
        exported = await ada.get(f"{PATH}?fields=key", headers={"Accept": "text/csv"})
        assert exported.body.decode() == "key\r\nsku 1/ä \r\n"
        changes = (await ada.get(f"{PATH}/changes?since=0")).json["changes"]
        assert changes[0]["product"]["key"] == "sku 1/ä "

    async def test_key_is_unique_per_owner(self, ada: Caller, bob: Caller) -> None:
        assert (await ada.create_product("Lamp", key="a")).status_code == 201
        assert (await bob.create_product("Lamp", key="a")).status_code == 201
        assert (await ada.create_product("Lamp", key="A")).status_code == 201
        assert (await ada.create_product("Lamp")).status_code == 201

        taken = await ada.create_product("Rug", key="a")

        assert problem_of(taken) == (409, "taken")
        assert fields_of(taken) == ["/key"]

    @pytest.mark.parametrize("key", ["", "x" * 256, "nul\0", 5, True, ["x"]])
    async def test_invalid_key_is_refused(self, ada: Caller, key: object) -> None:
        assert fields_of(await ada.create_product("Lamp", key=key)) == ["/key"]

    async def test_longest_key_is_stored(self, ada: Caller) -> None:
        longest = "\U0001f600" * 255

        assert (await ada.create_product("Lamp", key=longest)).json["key"] == longest

    async def test_one_of_concurrent_creates_with_a_key_wins(self, ada: Caller) -> None:
        answers = await at_once(20, lambda number: ada.create_product(f"Lamp {number}", key="same"))

        assert sorted(answer.status_code for answer in answers) == [201, *[409] * 19]
        assert len((await ada.get(PATH)).json["products"]) == 1

    async def test_repeated_create_with_an_idempotency_key_is_replayed(self, ada: Caller) -> None:
        request = {"json": {"name": "Lamp", "price": 1, "key": "a"}}
        headers = {"Idempotency-Key": "once"}

        first = await ada.post(PATH, **request, headers=headers)
        again = await ada.post(PATH, **request, headers=headers)
        other = await ada.post(PATH, json={"name": "Lamp", "price": 1}, headers=headers)

        assert (again.status_code, again.body) == (201, first.body)
        assert problem_of(other) == (422, "idempotency-key-reused")

    async def test_index_refuses_a_duplicate_key(self, ada: Caller, database: Database) -> None:
        """Negative control: without the look-up, the database decides."""
        new_product = NewProduct("Lamp", None, 1.0, ada.user_id or 0, key="a")

        with pytest.raises(Exception, match="conflicts"):
            await database.transaction(service.insert_products, [new_product, new_product])


class TestChange:
    async def test_key_can_be_set_replaced_and_removed(self, ada: Caller) -> None:
        await ada.create_product("Lamp")

        for version, key in enumerate(["a", "b", None], 2):
            answer = await change(ada, 1, key=key)
            assert (answer.json["key"], answer.json["version"]) == (key, version)
        assert (await ada.create_product("Rug", key="a")).status_code == 201

    async def test_key_of_another_product_is_refused(self, ada: Caller) -> None:
        await ada.create_product("Lamp", key="a")
        await ada.create_product("Rug", key="b")

        answer = await change(ada, 2, key="a", name="Changed")

        assert problem_of(answer) == (409, "taken")
        assert fields_of(answer) == ["/key"]
        assert (await ada.get(f"{PATH}/2")).json["name"] == "Rug"
        assert (await change(ada, 1, key="a")).json["version"] == 1

    async def test_one_of_concurrent_changes_to_a_key_wins(self, ada: Caller) -> None:
        for _ in range(10):
            await ada.create_product("Lamp")

        answers = await at_once(10, lambda number: change(ada, number + 1, key="same"))

        assert sorted(answer.status_code for answer in answers) == [200, *[409] * 9]

    async def test_administrator_keeps_keys_of_the_owner_unique(
        self, ada: Caller, admin: Caller
    ) -> None:
        await admin.create_product("Mine", key="a")
        await ada.create_product("Lamp")

        assert (await change(admin, 2, key="a")).status_code == 200
        await ada.create_product("Rug")
        assert problem_of(await change(admin, 3, key="a")) == (409, "taken")


class TestFilter:
    async def test_products_are_found_by_key(self, ada: Caller, bob: Caller) -> None:
        await ada.create_product("Lamp", key="a&b")
        await bob.create_product("Rug", key="a&b")
        await ada.create_product("Desk", key="A&b")

        async def found(path: str, caller: Caller = ada) -> list[str]:
            page = (await caller.get(f"{path}key=a%26b&total=true")).json
            assert page["total"] == len(page["products"])
            return [product["name"] for product in page["products"]]

        assert await found(f"{PATH}?") == ["Rug", "Lamp"]
        assert await found(f"{PATH}/my?") == ["Lamp"]
        assert await found(f"{PATH}?user_id={bob.user_id}&q=rug&") == ["Rug"]

    async def test_cursor_is_bound_to_the_key(self, ada: Caller, bob: Caller) -> None:
        await ada.create_product("Lamp", key="a")
        await bob.create_product("Rug", key="a")

        first = (await ada.get(f"{PATH}?key=a&limit=1")).json

        assert (await ada.get(first["next"])).json["products"][0]["name"] == "Lamp"
        elsewhere = first["next"].replace("key=a", "key=b")
        assert problem_of(await ada.get(elsewhere)) == (400, "cursor-invalid")


class TestKeyClaims:
    def test_key_is_claimed_once(self) -> None:
        claims = KeyClaims({(1, "a"): 7})

        claims.claim(1, None, None)
        claims.claim(1, "a", 7)
        claims.claim(2, "a", None)
        claims.claim(1, "b", 8)
        claims.claim(1, "b", 8)

        for claim in ((1, "a", 8), (1, "a", None), (2, "a", None), (1, "b", 7)):
            with pytest.raises(DuplicateValue):
                claims.claim(*claim)
