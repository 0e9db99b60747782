"""Journeys through the API documentation in a real browser."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from catalog.settings import Settings
from tests.browser import Browser, browser, needs_browser
from tests.db.support import on_sqlite
from tests.server.in_process import InProcess, serving
from tests.server.service import TIMEOUT_SECONDS

pytestmark = [needs_browser, on_sqlite, pytest.mark.timeout(300)]

READY = "#swagger-ui[data-ready]"
# The account of the examples, which the README's first requests create.
ADA = {"username": "ada", "email": "ada@example.com", "password": "correct horse battery staple"}


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[InProcess]:
    """Run the service, with the account and the product of the README's first requests."""
    async with serving(settings) as service:
        connection = await service.connect()
        signed_up = await connection.ask("POST", "/api/auth/signup", body=ADA)
        token = json.loads(signed_up.body)["access_token"]
        lamp = {"name": "Desk lamp", "price": 24.9}
        await connection.ask("POST", "/api/products", token=token, body=lamp)
        yield service


@pytest.fixture
async def chromium(service: InProcess, chromium_process: Any) -> AsyncIterator[Browser]:
    async with browser(service.url, chromium_process) as opened:
        yield opened


async def open_docs(chromium: Browser, **options: Any) -> Any:
    """Open the documentation in a new window, and wait until it is rendered."""
    page = await chromium.window(**options)
    await page.goto("/docs")
    await page.wait_for_selector(READY)
    return page


async def sign_in(page: Any, password: str = ADA["password"]) -> None:
    await page.fill("[name=username]", ADA["username"])
    await page.fill("[name=password]", password)
    await page.click("text=Sign in")


async def execute(page: Any, operation: str) -> str:
    """Try out an operation with its examples, and return the status of the response."""
    block = page.locator(f"#operations-{operation}")
    await block.locator(".opblock-summary-control").click()
    await block.locator(".try-out__btn").click()
    await block.locator(".execute").click()
    status = block.locator(".live-responses-table .response-col_status").nth(1)
    return str((await status.inner_text()).split()[0])


class TestSigningIn:
    async def test_examples_succeed_after_signing_in_with_name_and_password(
        self, chromium: Browser
    ) -> None:
        page = await open_docs(chromium)

        await sign_in(page)
        await page.wait_for_selector("text=Signed in as ada")

        assert await execute(page, "products-list_my_products") == "200"
        assert await execute(page, "products-create_product") == "201"
        assert await execute(page, "products-change_product") == "200"
        assert await execute(page, "auth-sign_up") == "201"
        assert await execute(page, "auth-log_in") == "200"

    async def test_sign_in_outlives_a_reload_and_is_in_no_storage(self, chromium: Browser) -> None:
        page = await open_docs(chromium)
        await sign_in(page)
        await page.wait_for_selector("text=Signed in as ada")

        await page.reload()
        await page.wait_for_selector("text=Signed in as ada")

        assert await execute(page, "auth-read_account") == "200"
        stored = await page.evaluate(
            "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
        )
        assert "eyJ" not in stored

    async def test_signing_out_ends_the_session(self, chromium: Browser) -> None:
        page = await open_docs(chromium)
        await sign_in(page)
        await page.click("text=Sign out")
        await page.wait_for_selector("text=Sign in")

        assert await execute(page, "auth-read_account") == "401"
        await chromium.forgive("401")

        await page.goto("/docs")
        await page.wait_for_selector(READY)
        assert await page.is_visible("#sign-in")

    async def test_operation_that_ends_the_session_signs_the_page_out(
        self, chromium: Browser
    ) -> None:
        page = await open_docs(chromium)
        await sign_in(page)
        await page.wait_for_selector("text=Signed in as ada")

        assert await execute(page, "auth-log_out") == "204"

        await page.wait_for_selector("#sign-in", state="visible")

    async def test_wrong_password_shows_a_notice(self, chromium: Browser) -> None:
        page = await open_docs(chromium)

        await sign_in(page, "wrong horse")

        notice = page.locator("#notice")
        await notice.filter(has_text="wrong").wait_for()
        assert await page.is_visible("#sign-in")
        await chromium.forgive("401")


async def become(page: Any, expression: str, value: str) -> None:
    """Wait until an expression has a value; the page's policy forbids Playwright's own waiting."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while await page.evaluate(expression) != value:
            await asyncio.sleep(0.05)


class TestAppearance:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    async def test_page_follows_the_scheme_of_the_system(
        self, chromium: Browser, scheme: str
    ) -> None:
        page = await open_docs(chromium, color_scheme=scheme)

        background = "getComputedStyle(document.body).backgroundColor"
        colours = {"light": "rgb(255, 255, 255)", "dark": "rgb(28, 32, 34)"}
        await become(page, background, colours[scheme])

        other = {"light": "dark", "dark": "light"}[scheme]
        await page.emulate_media(color_scheme=other)
        await become(page, background, colours[other])
