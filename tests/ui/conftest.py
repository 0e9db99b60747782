"""Fixtures of the tests in a browser."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.browser import chromium


@pytest.fixture(scope="package")
async def chromium_process() -> AsyncIterator[Any]:
    """Run one Chromium for all tests; windows of different tests share nothing."""
    async with chromium() as process:
        yield process
