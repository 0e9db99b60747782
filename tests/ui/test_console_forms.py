"""Forms of the console in a real browser: what they send, keep and refuse."""

from typing import Any

import httpx
import pytest

from tests.browser import Browser, needs_browser
from tests.db.support import on_sqlite
from tests.support import PASSWORD
from tests.ui.console import create, log_in_as_admin, sign_up
from tests.ui.programs import change_as_program, create_as_program, read

pytestmark = [needs_browser, on_sqlite, pytest.mark.timeout(300)]


class TestEdit:
    @pytest.mark.parametrize(
        ("name", "description"),
        [
            ("Desk\nlamp", "one\r\ntwo\r\n"),
            (" Desk\tlamp\u2028", "\n one\rtwo "),
            ("Desk lamp", ""),
            ("Desk lamp", None),
        ],
    )
    async def test_other_fields_stay_as_they_are(
        self, chromium: Browser, service: str, name: str, description: str | None
    ) -> None:
        page = await chromium.window()
        await sign_up(page)
        made = await create_as_program(page, service, name, description)

        await page.goto(f"./products/{made['id']}")
        await page.get_by_role("button", name="Edit").click()
        await page.get_by_label("Price").fill("6")
        await page.get_by_role("button", name="Save").click()
        await page.get_by_text("version 2").wait_for()

        assert await read(service, made["id"]) == (name, 6, description)

    async def test_unchanged_form_changes_nothing(self, chromium: Browser, service: str) -> None:
        page = await chromium.window()
        await sign_up(page)
        made = await create_as_program(page, service, "Desk\nlamp", "one\r\ntwo")

        await page.goto(f"./products/{made['id']}")
        await page.get_by_role("button", name="Edit").click()
        await page.get_by_role("button", name="Save").click()

        await page.get_by_role("button", name="Edit").wait_for()
        assert await page.get_by_text("version 1").count() == 1

    async def test_description_is_removed_by_an_empty_field(
        self, chromium: Browser, service: str
    ) -> None:
        page = await chromium.window()
        await sign_up(page)
        made = await create_as_program(page, service, "Lamp", "Warm")

        await page.goto(f"./products/{made['id']}")
        await page.get_by_role("button", name="Edit").click()
        await page.get_by_label("Description").fill("")
        await page.get_by_role("button", name="Save").click()
        await page.get_by_text("version 2").wait_for()

        assert await read(service, made["id"]) == ("Lamp", 5, None)

    @pytest.mark.parametrize(
        ("choice", "outcome"),
        [("Keep mine", ("Old lamp", 5, "one\r\ntwo")), ("Take the saved one", ("Rug", 2, "new"))],
    )
    async def test_product_is_saved_as_the_conflict_shows_it(
        self, chromium: Browser, service: str, choice: str, outcome: Any
    ) -> None:
        page = await chromium.window()
        await sign_up(page)
        made = await create_as_program(page, service, "Lamp", "one\r\ntwo")
        await page.goto(f"./products/{made['id']}")
        await page.get_by_role("button", name="Edit").click()
        await change_as_program(page, service, made["id"], name="Rug", price=2, description="new")

        await page.get_by_label("Name").fill("Old lamp")
        await page.get_by_role("button", name="Save").click()
        await page.get_by_role("button", name=choice).click()
        assert await page.get_by_label("Name").input_value() == outcome[0]
        await page.get_by_role("button", name="Save").click()
        await page.get_by_role("button", name="Edit").wait_for()

        assert await read(service, made["id"]) == outcome
        await chromium.forgive("412")

    async def test_typed_text_outlives_a_renewed_sign_in(self, chromium: Browser) -> None:
        page = await chromium.window()
        await sign_up(page)
        await create(page, "Lamp")
        await page.get_by_role("button", name="Edit").click()
        await page.get_by_label("Name").fill("Rug")

        # As another tab does when it signs in.
        other = await page.context.new_page()
        chromium.watch(other)
        await other.goto("./")
        async with page.expect_response("**/console/session/refresh") as renewed:
            await other.evaluate("localStorage.setItem('catalog-signed-in', 'again')")
        await (await renewed.value).finished()
        await page.evaluate("new Promise(requestAnimationFrame)")

        assert await page.get_by_label("Name").input_value() == "Rug"


class TestForms:
    async def test_role_is_shown_as_it_is_after_a_refusal(self, chromium: Browser) -> None:
        page = await chromium.window()
        await log_in_as_admin(page)
        await page.get_by_role("link", name="Users").click()
        role = page.get_by_label("Role of admin")

        await role.select_option("user")
        await page.get_by_role("alert").wait_for()

        assert await role.input_value() == "admin"
        await chromium.forgive("409")

    async def test_role_can_be_changed(self, chromium: Browser) -> None:
        page = await chromium.window()
        await log_in_as_admin(page)
        await sign_up(await chromium.window(), "bob")
        await page.get_by_role("link", name="Users").click()

        async with page.expect_response("**/api/users/*"):
            await page.get_by_label("Role of bob").select_option("admin")

        await page.reload()
        role = page.get_by_label("Role of bob")
        await role.wait_for()
        assert await role.input_value() == "admin"

    async def test_refused_password_is_not_called_changed(self, chromium: Browser) -> None:
        page = await chromium.window()
        await sign_up(page)
        await page.get_by_role("link", name="ada").click()
        changed = page.get_by_text("The password is changed.")

        for current in (PASSWORD, "wrong password"):
            await page.get_by_label("Current password").fill(current)
            await page.get_by_label("New password").fill("another correct horse")
            await page.get_by_role("button", name="Change").click()
            outcome = changed if current == PASSWORD else page.get_by_role("alert")
            await outcome.wait_for()

        assert not await changed.count()
        await chromium.forgive("403")

    async def test_new_product_can_be_edited_after_a_lost_response(
        self, chromium: Browser, service: str
    ) -> None:
        page = await chromium.window()
        await sign_up(page)
        await page.get_by_role("link", name="New", exact=True).click()
        await page.get_by_label("Name").fill("Lamp")

        async def lose_response(route: Any) -> None:
            await route.fetch()
            await route.abort()

        for price in ("3", "4", "3"):
            await page.route("**/api/products", lose_response, times=1)
            await page.get_by_label("Price").fill(price)
            async with page.expect_event("requestfailed"):
                await page.get_by_role("button", name="Create").click()
            await page.get_by_text("The service cannot be reached.").wait_for()
        await page.get_by_role("button", name="Create").click()
        await page.get_by_role("button", name="Edit").wait_for()

        assert page.url.endswith("/products/1")
        async with httpx.AsyncClient(base_url=service) as client:
            listed = (await client.get("/api/products")).json()["products"]
        assert [each["price"] for each in listed] == [4, 3]
        await chromium.forgive("net::ERR_FAILED")

    @pytest.mark.parametrize(
        ("to", "path"),
        [
            ("//example.org", "/"),
            ("/%5Cexample.org", "/"),
            ("https://example.org/", "/"),
            ("javascript:alert(1)", "/"),
            ("/account", "/account"),
            ("/?q=lamp", "/?q=lamp"),
        ],
    )
    async def test_sign_in_leads_to_pages_of_the_console_only(
        self, chromium: Browser, service: str, to: str, path: str
    ) -> None:
        first = await chromium.window()
        await sign_up(first)
        page = await chromium.window()

        await page.goto(f"./sign-in?to={to}")
        await page.get_by_label("Username").fill("ada")
        await page.get_by_label("Password").fill(PASSWORD)
        await page.locator("form").get_by_role("button", name="Sign in").click()
        await page.get_by_role("button", name="Log out").wait_for()

        await page.wait_for_url(f"{service}{path}")
        assert not await page.get_by_role("alert").count()

    async def test_refusal_of_a_log_in_is_not_shown_at_the_sign_up(self, chromium: Browser) -> None:
        page = await chromium.window()
        await page.goto("./sign-in")
        await page.get_by_label("Username").fill("ada")
        await page.get_by_label("Password").fill("wrong password")
        await page.locator("form").get_by_role("button", name="Sign in").click()
        await page.get_by_role("alert").wait_for()

        await page.get_by_role("button", name="Sign up").click()
        await page.get_by_label("E-mail").wait_for()

        assert not await page.get_by_role("alert").count()
        await chromium.forgive("401")
