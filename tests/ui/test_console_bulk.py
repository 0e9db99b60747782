"""Imports and exports of the console in a real browser."""

import gzip
from pathlib import Path

import httpx
import pytest

from tests.browser import Browser, needs_browser
from tests.db.support import on_sqlite
from tests.ui.console import create, live, sign_up
from tests.ui.programs import token_of

pytestmark = [needs_browser, on_sqlite, pytest.mark.timeout(300)]


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
    async def test_aborted_import_shows_its_progress(
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
