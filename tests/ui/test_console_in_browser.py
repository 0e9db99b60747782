"""Journeys through the console in a real browser, straight and through nginx."""

import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browser import Browser, needs_browser
from tests.db.support import on_sqlite
from tests.server.nginx import needs_nginx
from tests.support import PASSWORD
from tests.ui.console import create, live, log_in_as_admin, sign_up

pytestmark = [needs_browser, on_sqlite, pytest.mark.timeout(300)]

PICTURES = os.environ.get("CATALOG_TEST_PICTURES")
"""Folder for pictures of the pages, such as those of the documentation."""

both_ways = pytest.mark.parametrize(
    "hop", ["straight", pytest.param("nginx", marks=needs_nginx), "prefix"], indirect=True
)


async def take_picture(page: Any, name: str) -> None:
    if PICTURES:
        # Rows that have just arrived are highlighted for a moment.
        await page.emulate_media(reduced_motion="reduce")
        await page.screenshot(path=Path(PICTURES) / f"{name}.png")


@both_ways
class TestJourney:
    async def test_new_product_appears_live_in_another_window(self, chromium: Browser) -> None:
        watcher = await chromium.window()
        await watcher.goto("./")
        await live(watcher)
        author = await chromium.window()
        await sign_up(author)

        await create(author, "Desk lamp", "39.9")

        await watcher.get_by_role("link", name="Desk lamp").wait_for()
        assert "39.9" in await watcher.locator("tbody tr").first.inner_text()

    async def test_owner_edits_and_deletes_with_everyone_watching(self, chromium: Browser) -> None:
        author = await chromium.window()
        await sign_up(author)
        await create(author, "Desk lamp")
        watcher = await chromium.window()
        await watcher.goto("./")
        await live(watcher)

        await author.get_by_role("button", name="Edit").click()
        await author.get_by_label("Name").fill("Floor lamp")
        await author.get_by_role("button", name="Save").click()
        await author.get_by_role("heading", name="Floor lamp").wait_for()
        await watcher.get_by_role("link", name="Floor lamp").wait_for()
        await author.get_by_role("button", name="Delete").click()
        await author.get_by_role("dialog").get_by_role("button", name="Delete").click()
        await author.get_by_role("heading", name="Products").wait_for()

        await watcher.get_by_role("link", name="Floor lamp").wait_for(state="detached")

    async def test_lost_race_shows_both_versions_and_overwrites_nothing(
        self, chromium: Browser
    ) -> None:
        first = await chromium.window()
        await sign_up(first)
        await create(first, "Lamp", "1")
        second = await first.context.new_page()
        chromium.watch(second)
        await second.goto(first.url)
        for page in (first, second):
            await page.get_by_role("button", name="Edit").click()

        await second.get_by_label("Price").fill("2")
        await second.get_by_role("button", name="Save").click()
        await second.get_by_role("button", name="Edit").wait_for()
        await first.get_by_label("Name").fill("Old lamp")
        await first.get_by_role("button", name="Save").click()

        conflict = first.get_by_role("alert")
        await conflict.get_by_text("Nothing is saved yet").wait_for()
        rows = await conflict.locator("tbody tr").all_inner_texts()
        assert [row.split("\t")[:3] for row in rows[:2]] == [
            ["Name", "Old lamp", "Lamp"],
            ["Price", "1.00", "2.00"],
        ]
        await take_picture(first, "conflict")
        await first.get_by_role("button", name="Keep mine").click()
        await first.get_by_role("button", name="Save").click()
        await first.get_by_role("heading", name="Old lamp").wait_for()
        # A browser reports the refusal, which is expected.
        await chromium.forgive("412")

    async def test_session_outlives_a_reload_and_ends_with_log_out(self, chromium: Browser) -> None:
        page = await chromium.window()
        await sign_up(page)
        cookies = await page.context.cookies()
        assert [(each["httpOnly"], each["sameSite"]) for each in cookies] == [(True, "Strict")]
        assert "eyJ" not in await page.evaluate("JSON.stringify({...localStorage})")

        await page.reload()
        await page.get_by_role("button", name="Log out").wait_for()
        await page.get_by_role("button", name="Log out").click()
        await page.get_by_role("button", name="Sign in").wait_for()

        assert not await page.context.cookies()

    async def test_other_session_is_ended_from_the_account_page(self, chromium: Browser) -> None:
        here = await chromium.window()
        await sign_up(here)
        there = await chromium.window()
        await there.goto("./sign-in")
        await there.get_by_label("Username").fill("ada")
        await there.get_by_label("Password").fill(PASSWORD)
        await there.locator("form").get_by_role("button", name="Sign in").click()
        await there.get_by_role("button", name="Log out").wait_for()

        await here.get_by_role("link", name="ada").click()
        rows = here.locator("tbody tr")
        await rows.nth(1).wait_for()
        await rows.filter(has_not_text="this one").get_by_role("button").click()
        await rows.nth(1).wait_for(state="detached")

        await there.reload()
        await there.get_by_role("button", name="Sign in").wait_for()
        await chromium.forgive("401")

    async def test_key_is_shown_once_and_works_until_it_is_revoked(
        self, chromium: Browser, service: str
    ) -> None:
        page = await chromium.window()
        await sign_up(page)
        await page.get_by_role("link", name="ada").click()
        await page.get_by_label("Name of the program").fill("nightly import")
        await page.get_by_role("button", name="Make a key").click()
        key = await page.locator("code.key").inner_text()

        async def status() -> int:
            async with httpx.AsyncClient(base_url=service) as client:
                bearer = {"Authorization": f"Bearer {key}"}
                return (await client.get("/api/auth/me", headers=bearer)).status_code

        assert await status() == 200
        await page.get_by_role("button", name="Revoke the key nightly import").click()
        await page.locator("code.key").wait_for(state="detached")
        assert await status() == 401
        await page.reload()
        await page.get_by_role("button", name="Make a key").wait_for()
        assert key not in await page.content()

    async def test_administrator_loads_sample_data_and_disables_an_account(
        self, chromium: Browser
    ) -> None:
        page = await chromium.window()
        await log_in_as_admin(page)
        await page.get_by_role("button", name="Load sample data").click()
        await page.get_by_role("link", name="Tea kettle").wait_for()
        other = await chromium.window()
        await sign_up(other, "bob")

        await page.get_by_role("link", name="Users").click()
        row = page.locator("tbody tr").filter(has_text="bob@example.com")
        await row.get_by_role("button", name="Disable").click()

        await row.get_by_role("button", name="Enable").wait_for()


class TestAppearance:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    async def test_narrow_page_does_not_scroll_sideways(
        self, chromium: Browser, scheme: str
    ) -> None:
        page = await chromium.window(
            viewport={"width": 375, "height": 740}, color_scheme=scheme, device_scale_factor=2
        )
        await log_in_as_admin(page)
        await page.get_by_role("button", name="Load sample data").click()
        await page.get_by_role("link", name="Tea kettle").wait_for()
        await take_picture(page, f"phone-{scheme}")
        width = "document.documentElement.scrollWidth"

        for path in ("./", "./products/1", "./products/new", "./import"):
            await page.goto(path)
            await page.get_by_role("button", name="Log out").wait_for()

            assert await page.evaluate(width) <= 375, path

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    async def test_wide_page_shows_the_products(self, chromium: Browser, scheme: str) -> None:
        page = await chromium.window(viewport={"width": 1100, "height": 760}, color_scheme=scheme)
        await log_in_as_admin(page)
        await page.get_by_role("button", name="Load sample data").click()
        await page.get_by_role("link", name="Tea kettle").wait_for()
        await page.locator("tbody tr").nth(19).wait_for()
        await take_picture(page, f"console-{scheme}")

        assert await page.locator("tbody tr").count() == 20

    async def test_keyboard_reaches_everything(self, chromium: Browser) -> None:
        page = await chromium.window()
        await page.goto("./")
        await live(page)

        reached = set()
        for _ in range(14):
            await page.keyboard.press("Tab")
            reached.add(
                await page.evaluate(
                    "document.activeElement.textContent.trim() || document.activeElement.name"
                )
            )

        assert {"Skip to the content", "catalog", "Sign in", "q", "Show", "CSV"} <= reached
