"""Fixtures: the running service, its document, and a folder to generate clients in."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.clients.tools import NODE_MODULES, missing_tools
from tests.server.service import Catalog, Service


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, which ``./build.sh clients`` runs."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.clients)


@pytest.fixture(scope="package")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """Start one service for all clients."""
    if lacking := missing_tools():
        pytest.skip(f"{lacking} missing: ./build.sh clients installs what these tests need")
    async with Catalog(tmp_path_factory.mktemp("clients")).start() as service:
        yield await service.serving()


@pytest.fixture
async def folder(service: Service, tmp_path: Path) -> Path:
    """Return a folder with the service's document and the packages of Node.js."""
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    async with httpx.AsyncClient(base_url=service.url) as client:
        document = await client.get("/openapi.json")
    (tmp_path / "openapi.json").write_bytes(document.content)
    return tmp_path
