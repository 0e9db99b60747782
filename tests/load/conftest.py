"""The service with sample products, as the benchmark's only contestant."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.load.contestants import CATALOG, Contestant
from tests.load.report import Results
from tests.load.workloads.turns import Options, Turns
from tests.server.service import Catalog

PRODUCTS = 300
USERS = 3


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Contestant]:
    """Run the service with sample products."""
    catalog = Catalog(tmp_path_factory.mktemp("bench"))
    catalog.environment["CATALOG_READ_LIMIT"] = catalog.environment["CATALOG_WRITE_LIMIT"] = "off"
    await _run(catalog, "migrate")
    counts = ["--users", str(USERS), "--products", str(PRODUCTS)]
    await _run(catalog, "seed", *counts, "--password", "correct horse battery staple")
    async with catalog.start("--workers=2") as service:
        await service.serving()
        await service.event("worker_ready", count=2)
        yield Contestant(CATALOG, "the service", service.url, (service.process.pid,))


async def _run(catalog: Catalog, *command: str) -> None:
    """Run a command of the service to its end."""
    process = await asyncio.create_subprocess_exec(
        *(*catalog.command, *command),
        env={**os.environ, **catalog.environment},
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert await process.wait() == 0


@pytest.fixture
def turns(site: Contestant, tmp_path: Path) -> Turns:
    options = Options(
        products=PRODUCTS, rounds=1, seconds=1, connections=(2,), workloads=(), peers=()
    )
    return Turns(options, {CATALOG: site}, Results([], {CATALOG: site.title}), tmp_path)
