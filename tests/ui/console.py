"""Actions of people in the console, for tests in a browser."""

from typing import Any

from tests.support import PASSWORD

ADMIN_PASSWORD = "correct horse battery staple of the admin"


async def sign_up(page: Any, username: str = "ada") -> None:
    await page.goto("./sign-in")
    await page.get_by_role("button", name="Sign up").click()
    await page.get_by_label("Username").fill(username)
    await page.get_by_label("E-mail").fill(f"{username}@example.com")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.locator("form").get_by_role("button", name="Sign up").click()
    await page.get_by_role("button", name="Log out").wait_for()


async def log_in_as_admin(page: Any) -> None:
    await page.goto("./sign-in")
    await page.get_by_label("Username").fill("admin")
    await page.get_by_label("Password").fill(ADMIN_PASSWORD)
    await page.locator("form").get_by_role("button", name="Sign in").click()
    await page.get_by_role("button", name="Log out").wait_for()


async def create(page: Any, name: str, price: str = "9.5", description: str = "") -> None:
    await page.get_by_role("link", name="New", exact=True).click()
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Price").fill(price)
    await page.get_by_label("Description").fill(description)
    await page.get_by_role("button", name="Create").click()
    await page.get_by_role("button", name="Edit").wait_for()


async def live(page: Any) -> None:
    """Wait until the page follows the changes."""
    await page.get_by_text("Live.", exact=True).wait_for()
