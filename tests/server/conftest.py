"""Fixtures of the tests that run the service as a process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.server.nginx import nginx
from tests.server.service import Catalog, Service
from tests.server.shop import Shop


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Return the service, not yet started: one worker, any free port, its own database."""
    return Catalog(tmp_path)


@pytest.fixture
async def service(catalog: Catalog) -> AsyncIterator[Service]:
    """Start the service with two workers, and wait until it serves."""
    async with catalog.start("--workers=2") as service:
        yield await service.serving()


@pytest.fixture(scope="package")
async def shared_service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """Start one service for all tests that do not change its state."""
    async with Catalog(tmp_path_factory.mktemp("shared")).start() as service:
        yield await service.serving()


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    """Start the service with nginx in front of it for all tests of a module."""
    catalog = Catalog(tmp_path_factory.mktemp("shop"))
    async with catalog.start("--workers=2", CATALOG_READ_LIMIT="1000000/day") as service:
        await service.serving()
        async with nginx(service.url) as proxy:
            yield Shop(service, proxy, await service.sign_up(), catalog.folder / "catalog.db")
