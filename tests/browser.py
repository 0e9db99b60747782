"""A real Chromium, for tests of pages.

Every page fails its test by an error in its console or an uncaught exception.
"""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.support import until

CHROMIUM = (
    os.environ.get("CATALOG_TEST_CHROMIUM")
    # The same engine without the browser around the pages, whose address bar alone is two pages of
    # its own in each window: a window takes a third of the CPU time.
    or shutil.which("chromium-headless-shell")
    or shutil.which("chromium")
)

needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not there: no page is tested in a browser"
)

TIMEOUT_MILLISECONDS = 60_000
"""Time-out of each step, which takes milliseconds on an idle machine."""


class Browser:
    """A browser; each of its windows has cookies and storage of its own.

    Attributes:
        faults: errors in the pages' consoles, uncaught exceptions, and requests to other hosts.
    """

    def __init__(self, chromium: Any, url: str) -> None:
        self._chromium = chromium
        self._url = url
        self.faults: list[str] = []

    async def window(self, **options: Any) -> Any:
        """Open a window, and return its page.

        Relative URLs lead below the service's own, which may have a path.

        Args:
            **options: those of a browser context.
        """
        context = await self._chromium.new_context(base_url=f"{self._url}/", **options)
        context.set_default_timeout(TIMEOUT_MILLISECONDS)
        page = await context.new_page()
        self.watch(page)
        return page

    def watch(self, page: Any) -> None:
        """Collect the faults of a page."""
        page.on("console", self._on_message)
        page.on("pageerror", lambda error: self.faults.append(f"uncaught: {error}"))
        page.on("request", self._on_request)

    def _on_message(self, message: Any) -> None:
        if message.type == "error":
            self.faults.append(message.text)

    def _on_request(self, request: Any) -> None:
        if not request.url.startswith((self._url, "blob:", "data:")):
            self.faults.append(f"asks another host: {request.url}")

    async def forgive(self, text: str) -> None:
        """Wait for a fault with a text, and remove all of these.

        Browsers report each refused request as an error, at some time after the page has the
        response.

        Raises:
            TimeoutError: there is none.
        """
        await until(lambda: any(text in fault for fault in self.faults))
        self.faults = [fault for fault in self.faults if text not in fault]


@asynccontextmanager
async def chromium() -> AsyncIterator[Any]:
    """Run a headless Chromium."""
    # Imported here, because the package is not there without a browser.
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        process = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            # Root has no sandbox, and containers have a small /dev/shm.
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
        )
        yield process
        await process.close()


@asynccontextmanager
async def browser(url: str, process: Any = None) -> AsyncIterator[Browser]:
    """Open a browser for the pages of a service, and close its windows at the end.

    Args:
        url: of the service, with its path.
        process: a running Chromium without windows, in place of one of its own.

    Raises:
        AssertionError: a page had a fault.
    """
    async with AsyncExitStack() as stack:
        if process is None:
            process = await stack.enter_async_context(chromium())
        opened = Browser(process, url)
        try:
            yield opened
        finally:
            for context in process.contexts:
                await context.close()
        assert not opened.faults, opened.faults
