"""Fixtures of the tests that run the service as a process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.server.service import Catalog, Service


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """The service, not started yet: one worker, any free port, a database of its own."""
    return Catalog(tmp_path)


@pytest.fixture
async def service(catalog: Catalog) -> AsyncIterator[Service]:
    """The service with two workers, serving."""
    async with catalog.start("--workers=2") as service:
        yield await service.serving()


@pytest.fixture(scope="package")
async def shared_service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """One for all tests that leave it as it was."""
    async with Catalog(tmp_path_factory.mktemp("shared")).start() as service:
        yield await service.serving()
