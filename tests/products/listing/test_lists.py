"""Product lists: sorts, filters, pagination, and refused parameters."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.db.database import Database
from catalog.http.pagination import MAX_CURSOR_LENGTH, MAX_LINK_LENGTH
from catalog.products.models import Product
from catalog.products.queries import FIELDS
from catalog.products.schemas import ProductField
from tests.db.support import on_sqlite
from tests.products.listing.lists import LIST, MINE, SORTS, ids_of, in_order, walk
from tests.support import Caller, fields_of, problem_of

# Their expected order is by code point, which is not that of any collation or locale.
NAMES = (
    *(
        "",
        " ",
        "!",
        "0",
        "10",
        "9",
        "A",
        "B",
        "Z",
        "a",
        "a ",
        "aa",
        "b",
        "z",
        "\x7f",
        "é",
        "e\u0301",
    ),
    *("ß", "ss", "ÿ", "я", "א", "\u0627", "あ", "ア", "漢", "한", "\ufb03", "\uffee", "\U0001f600"),
    *(
        "\U0001f601",
        "\U0010fffd",
        "Lamp",
        "lamp",
        "LAMP",
        "Lamp",
        "Lamp",
        "lamp%",
        "lamp_",
        "l\\amp",
    ),
)
# Among them adjacent doubles; many products share each price.
PRICES = (0.0, 5e-324, 1e-7, 0.1, 0.30000000000000004, 0.3, 9.5, 24.9, 1e12, 131072.01, 0.1 + 0.7)


def rows_of(user_ids: list[int]) -> list[dict[str, Any]]:
    """Return product rows with many ties, ready for insertion."""
    began = datetime(2026, 11, 23, tzinfo=UTC)
    rows = []
    for number in range(3 * len(NAMES)):
        at = began + timedelta(microseconds=number * 7 % 11)
        rows.append(
            {
                "name": f"x{NAMES[number % len(NAMES)]}",
                "price": PRICES[number * 5 % len(PRICES)],
                "user_id": user_ids[number % 3 // 2],
                "created_at": at,
                "updated_at": at,
            }
        )
    return rows


@pytest.fixture
async def stocked(ada: Caller, bob: Caller, database: Database) -> list[dict[str, Any]]:
    """Insert products of two owners; return them as lists show them, oldest first."""
    assert ada.user_id
    assert bob.user_id
    rows = rows_of([ada.user_id, bob.user_id])

    async def fill(session: AsyncSession) -> None:
        await session.execute(insert(Product), rows)

    await database.transaction(fill)
    answer = await ada.get(f"{LIST}?limit=1000")
    products: list[dict[str, Any]] = answer.json["products"][::-1]
    assert len(products) == len(rows)
    return products


class TestSort:
    async def test_walk_in_every_sort_shows_each_product_once_in_pythons_order(
        self, ada: Caller, anyone: Caller, stocked: list[dict[str, Any]]
    ) -> None:
        mine = [product for product in stocked if product["user_id"] == ada.user_id]
        for sort in SORTS:
            pages = await walk(anyone, LIST, sort=sort, limit=7)
            assert ids_of(pages) == in_order(stocked, sort), sort
            assert [len(page.json["products"]) for page in pages[:-1]] == [7] * (len(pages) - 1)
            one_by_one = await walk(ada, MINE, sort=sort, limit=1)
            assert ids_of(one_by_one) == in_order(mine, sort), sort

    async def test_cursor_stays_valid_after_its_product_is_deleted(
        self, ada: Caller, stocked: list[dict[str, Any]]
    ) -> None:
        for sort in SORTS:
            whole = in_order([p for p in stocked if p["user_id"] == ada.user_id], sort)
            first = await ada.get(f"{MINE}?sort={sort}&limit=10")
            last_id = first.json["products"][-1]["id"]
            stocked = [product for product in stocked if product["id"] != last_id]
            await ada.delete(last_id)

            second = await ada.get(first.json["next"])

            assert ids_of([first, second]) == whole[:20], sort

    async def test_longest_names_fit_into_a_cursor(self, ada: Caller) -> None:
        names = [letter * 511 + str(n) for letter in ("\x01", "\U0001f600", '"') for n in range(2)]
        for name in names:
            assert (await ada.create_product(name)).status_code == 201

        for sort in ("name", "-name"):
            pages = await walk(ada, LIST, sort=sort, limit=1)
            found = [product["name"] for page in pages for product in page.json["products"]]
            assert found == sorted(names, reverse=sort == "-name")
            longest = max(len(page.json["next"] or "") for page in pages)
            assert (
                MAX_LINK_LENGTH < longest <= MAX_CURSOR_LENGTH + len(f"{LIST}?cursor=&limit=1000")
            )


class TestFilters:
    async def test_filters_select_the_matching_products_in_every_sort(
        self, anyone: Caller, bob: Caller, stocked: list[dict[str, Any]]
    ) -> None:
        some = [product["id"] for product in stocked[3:90:9]]
        cases: dict[str, Any] = {
            "min_price=0.3": lambda p: p["price"] >= 0.3,
            "max_price=0.3": lambda p: p["price"] <= 0.3,
            "min_price=0.1&max_price=0.30000000000000004": lambda p: 0.1 <= p["price"] < 0.31,
            "min_price=5e-324&max_price=1E-7": lambda p: 0 < p["price"] <= 1e-7,
            "min_price=10&max_price=1": lambda _: False,
            f"user_id={bob.user_id}": lambda p: p["user_id"] == bob.user_id,
            "user_id=99": lambda _: False,
            f"ids={','.join(map(str, some))},99999,{some[0]}": lambda p: p["id"] in some,
            f"ids={some[0]}": lambda p: p["id"] == some[0],
            f"ids={','.join(map(str, some))}&min_price=1&user_id={bob.user_id}": (
                lambda p: p["id"] in some and p["price"] >= 1 and p["user_id"] == bob.user_id
            ),
        }
        for query, keeps in cases.items():
            kept = [product for product in stocked if keeps(product)]
            for sort in ("-id", "name", "-price", "created_at"):
                parameters = dict(parse_qsl(query))
                pages = await walk(anyone, LIST, **parameters, sort=sort, limit=5, total="true")
                assert ids_of(pages) == in_order(kept, sort), (query, sort)
                assert {page.json["total"] for page in pages} == {len(kept)}, (query, sort)

    async def test_own_list_takes_every_filter_but_the_owner(
        self, ada: Caller, stocked: list[dict[str, Any]]
    ) -> None:
        kept = [p for p in stocked if p["user_id"] == ada.user_id and p["price"] <= 1]

        pages = await walk(ada, MINE, max_price=1, sort="price", limit=4, total="true")
        refused = await ada.get(f"{MINE}?user_id={ada.user_id}")

        assert ids_of(pages) == in_order(kept, "price")
        assert pages[0].json["total"] == len(kept)
        assert (problem_of(refused), fields_of(refused)) == ((422, "invalid"), ["user_id"])


class TestRepeatedLists:
    @on_sqlite  # How a query is written does not depend on the engine.
    @pytest.mark.parametrize(
        "ids",
        ["ids={0},{1}", "ids={0}&ids={1}", "ids={0},{1}&ids={1}", "ids[]={0}&ids[]={1}&ids="],
    )
    @pytest.mark.parametrize(
        "fields", ["fields=name,id", "fields=name&fields=id", "fields[]=name,id"]
    )
    async def test_list_may_have_commas_or_be_repeated(
        self, anyone: Caller, stocked: list[dict[str, Any]], ids: str, fields: str
    ) -> None:
        some = stocked[7], stocked[3]
        query = f"{ids.format(*(product['id'] for product in some))}&{fields}&sort=id&limit=1"

        first = await anyone.get(f"{LIST}?{query}")
        second = await anyone.get(first.json["next"])

        expected = [{"name": p["name"], "id": p["id"]} for p in sorted(some, key=lambda p: p["id"])]
        assert first.json["products"] + second.json["products"] == expected
        assert second.json["next"] is None


class TestFields:
    async def test_only_named_fields_are_shown(self, ada: Caller) -> None:
        created = (await ada.create_product("Lamp", description="Oak.")).json

        for fields in ("id", "price,name", ",".join(FIELDS), "name,name"):
            wanted = set(fields.split(","))
            (product,) = (await ada.get(f"{LIST}?fields={fields}")).json["products"]
            assert product == {name: created[name] for name in wanted}, fields

    async def test_sort_field_need_not_be_shown(
        self, anyone: Caller, stocked: list[dict[str, Any]]
    ) -> None:
        pages = await walk(anyone, LIST, sort="price", fields="name,id", limit=20)

        assert ids_of(pages) == in_order(stocked, "price")

    def test_every_product_field_can_be_named(self) -> None:
        assert get_args(ProductField) == FIELDS


class TestTotal:
    async def test_total_is_shown_only_on_request(self, ada: Caller) -> None:
        for name in ("Lamp", "Desk", "Chair"):
            await ada.create_product(name)

        answers = {text: await ada.get(f"{LIST}?limit=1{text}") for text in ("", "&total=true")}
        refused = await ada.get(f"{LIST}?limit=1&total=false")

        assert answers["&total=true"].json["total"] == 3
        assert "total" not in answers[""].json
        assert "total" not in refused.json


class TestNext:
    async def test_next_repeats_the_clients_parameters(self, ada: Caller) -> None:
        for name in ("Lamp", "Desk", "Chair"):
            await ada.create_product(name, 5)
        asked = {
            "limit": "1",
            "sort": "name",
            "min_price": "1.50",
            "max_price": "1e3",
            "fields": "name,id",
            "ids": "1,2,3",
            "total": "true",
        }

        first = await ada.get(f"{LIST}?{urlencode(asked)}")
        second = await ada.get(first.json["next"])

        for answer in (first, second):
            given = dict(parse_qsl(urlsplit(answer.json["next"]).query))
            assert given.pop("cursor")
            assert given == asked
        assert [p["name"] for p in second.json["products"]] == ["Desk"]

    async def test_cursor_is_valid_only_for_its_list_sort_and_filters(
        self, ada: Caller, stocked: list[dict[str, Any]]
    ) -> None:
        assert stocked
        queries = (
            *("", "sort=id", "sort=price", "sort=-price", "min_price=0.1", "max_price=0.1"),
            *("sort=name&min_price=0.1", "sort=name", f"user_id={ada.user_id}", "ids=1,2,3"),
        )
        cursors = {}
        for query in queries:
            answer = await ada.get(f"{LIST}?limit=1&{query}")
            cursors[query] = dict(parse_qsl(urlsplit(answer.json["next"]).query))["cursor"]

        for query in queries:
            for other, cursor in cursors.items():
                answer = await ada.get(f"{LIST}?{query}&cursor={cursor}")
                if query == other:
                    assert answer.status_code == 200
                else:
                    assert problem_of(answer) == (400, "cursor-invalid"), (query, other)
        mine = await ada.get(f"{MINE}?cursor={cursors['']}")
        assert problem_of(mine) == (400, "cursor-invalid")

    async def test_cursor_stays_valid_with_other_fields_and_total(self, ada: Caller) -> None:
        for name in ("Lamp", "Desk", "Chair"):
            await ada.create_product(name)
        cursor = (await ada.get(f"{LIST}?limit=1")).json["next"].partition("cursor=")[2]

        cursor = cursor.partition("&")[0]
        answer = await ada.get(f"{LIST}?cursor={cursor}&fields=name&total=true")

        assert answer.json["products"] == [{"name": "Desk"}, {"name": "Lamp"}]


class TestRefusals:
    async def test_invalid_parameter_is_named(self, anyone: Caller) -> None:
        faults = {
            "sort": ("+id", "--id", "ID", "id,name", "updated_at", "rowid", "description"),
            "min_price": ("x", "-1", "1e13", "nan", "inf", "1e999", " 1", ".5", "1.", "0x1"),
            "max_price": ("1_0", "1,5", "\uff11", "+1", "9" * 41, "-0.1", "1e12.0"),
            "user_id": ("0", "-1", "x", str(2**63), "1,2"),
            "ids": (
                *(",", "1,", "0", "1,x", "1;2", "1 ,2", ",".join(map(str, range(1, 202)))),
                ",".join(["7"] * 201),
            ),
            "fields": ("id,", "password_hash", "Id", "id name", "*"),
            "total": ("2", "True", "yes", "null"),
            "order": ("id",),
            "offset": ("10", ""),
            "sort[]": ("id",),
            "Sort": ("id",),
        }
        for name, values in faults.items():
            for value in values:
                answer = await anyone.get(f"{LIST}?{urlencode({name: value})}")
                assert problem_of(answer) == (422, "invalid"), (name, value)
                assert fields_of(answer) == [name], (name, value)

    async def test_repeated_parameter_is_invalid(self, anyone: Caller) -> None:
        for name, value in (
            ("sort", "id"),
            ("min_price", "1"),
            ("user_id", "1"),
            ("total", "true"),
        ):
            answer = await anyone.get(f"{LIST}?{name}={value}&{name}={value}")
            assert (problem_of(answer), fields_of(answer)) == ((422, "invalid"), [name])
            assert answer.json["errors"][0]["message"].endswith(" may be given only once.")

    async def test_repeated_ids_have_a_common_bound(self, anyone: Caller) -> None:
        query = "&".join(f"ids={number}" for number in range(1, 202))

        answer = await anyone.get(f"{LIST}?{query}")

        assert (problem_of(answer), fields_of(answer)) == ((422, "invalid"), ["ids"])
