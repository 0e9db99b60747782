"""Routes of the lists of products: pages, their order, filters and cursors."""

import asyncio
import math
from typing import Any
from urllib.parse import urlencode

from quart import Quart

from catalog.db.columns import MAX_ID
from catalog.http.limits import limit_of
from tests.products.product_ids import create_some, ids_of
from tests.support import Caller, fields_of, problem_of

EMPTY_PAGE: dict[str, Any] = {"products": [], "next": None, "next_cursor": None}
NO_LIMITS = ("0", "1001", "-1", "%2B5", "1.0", "1e2", "1_0", "%205", "%EF%BC%91", "many")


async def pages_of(caller: Caller, path: str) -> list[list[int]]:
    """Return the ids on each page from a path on, following ``next`` to its end."""
    pages = []
    following: str | None = path
    while following is not None:
        answer = await caller.get(following)
        assert answer.status_code == 200, answer.body
        pages.append(ids_of(answer))
        following = answer.json["next"]
    return pages


def flat(pages: list[list[int]]) -> list[int]:
    return [product_id for page in pages for product_id in page]


def test_lists_count_toward_the_limit_of_reads(app: Quart) -> None:
    views = [
        app.view_functions[f"product_lists.{each}"]
        for each in ("list_products", "list_my_products")
    ]

    assert [limit_of(view) for view in views] == ["read", "read"]


class TestListProducts:
    async def test_empty_catalog_has_an_empty_page(self, anyone: Caller) -> None:
        answer = await anyone.get("/api/products")

        assert answer.status_code == 200
        assert answer.json == EMPTY_PAGE
        assert "Link" not in answer.headers

    async def test_products_of_all_owners_are_listed_newest_first(
        self, ada: Caller, bob: Caller, anyone: Caller
    ) -> None:
        ids = [(await caller.create_product("Lamp")).json["id"] for caller in (ada, bob, ada)]

        assert ids_of(await anyone.get("/api/products")) == ids[::-1]

    async def test_page_has_100_products_by_default(self, ada: Caller) -> None:
        ids = await create_some(ada, 102)

        first = await ada.get("/api/products")
        second = await ada.get(first.json["next"])

        assert ids_of(first) == ids[:100]
        assert ids_of(second) == ids[100:]
        assert "limit" not in first.json["next"]
        assert ids_of(await ada.get("/api/products?limit=1000")) == ids

    async def test_walk_with_any_page_size_shows_each_product_once(self, ada: Caller) -> None:
        ids = await create_some(ada, 7)

        for size in range(1, 9):
            pages = await pages_of(ada, f"/api/products?limit={size}")

            assert [len(page) for page in pages[:-1]] == [size] * (math.ceil(7 / size) - 1)
            assert flat(pages) == ids

    async def test_next_page_is_in_the_body_and_in_the_link_header(self, ada: Caller) -> None:
        await create_some(ada, 3)

        first = await ada.get("/api/products?limit=2")
        last = await ada.get(first.json["next"])

        assert first.json["next"].startswith("/api/products?cursor=")
        assert first.headers["Link"] == f'<{first.json["next"]}>; rel="next"'
        assert last.json["next"] is None
        assert last.json["next_cursor"] is None
        assert "Link" not in last.headers

    async def test_cursor_of_the_next_page_stands_by_itself(self, ada: Caller) -> None:
        ids = await create_some(ada, 3)

        for path in ("/api/products", "/api/products/my"):
            first = (await ada.get(f"{path}?limit=2&sort=-name")).json
            query = {"limit": "2", "sort": "-name", "cursor": first["next_cursor"]}
            second = await ada.get(f"{path}?{urlencode(query)}")

            assert second.body == (await ada.get(first["next"])).body
            assert ids_of(second) == ids[2:]

    async def test_full_last_page_has_no_next(self, ada: Caller) -> None:
        await create_some(ada, 4)

        assert len(await pages_of(ada, "/api/products?limit=2")) == 2

    async def test_cursor_outlives_its_product(self, ada: Caller) -> None:
        ids = await create_some(ada, 5)
        first = await ada.get("/api/products?limit=2")

        await ada.delete(ids[1])
        second = await ada.get(first.json["next"])

        assert ids_of(second) == ids[2:4]

    async def test_cursor_keeps_its_place_after_all_products_are_deleted(self, ada: Caller) -> None:
        ids = await create_some(ada, 3)
        first = await ada.get("/api/products?limit=1")

        for product_id in ids:
            await ada.delete(product_id)
        await ada.create_product("Chair")

        assert (await ada.get(first.json["next"])).json == EMPTY_PAGE

    async def test_limit_must_be_a_whole_number_from_1_to_1000(self, anyone: Caller) -> None:
        for limit in NO_LIMITS:
            answer = await anyone.get(f"/api/products?limit={limit}")

            assert problem_of(answer) == (422, "invalid"), limit
            assert fields_of(answer) == ["limit"], limit

    async def test_unknown_parameter_is_named(self, anyone: Caller) -> None:
        answer = await anyone.get("/api/products?page=2")

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == ["page"]

    async def test_forged_cursor_is_refused(self, anyone: Caller) -> None:
        for cursor in ("1", "AAAA", "%F0%9F%98%80", "A" * 300):
            answer = await anyone.get(f"/api/products?cursor={cursor}")

            assert problem_of(answer) == (400, "cursor-invalid"), cursor

    async def test_cursor_of_another_list_is_refused(self, ada: Caller) -> None:
        await create_some(ada, 2)
        cursor = (await ada.get("/api/products?limit=1")).json["next"].partition("cursor=")[2]

        answer = await ada.get(f"/api/products/my?cursor={cursor}")

        assert problem_of(answer) == (400, "cursor-invalid")

    async def test_walk_shows_lasting_products_exactly_once_during_writes(
        self, ada: Caller, bob: Caller, anyone: Caller
    ) -> None:
        staying, leaving = [], []
        for n in range(10):
            staying.append((await ada.create_product(f"Lamp {n}")).json["id"])
            leaving.append((await bob.create_product(f"Chair {n}")).json["id"])
        seen: list[int] = []
        following: str | None = "/api/products?limit=2"

        while following is not None:
            # From both ends of the list: some before the walk reaches them, some after.
            gone = leaving.pop(0 if len(leaving) % 2 else -1) if leaving else MAX_ID
            answer, *_ = await asyncio.gather(
                anyone.get(following), bob.create_product("Stool"), bob.delete(gone)
            )
            seen += ids_of(answer)
            following = answer.json["next"]

        assert seen == sorted(set(seen), reverse=True)
        assert set(staying) <= set(seen)

    async def test_if_match_gets_the_expected_page_only(self, ada: Caller, anyone: Caller) -> None:
        await create_some(ada, 3)
        expected = {"If-Match": (await anyone.get("/api/products")).headers["ETag"]}

        same = await anyone.get("/api/products", headers=expected)
        await ada.create_product("Lamp")
        changed = await anyone.get("/api/products", headers=expected)

        assert same.status_code == 200
        assert problem_of(changed) == (412, "precondition-failed")
        assert changed.headers["ETag"] == (await anyone.get("/api/products")).headers["ETag"]

    async def test_matching_entity_tag_gets_304_until_a_change(
        self, ada: Caller, anyone: Caller
    ) -> None:
        await create_some(ada, 3)
        first = await anyone.get("/api/products?limit=2")
        has_it = {"If-None-Match": first.headers["ETag"]}

        again = await anyone.get("/api/products?limit=2", headers=has_it)
        other = await anyone.get("/api/products?limit=3", headers=has_it)
        await ada.create_product("Lamp")
        changed = await anyone.get("/api/products?limit=2", headers=has_it)

        assert (again.status_code, again.body) == (304, b"")
        assert again.headers["Link"] == first.headers["Link"]
        assert (other.status_code, changed.status_code) == (200, 200)


class TestListMyProducts:
    async def test_only_own_products_are_listed_newest_first(
        self, ada: Caller, bob: Caller
    ) -> None:
        mine = []
        for n in range(3):
            mine.append((await ada.create_product(f"Lamp {n}")).json["id"])
            await bob.create_product(f"Chair {n}")

        answer = await ada.get("/api/products/my")

        assert ids_of(answer) == mine[::-1]
        assert {product["user_id"] for product in answer.json["products"]} == {ada.user_id}
        assert answer.headers["Cache-Control"] == "no-store"

    async def test_next_page_belongs_to_the_same_list(self, ada: Caller, bob: Caller) -> None:
        mine = []
        for n in range(5):
            mine.append((await ada.create_product(f"Lamp {n}")).json["id"])
            await bob.create_product(f"Chair {n}")

        first = await ada.get("/api/products/my?limit=2")

        assert first.json["next"].startswith("/api/products/my?cursor=")
        assert flat(await pages_of(ada, "/api/products/my?limit=2")) == mine[::-1]

    async def test_cursor_of_another_caller_shows_only_own_products(
        self, ada: Caller, bob: Caller
    ) -> None:
        chair = (await bob.create_product("Chair")).json["id"]
        await create_some(ada, 3)
        following = (await ada.get("/api/products/my?limit=1")).json["next"]

        assert ids_of(await bob.get(following)) == [chair]

    async def test_anonymous_caller_and_refresh_token_are_refused(
        self, ada: Caller, anyone: Caller
    ) -> None:
        refreshing = await ada.get("/api/products/my", token=ada.refresh_token)

        assert problem_of(await anyone.get("/api/products/my")) == (401, "token-missing")
        assert problem_of(refreshing) == (401, "token-wrong-kind")
