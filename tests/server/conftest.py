"""Fixtures of the tests that run the service as a process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.server.service import Catalog, Service


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
