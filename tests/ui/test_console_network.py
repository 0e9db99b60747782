"""The console while the service is slow, refuses, or cannot be reached, in a real browser."""

import json
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from catalog.settings import Settings
from tests.browser import Browser, browser, needs_browser
from tests.db.support import PATIENT, on_sqlite
from tests.faults.proxy import Fault, FaultProxy, proxied
from tests.server.in_process import InProcess, serving
from tests.server.nginx import impatient, needs_nginx, nginx
from tests.server.service import Catalog
from tests.support import PASSWORD
from tests.ui.console import create, live, sign_up

pytestmark = [needs_browser, on_sqlite, pytest.mark.timeout(300)]

SLOW = Fault.delay(1.5)
"""Three seconds for a request and its response."""

LOAD_FAILED = "Failed to load resource"

LOST = "The connection was lost; trying again …"


class Site(NamedTuple):
    """The service, the network before it, and a browser at the other end."""

    service: InProcess
    network: FaultProxy
    browser: Browser
    file: Path

    async def create(self, name: str) -> None:
        """Create a product around the network."""
        connection = await self.service.connect()
        body = {"name": name, "price": 1}
        token = await self.service.sign_up(f"maker-of-{name.lower()}")
        answer = await connection.ask("POST", "/api/products", token=token, body=body)
        assert answer.status == 201, answer.body

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Keep all other writers waiting for the database."""
        with closing(sqlite3.connect(self.file, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield


@pytest.fixture
def hop(request: pytest.FixtureRequest) -> str:
    """Return what is between the browser and the network: nothing, or nginx."""
    return str(getattr(request, "param", "straight"))


@pytest.fixture
async def site(
    hop: str, settings: Settings, chromium_process: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Site]:
    # The service's own, for writes, which are refused while the database is busy.
    monkeypatch.setattr("catalog.app.DEADLINES", replace(PATIENT, write=5.0))
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(serving(settings))
        host, _, port = service.url.removeprefix("http://").rpartition(":")
        network = await stack.enter_async_context(proxied(host, int(port)))
        url = f"http://127.0.0.1:{network.port}"
        if hop == "nginx":
            url = (await stack.enter_async_context(nginx(url, edit=impatient))).url
        opened = await stack.enter_async_context(browser(url, chromium_process))
        yield Site(service, network, opened, Path(str(settings.database_url.database)))
        # Browsers report each request that fails, which is what these tests have happen.
        opened.faults = [each for each in opened.faults if LOAD_FAILED not in each]


through_nginx = pytest.mark.parametrize(
    "hop", [pytest.param("nginx", marks=needs_nginx)], indirect=True
)


def requests_of(page: Any, method: str) -> list[str]:
    """Collect the URLs of a page's requests with a method from now on."""
    urls: list[str] = []

    def collect(request: Any) -> None:
        if request.method == method:
            urls.append(request.url)

    page.on("request", collect)
    return urls


async def fill_in(page: Any, name: str) -> None:
    await page.get_by_role("link", name="New", exact=True).click()
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Price").fill("1")


class TestSlowService:
    async def test_form_is_sent_once_however_often_it_is_submitted(self, site: Site) -> None:
        page = await site.browser.window()
        await sign_up(page)
        await fill_in(page, "Lamp")
        sent = requests_of(page, "POST")
        site.network.use(SLOW)

        await page.get_by_role("button", name="Create").dblclick()
        await page.get_by_label("Name").press("Enter")
        await page.locator("button[aria-busy=true]", has_text="Create").wait_for()
        await page.get_by_role("button", name="Edit").wait_for()

        assert [url.rpartition("/")[2] for url in sent] == ["products"]

    async def test_password_stays_out_of_the_address_when_enter_is_pressed_twice(
        self, site: Site
    ) -> None:
        await site.service.sign_up("ada")
        page = await site.browser.window()
        await page.goto("./sign-in")
        await page.get_by_label("Username").fill("ada")
        await page.get_by_label("Password").fill(PASSWORD)
        loaded = requests_of(page, "GET")
        site.network.use(SLOW)

        await page.get_by_label("Password").press("Enter")
        await page.get_by_label("Password").press("Enter")
        await page.get_by_role("button", name="Log out").wait_for()

        assert not [url for url in loaded if "password" in url]

    async def test_loading_page_shows_a_notice(self, site: Site) -> None:
        await site.create("Lamp")
        page = await site.browser.window()
        await page.goto("./")
        site.network.use(SLOW)

        await page.get_by_role("link", name="Lamp").click()

        await page.get_by_text("Loading …").wait_for()
        await page.get_by_role("heading", name="Lamp").wait_for()


class TestBusyService:
    async def test_refused_create_shows_the_retry_time_and_creates_one_product(
        self, site: Site
    ) -> None:
        page = await site.browser.window()
        await sign_up(page)
        await fill_in(page, "Lamp")

        with site.busy():
            await page.get_by_role("button", name="Create").click()
            await page.get_by_role("alert").get_by_text("Try again in 1 second.").wait_for()
        await page.get_by_role("button", name="Create").click()
        await page.get_by_role("button", name="Edit").wait_for()

        await page.goto("./")
        await live(page)
        assert await page.locator("tbody bdi").all_inner_texts() == ["Lamp"]

    @through_nginx
    async def test_page_that_was_refused_can_be_loaded_again(self, site: Site) -> None:
        await site.create("Lamp")
        page = await site.browser.window()
        await page.goto("./")
        await live(page)
        site.network.refuse()

        await page.get_by_role("link", name="Lamp").click()
        again = page.get_by_role("button", name="Try again")
        await again.wait_for()
        await site.network.listen()
        await again.click()

        await page.get_by_role("heading", name="Lamp").wait_for()


class TestLostNetwork:
    @pytest.mark.parametrize(
        "hop", ["straight", pytest.param("nginx", marks=needs_nginx)], indirect=True
    )
    async def test_list_is_live_again_without_a_gap(self, site: Site) -> None:
        await site.create("Lamp")
        page = await site.browser.window()
        await page.goto("./")
        await live(page)

        site.network.refuse()
        await page.get_by_text(LOST).wait_for()
        for name in ("Rug", "Desk", "Chair"):
            await site.create(name)
        # nginx answers each new stream with 503, after which browsers do not try again.
        await page.wait_for_timeout(2_000)
        await site.network.listen()

        await live(page)
        await page.get_by_role("link", name="Chair").wait_for()
        names = await page.locator("tbody bdi").all_inner_texts()
        assert names == ["Chair", "Desk", "Rug", "Lamp"]

    async def test_offline_page_follows_again_when_it_is_online(self, site: Site) -> None:
        page = await site.browser.window()
        await page.goto("./")
        await live(page)

        await page.context.set_offline(True)
        await page.get_by_text(LOST).wait_for()
        await site.create("Lamp")
        await page.context.set_offline(False)

        await page.get_by_role("link", name="Lamp").wait_for()
        await live(page)

    async def test_failed_action_shows_a_notice_and_can_be_repeated(self, site: Site) -> None:
        page = await site.browser.window()
        await sign_up(page)
        await fill_in(page, "Lamp")

        site.network.refuse()
        await page.get_by_role("button", name="Create").click()
        await page.get_by_text("The service cannot be reached.").wait_for()
        await site.network.listen()
        await page.get_by_role("button", name="Create").click()

        await page.get_by_role("button", name="Edit").wait_for()

    async def test_sign_in_outlives_a_reload_without_an_answer(self, site: Site) -> None:
        page = await site.browser.window()
        await sign_up(page)
        await page.route("**/console/session/refresh", lambda route: route.abort())

        await page.reload()
        await page.get_by_text("The service cannot be reached.").wait_for()
        assert not await page.get_by_role("button", name="Sign in").count()
        await page.unroute("**/console/session/refresh")

        await page.get_by_role("button", name="Log out").wait_for()

    async def test_version_that_was_missed_is_shown_afterwards(self, site: Site) -> None:
        author = await site.browser.window()
        await sign_up(author)
        await create(author, "Lamp")
        reader = await site.browser.window()
        await reader.goto(author.url)
        await reader.get_by_role("heading", name="Lamp").wait_for()
        product = author.url.rpartition("/")[2]
        await reader.route(f"**/api/products/{product}", lambda route: route.abort())

        await author.get_by_role("button", name="Edit").click()
        await author.get_by_label("Name").fill("Rug")
        async with reader.expect_event("requestfailed"):
            await author.get_by_role("button", name="Save").click()
        assert await reader.locator("h1").inner_text() == "Lamp"
        await reader.unroute(f"**/api/products/{product}")

        await reader.get_by_role("heading", name="Rug").wait_for()


async def end_once(page: Any, code: str) -> None:
    """End the page's next stream of changes as the service does."""
    reason = json.dumps({"code": code, "detail": "The stream has ended."})
    await page.route(
        "**/api/products/changes?*",
        lambda route: route.fulfill(
            content_type="text/event-stream",
            body=f":\n\nretry: 100\nevent: end\ndata: {reason}\n\n",
        ),
        times=1,
    )


class TestEndedStream:
    @pytest.mark.usefixtures("engine")  # That of the module's mark.
    async def test_pages_stay_live_while_workers_are_replaced(
        self, tmp_path: Path, chromium_process: Any
    ) -> None:
        async with (
            Catalog(tmp_path).start() as service,
            browser((await service.serving()).url, chromium_process) as opened,
        ):
            token = await service.sign_up("ada")
            body = {"name": "Lamp", "price": 1}
            await (await service.connect()).ask("POST", "/api/products", token=token, body=body)
            pages = [await opened.window(), await opened.window()]
            for page, path in zip(pages, ("./", "./products/1"), strict=True):
                await page.goto(path)
                await live(page)

            service.send_signal(signal.SIGHUP)
            await service.event("reload_done")
            await service.event("worker_stopped")
            changes = {"name": "Rug"}
            client = await service.connect()
            await client.ask("PATCH", "/api/products/1", token=token, body=changes)

            await pages[0].get_by_role("link", name="Rug").wait_for()
            await pages[1].get_by_role("heading", name="Rug").wait_for()
            for page in pages:
                await live(page)

    @pytest.mark.parametrize("code", ["not-ready", "overloaded", "database-unavailable"])
    async def test_stream_is_resumed(self, site: Site, code: str) -> None:
        await site.create("Lamp")

        for path in ("./", "./products/1"):
            page = await site.browser.window()
            await end_once(page, code)
            await page.goto(path)

            await page.get_by_text(LOST).wait_for()
            await live(page)

    async def test_list_shows_a_notice_after_changes_gone(self, site: Site) -> None:
        page = await site.browser.window()
        await end_once(page, "changes-gone")

        await page.goto("./")

        await page.get_by_text("Not live: load the page again.").wait_for()

    async def test_product_is_fetched_again_after_changes_gone(self, site: Site) -> None:
        await site.create("Lamp")
        page = await site.browser.window()
        await end_once(page, "changes-gone")

        async with page.expect_response("**/api/products/1"):
            await page.goto("./products/1")

    async def test_product_page_shows_a_notice_after_a_lost_connection(self, site: Site) -> None:
        await site.create("Lamp")
        page = await site.browser.window()
        await page.goto("./products/1")
        await live(page)

        site.network.refuse()
        await page.get_by_text(LOST).wait_for()
        await site.network.listen()

        await live(page)
