"""Fixtures of the fault suite; ``./build.sh faults`` runs it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.engines import Engine, EngineMissing
from tests.faults.figures import Figures
from tests.faults.scale import FULL, SHORT, Scale
from tests.server.service import Catalog

FIGURES = pytest.StashKey[Figures]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = Figures()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if table := config.stash[FIGURES].table():
        terminalreporter.section("figures")
        terminalreporter.write(f"{table}\n")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Raise the time-out of the checks, however pytest was started."""
    timeout = pytest.mark.timeout(scale_of(config).timeout_seconds)
    for item in items:
        if item.get_closest_marker("faults") and not item.get_closest_marker("timeout"):
            item.add_marker(timeout)


def scale_of(config: pytest.Config) -> Scale:
    return FULL if config.getoption("--full") else SHORT


@pytest.fixture(scope="session")
def scale(request: pytest.FixtureRequest) -> Scale:
    """Size of each check."""
    return scale_of(request.config)


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Figures:
    """Collector of measured figures."""
    return request.config.stash[FIGURES]


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Return the service as a process of its own, not yet started."""
    return Catalog(tmp_path)


@pytest.fixture
async def on_mariadb(
    catalog: Catalog,
    running_engine: Callable[[str], Awaitable[Engine]],
) -> AsyncIterator[Catalog]:
    """Provide the service on MariaDB, or on SQLite if MariaDB is missing."""
    try:
        engine = await running_engine("mariadb")
    except EngineMissing:
        yield catalog
        return
    url = await engine.create_database(catalog.folder)
    catalog.environment["DATABASE_URL"] = url.render_as_string(hide_password=False)
    yield catalog
    await engine.drop_database(url)
