"""Lists of the console in a real browser: their order, their end, and what they show as text."""

import asyncio

import httpx
import pytest

from tests.browser import Browser, needs_browser
from tests.db.support import on_sqlite
from tests.ui.console import create, live, log_in_as_admin, sign_up

pytestmark = [needs_browser, on_sqlite, pytest.mark.timeout(300)]

HOSTILE = {
    "script": "</script><script>document.title='taken'</script>",
    "attribute": '"><img src=x onerror="document.title=1">',
    "bidi": "\u202egnp.exe",
    "emoji": "\U0001f600" * 512,
}


class TestLists:
    async def test_form_shows_the_order_of_creation(self, chromium: Browser) -> None:
        author = await chromium.window()
        await sign_up(author)
        page = await chromium.window()
        await page.goto("./?sort=created_at")
        await live(page)
        assert await page.get_by_label("Order").input_value() == "id"
        await page.goto("./?sort=-created_at")
        await live(page)
        assert await page.get_by_label("Order").input_value() == "-id"

        await create(author, "Rug")

        await page.get_by_role("link", name="Rug").wait_for()

    @pytest.mark.parametrize(
        "query", ["ids=1,2", "ids[]=1", "key=sku-1", "q=lamp", "max_price=2", "sort=name"]
    )
    async def test_new_product_does_not_appear_where_it_may_not_belong(
        self, chromium: Browser, query: str
    ) -> None:
        author = await chromium.window()
        await sign_up(author)
        watcher = await chromium.window()
        await watcher.goto(f"./?{query}")
        await live(watcher)

        await create(author, "Rug", "5")

        await watcher.get_by_text("There are new products.").wait_for()
        assert not await watcher.get_by_role("link", name="Rug").count()

    async def test_parameters_of_the_form_of_a_list_are_ignored(
        self, chromium: Browser, service: str
    ) -> None:
        page = await chromium.window()
        await sign_up(page)
        await create(page, "Lamp")
        await create(page, "Rug")
        await page.goto("./?fields=id&format=csv&total=true&bom=true&guard=false&limit=1")
        await live(page)
        await page.get_by_role("link", name="Lamp").click()
        await page.get_by_role("button", name="Edit").wait_for()

        # The list is read from the API this time.
        await page.go_back()
        await page.get_by_role("link", name="Lamp").wait_for()

        assert await page.locator("tbody bdi").all_inner_texts() == ["Rug", "Lamp"]
        async with httpx.AsyncClient(base_url=service) as client:
            for link in await page.locator("a[download]").all():
                assert (await client.get(await link.get_attribute("href"))).status_code == 200

    @pytest.mark.parametrize("java_script_enabled", [True, False])
    async def test_search_keeps_the_products_that_were_selected(
        self, chromium: Browser, java_script_enabled: bool
    ) -> None:
        author = await chromium.window()
        await sign_up(author)
        for name in ("Desk lamp", "Rug", "Floor lamp"):
            await create(author, name)
        page = await chromium.window(java_script_enabled=java_script_enabled)
        await page.goto("./?ids=1,2&q=rug")
        if java_script_enabled:
            await live(page)

        await page.get_by_label("Search").fill("lamp")
        await page.get_by_role("button", name="Show").click()
        await page.wait_for_url("**q=lamp*")
        await page.get_by_role("link", name="Desk lamp").wait_for()

        assert await page.locator("tbody bdi").all_inner_texts() == ["Desk lamp"]

    async def test_list_loads_the_next_page_at_its_end(self, chromium: Browser) -> None:
        page = await chromium.window(viewport={"width": 800, "height": 400})
        await log_in_as_admin(page)
        await page.evaluate(
            """async () => {
                const app = document.querySelector("script[src$='/app.js']").src;
                const { request } = await import(app.replace("app.js", "api.js"));
                const lamp = (number) => `{"name": "Lamp ${number}", "price": 1}`;
                await request("POST", "/api/products", {
                    headers: { "Content-Type": "application/x-ndjson" },
                    body: [...Array(100).keys()].map(lamp).join("\\n"),
                });
            }"""
        )
        await page.goto("./")
        rows = page.locator("tbody tr")
        await rows.nth(29).wait_for()

        while await rows.count() < 100:
            await page.mouse.wheel(0, 5_000)
            await asyncio.sleep(0.05)

        names = await page.locator("tbody bdi").all_inner_texts()
        assert sorted(names) == sorted(f"Lamp {number}" for number in range(100))

    @pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
    async def test_hostile_name_is_text(self, chromium: Browser, name: str) -> None:
        page = await chromium.window()
        await sign_up(page)

        await create(page, name, description=name)

        assert await page.locator("h1").inner_text() == name
        await page.goto("./")
        await live(page)
        assert await page.locator("tbody bdi").inner_text() == name
        assert "taken" not in await page.title()

    async def test_page_without_javascript_can_be_read(self, chromium: Browser) -> None:
        author = await chromium.window()
        await sign_up(author)
        await create(author, "Desk lamp", "39.9", "Warm")
        await create(author, "Rug", "5")

        page = await chromium.window(java_script_enabled=False)
        await page.goto("./")
        await page.get_by_label("Search").fill("lamp")
        await page.get_by_role("button", name="Show").click()
        await page.wait_for_url("**q=lamp*")
        assert await page.locator("tbody bdi").all_inner_texts() == ["Desk lamp"]
        await page.get_by_role("link", name="Desk lamp").click()

        await page.get_by_text("Warm").wait_for()
