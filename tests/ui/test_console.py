"""The console's pages as the service sends them, which browsers without JavaScript show."""

import html
import json
import re
from typing import Any

import pytest

from catalog import __version__
from tests.db.support import on_sqlite
from tests.support import Caller, Response, at_once

# The pages are the same on every engine.
pytestmark = on_sqlite

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnp.exe",
    "\U0001f600" * 512,
    "&lt;b&gt; &amp;",
]


def text_of(page: Response) -> str:
    return page.body.decode()


def data_of(page: Response) -> Any:
    """Return the products that the console starts from."""
    (attribute,) = re.findall(r'data-page="([^"]*)"', text_of(page))
    return json.loads(html.unescape(attribute))


class TestProducts:
    async def test_page_shows_what_the_api_lists(self, ada: Caller) -> None:
        await ada.create_product("Lamp", 39.9)
        await ada.create_product("Desk", 120)

        page = await ada.get("/", token="")
        listed = await ada.get("/api/products", token="")

        assert [each["id"] for each in data_of(page)["products"]] == [
            each["id"] for each in listed.json["products"]
        ]
        assert data_of(page)["change"] == listed.headers["Catalog-Change"]
        names = re.findall(r'href="/products/\d+"><bdi>([^<]*)</bdi>', text_of(page))
        assert names == ["Desk", "Lamp"]

    async def test_links_lead_through_all_products(self, ada: Caller) -> None:
        await at_once(7, lambda number: ada.create_product(f"Lamp {number}"))

        path, names = "/?limit=3", []
        while path:
            page = text_of(await ada.get(path, token=""))
            names += re.findall(r"<bdi>([^<]*)</bdi>", page)
            onward = re.search(r'<a href="([^"]*)" rel="next">', page)
            path = html.unescape(onward.group(1)) if onward else ""

        assert sorted(names) == [f"Lamp {number}" for number in range(7)]

    async def test_search_and_order_work_without_javascript(self, ada: Caller) -> None:
        for name, price in (("Desk lamp", 3), ("Lamp", 1), ("Rug", 2)):
            await ada.create_product(name, price)

        page = await ada.get("/?q=lamp&min_price=&max_price=&sort=price", token="")

        assert [each["name"] for each in data_of(page)["products"]] == ["Lamp", "Desk lamp"]
        assert '<option value="price" selected>' in text_of(page)
        assert 'name="q" aria-label="Search" placeholder="Search" value="lamp"' in text_of(page)

    @pytest.mark.parametrize(
        ("sort", "shown"),
        [("", "-id"), ("id", "id"), ("created_at", "id"), ("-created_at", "-id"), ("name", "name")],
    )
    async def test_form_shows_the_order(self, anyone: Caller, sort: str, shown: str) -> None:
        page = text_of(await anyone.get(f"/?sort={sort}"))

        assert re.findall(r'<option value="([^"]*)" selected>', page) == [shown]

    @pytest.mark.parametrize("name", HOSTILE)
    async def test_names_are_escaped(self, ada: Caller, name: str) -> None:
        product = (await ada.create_product(name, 1, description=name)).json

        for path in ("/", f"/products/{product['id']}"):
            page = await ada.get(path, token="")

            assert html.escape(name).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in (
                text_of(page)
            )
            assert "<img" not in text_of(page)
            assert re.findall(r"<script[^>]*>", text_of(page)) == [
                found for found in re.findall(r"<script[^>]*>", text_of(page)) if "src=" in found
            ]
            assert name in json.dumps(data_of(page), ensure_ascii=False).replace('\\"', '"')

    async def test_query_is_escaped(self, anyone: Caller) -> None:
        page = await anyone.get("/", query_string={"q": '"><script>alert(1)</script>'})

        assert page.status_code == 200
        assert "<script>" not in text_of(page)

    @pytest.mark.parametrize(
        "query",
        [
            "fields=id",
            "fields=id,name",
            "fields[]=id",
            "fields=",
            "format=csv",
            "format=ndjson",
            "format=json",
            "format=csv&format=json",
            "total=true",
            "bom=true",
            "guard=false",
        ],
    )
    async def test_parameters_of_the_form_of_a_list_do_not_change_the_page(
        self, ada: Caller, query: str
    ) -> None:
        for name in ("Desk lamp", "Rug", "Floor lamp"):
            await ada.create_product(name)

        plain = await ada.get("/?q=lamp&limit=1", token="")
        page = await ada.get(f"/?q=lamp&{query}&limit=1", token="")

        assert page.status_code == 200
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert text_of(page) == text_of(plain)

    @pytest.mark.parametrize(
        "accept", ["text/csv", "application/x-ndjson", "application/json", "text/event-stream"]
    )
    async def test_page_is_html_whatever_the_client_accepts(self, ada: Caller, accept: str) -> None:
        await ada.create_product("Lamp")

        for path in ("/", "/products/1"):
            page = await ada.get(path, token="", headers={"Accept": accept})

            assert page.status_code == 200
            assert page.headers["Content-Type"] == "text/html; charset=utf-8"

    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ("ids=1,3", ["Desk", "Lamp"]),
            ("ids=1&ids[]=3", ["Desk", "Lamp"]),
            ("key=sku-2", ["Rug"]),
            ("user_id=7", []),
            ("limit=", ["Desk", "Rug", "Lamp"]),
            ("sort=created_at&limit=2", ["Lamp", "Rug"]),
        ],
    )
    async def test_page_has_the_products_that_the_query_selects(
        self, ada: Caller, query: str, names: list[str]
    ) -> None:
        for number, name in enumerate(("Lamp", "Rug", "Desk"), start=1):
            await ada.create_product(name, key=f"sku-{number}")

        page = await ada.get(f"/?{query}", token="")

        assert [each["name"] for each in data_of(page)["products"]] == names

    async def test_search_keeps_the_parameters_that_the_form_does_not_have(
        self, ada: Caller
    ) -> None:
        await ada.create_product("Lamp")

        page = await ada.get(
            "/?ids=1,2&ids[]=3&user_id=2&limit=5&key=&q=lamp&sort=name&total=true", token=""
        )

        hidden = re.findall(r'<input type="hidden" name="(.*?)" value="(.*?)">', text_of(page))
        assert hidden == [("ids", "1,2"), ("ids[]", "3"), ("user_id", "2"), ("limit", "5")]

    async def test_head_is_answered_as_get(self, ada: Caller) -> None:
        await ada.create_product("Lamp")

        for path in ("/", "/?format=csv", "/products/1", "/import"):
            page = await ada.send("HEAD", path, token="")

            assert page.status_code == 200
            assert page.headers["Content-Type"] == "text/html; charset=utf-8"

    @pytest.mark.parametrize("query", ["limit=0", "sort=colour", "cursor=AAAA", "surprise=1"])
    async def test_faulty_query_is_refused_as_by_the_api(self, anyone: Caller, query: str) -> None:
        page = await anyone.get(f"/?{query}")

        assert page.status_code == (await anyone.get(f"/api/products?{query}")).status_code
        assert page.status_code in {400, 422}


class TestProduct:
    async def test_page_shows_a_product(self, ada: Caller) -> None:
        product = (await ada.create_product("Lamp", 39.9, description="Warm\nlight")).json

        page = await ada.get(f"/products/{product['id']}", token="")

        assert "<h1><bdi>Lamp</bdi></h1>" in text_of(page)
        assert data_of(page)["product"] == product
        assert (
            data_of(page)["etag"]
            == (await ada.get(f"/api/products/{product['id']}")).headers["ETag"]
        )

    async def test_query_is_ignored(self, ada: Caller) -> None:
        await ada.create_product("Lamp")

        page = await ada.get("/products/1?fields=id&format=csv", token="")

        assert text_of(page) == text_of(await ada.get("/products/1", token=""))

    @pytest.mark.parametrize("path", ["/products/7", "/products/0", "/products/x"])
    async def test_missing_product_is_not_found(self, anyone: Caller, path: str) -> None:
        assert (await anyone.get(path)).status_code == 404


class TestPages:
    @pytest.mark.parametrize("path", ["/sign-in", "/products/new", "/import", "/account", "/users"])
    async def test_page_without_javascript_shows_a_notice(self, anyone: Caller, path: str) -> None:
        page = await anyone.get(path)

        assert page.status_code == 200
        assert "<noscript>" in text_of(page)
        assert __version__ in text_of(page)

    async def test_policy_allows_no_inline_code_and_no_markup_from_strings(
        self, anyone: Caller
    ) -> None:
        policy = (await anyone.get("/")).headers["Content-Security-Policy"]

        assert "unsafe" not in policy
        assert "require-trusted-types-for 'script'" in policy
        assert "trusted-types 'none'" in policy
