"""Journeys through the console in a real browser, straight and through nginx."""

import asyncio
import gzip
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from catalog.settings import Settings
from tests.browser import Browser, browser, needs_browser
from tests.db.support import on_sqlite
from tests.server.in_process import serving
from tests.server.nginx import needs_nginx, nginx
from tests.support import PASSWORD
from tests.ui.console import ADMIN_PASSWORD, create, live, log_in_as_admin, sign_up

pytestmark = [needs_browser, on_sqlite, pytest.mark.timeout(300)]

ADMIN = SecretStr(ADMIN_PASSWORD)

PICTURES = os.environ.get("CATALOG_TEST_PICTURES")
"""Folder for pictures of the pages, such as those of the documentation."""

HOSTILE = {
    "script": "</script><script>document.title='taken'</script>",
    "attribute": '"><img src=x onerror="document.title=1">',
    "bidi": "\u202egnp.exe",
    "emoji": "\U0001f600" * 512,
}


both_ways = pytest.mark.parametrize(
    "hop", ["straight", pytest.param("nginx", marks=needs_nginx), "prefix"], indirect=True
)


@pytest.fixture
def hop(request: pytest.FixtureRequest) -> str:
    """Return what a browser talks to: the service, nginx before it, or the service under a path."""
    return str(getattr(request, "param", "straight"))


@pytest.fixture
async def service(hop: str, settings: Settings) -> AsyncIterator[str]:
    """Run the service on SQLite, and return the URL at which browsers see it."""
    path = "/shop" if hop == "prefix" else ""
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(
            serving(settings.model_copy(update={"admin_password": ADMIN, "root_path": path}))
        )
        url = f"{running.url}{path}"
        if hop == "nginx":
            url = (await stack.enter_async_context(nginx(url))).url
        yield url


@pytest.fixture
async def chromium(service: str, chromium_process: Any) -> AsyncIterator[Browser]:
    async with browser(service, chromium_process) as opened:
        yield opened


async def take_picture(page: Any, name: str) -> None:
    if PICTURES:
        # Rows that have just arrived are highlighted for a moment.
        await page.emulate_media(reduced_motion="reduce")
        await page.screenshot(path=Path(PICTURES) / f"{name}.png")


async def token_of(page: Any, service: str) -> dict[str, str]:
    """Return the header that signs a program in as the page's account."""
    session = await page.context.request.post(
        f"{service}/console/session/refresh", data={}, headers={"Origin": service}
    )
    return {"Authorization": f"Bearer {(await session.json())['access_token']}"}


async def create_as_program(
    page: Any, service: str, name: str, description: str | None
) -> dict[str, Any]:
    """Create a product of the page's account with texts that no form can send."""
    body = {"name": name, "price": 5, "description": description}
    async with httpx.AsyncClient(base_url=service, headers=await token_of(page, service)) as client:
        answer = await client.post("/api/products", json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made


async def change_as_program(page: Any, service: str, product_id: int, **changes: Any) -> None:
    """Change a product of the page's account."""
    async with httpx.AsyncClient(base_url=service, headers=await token_of(page, service)) as client:
        answer = await client.patch(f"/api/products/{product_id}", json=changes)
        assert answer.status_code == 200, answer.text


async def read(service: str, product_id: int) -> tuple[str, float, str | None]:
    """Return the name, price and description of a product."""
    async with httpx.AsyncClient(base_url=service) as client:
        product = (await client.get(f"/api/products/{product_id}")).json()
    return product["name"], product["price"], product["description"]


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


class TestImport:
    async def test_faulty_lines_are_listed(self, chromium: Browser, tmp_path: Path) -> None:
        page = await chromium.window()
        await sign_up(page)
        file = tmp_path / "products.csv"
        file.write_text("name,price\nLamp,1\nRug,cheap\nDesk,3\n")

        await page.get_by_role("link", name="Import").click()
        await page.get_by_label("File").set_input_files(file)
        await page.get_by_role("button", name="Import").click()

        await page.get_by_text("2 created, 1 failed.").wait_for()
        row = await page.locator("tbody tr").inner_text()
        assert row.split("\t")[:2] == ["3", "price"]

    @pytest.mark.parametrize(
        ("charset", "choice"), [("cp1252", "windows-1252"), ("cp1251", "windows-1251")]
    )
    async def test_encoding_of_csv_can_be_chosen(
        self, chromium: Browser, tmp_path: Path, charset: str, choice: str
    ) -> None:
        page = await chromium.window()
        await sign_up(page)
        name = {"cp1252": "Stühle", "cp1251": "Стул"}[charset]
        file = tmp_path / "products.csv"
        file.write_bytes(f"Name;Price\r\n{name};9,50\r\n".encode(charset))
        await page.get_by_role("link", name="Import").click()
        await page.get_by_label("File").set_input_files(file)
        await page.get_by_role("button", name="Import").click()
        await page.get_by_role("alert").wait_for()

        await page.get_by_label("Encoding of CSV").select_option(choice)
        await page.get_by_role("button", name="Import").click()
        await page.get_by_text("1 created, 0 failed.").wait_for()

        await page.get_by_role("link", name="See the products").click()
        await page.get_by_role("link", name=name).wait_for()
        await chromium.forgive("422")

    async def test_each_offered_encoding_is_known(self, chromium: Browser, service: str) -> None:
        page = await chromium.window()
        await sign_up(page)
        await page.get_by_role("link", name="Import").click()
        options = await page.get_by_label("Encoding of CSV").locator("option").all()
        charsets = [await option.get_attribute("value") for option in options]
        headers = await token_of(page, service)

        async with httpx.AsyncClient(base_url=service, headers=headers) as client:
            for charset in filter(None, charsets):
                content_type = {"Content-Type": f"text/csv; charset={charset}"}
                text = "name,price\nLamp,1\n"
                answer = await client.post(
                    "/api/products?dry_run=true", content=text, headers=content_type
                )
                assert (answer.status_code, answer.json()["created"]) == (200, 1), charset

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("products.csv.gz", "name,price\nLamp,1\n"),
            ("products.NDJSON.GZ", '{"name": "Lamp", "price": 1}\n'),
        ],
    )
    async def test_file_may_be_compressed(
        self, chromium: Browser, tmp_path: Path, name: str, text: str
    ) -> None:
        page = await chromium.window()
        await sign_up(page)
        file = tmp_path / name
        file.write_bytes(gzip.compress(text.encode()))
        await page.get_by_role("link", name="Import").click()
        # NDJSON is always UTF-8.
        await page.get_by_label("Encoding of CSV").select_option("windows-1252")
        await page.get_by_label("File").set_input_files(file)
        await page.get_by_role("button", name="Import").click()

        await page.get_by_text("1 created, 0 failed.").wait_for()

    @pytest.mark.parametrize(
        ("created", "text"),
        [
            (4000, "4,000 created, 2 failed, up to line 4,003."),
            (0, "Nothing was created."),
        ],
    )
    async def test_aborted_import_tells_how_far_it_has_come(
        self, chromium: Browser, tmp_path: Path, created: int, text: str
    ) -> None:
        page = await chromium.window()
        await sign_up(page)
        file = tmp_path / "products.csv"
        file.write_text("name,price\nLamp,1\n")
        problem = {
            "status": 503,
            "code": "database-busy",
            "detail": "The database is busy.",
            "created": created,
            "failed": 2,
            "errors": [{"line": 7, "pointer": "/price", "message": "price is missing."}],
            "line": 4003,
        }
        await page.route(
            "**/api/products", lambda route: route.fulfill(status=503, json=problem), times=1
        )

        await page.get_by_role("link", name="Import").click()
        await page.get_by_label("File").set_input_files(file)
        await page.get_by_role("button", name="Import").click()

        await page.get_by_text(text).wait_for()
        await page.get_by_text("The database is busy.").wait_for()
        assert "price is missing." in await page.locator("tbody").inner_text()
        await chromium.forgive("503")

    async def test_export_downloads_what_is_shown(self, chromium: Browser) -> None:
        page = await chromium.window()
        await sign_up(page)
        await create(page, "Desk lamp", "1")
        await create(page, "Rug", "2")
        await page.goto("./?q=lamp")
        await live(page)

        async with page.expect_download() as pending:
            await page.get_by_role("link", name="CSV").click()

        text = Path(await (await pending.value).path()).read_text()
        assert "Desk lamp" in text
        assert "Rug" not in text


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

    async def test_list_goes_on_at_its_end(self, chromium: Browser) -> None:
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
