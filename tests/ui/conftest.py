"""Fixtures of the tests in a browser: Chromium, and the console that it shows."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pydantic import SecretStr

from catalog.settings import Settings
from tests.browser import Browser, browser
from tests.browser import chromium as running_chromium
from tests.server.in_process import serving
from tests.server.nginx import nginx
from tests.ui.console import ADMIN_PASSWORD

ADMIN = SecretStr(ADMIN_PASSWORD)


@pytest.fixture(scope="package")
async def chromium_process() -> AsyncIterator[Any]:
    """Run one Chromium for all tests; windows of different tests share nothing."""
    async with running_chromium() as process:
        yield process


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
