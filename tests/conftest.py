"""Fixtures that all tests share: databases on every engine, and settings for them.

A test that asks for a database runs once on each engine.
"""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from quart import Quart
from sqlalchemy import URL, update
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.app import create_app
from catalog.auth.models import Role, User
from catalog.db.database import Database
from catalog.http import problems
from catalog.http.context import running
from catalog.observability.debounce import Debounce
from catalog.settings import Settings
from tests import engines
from tests.db.support import Open
from tests.engines import Engine, EngineMissing, settings_for
from tests.support import Caller

# What a developer may do without, CI may not.
REQUIRED = os.environ.get("CI") == "true"

FOUND = pytest.StashKey[dict[str, str]]()
MISSING = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engine",
        action="append",
        choices=engines.NAMES,
        help="run database tests only on this engine (may be repeated)",
    )
    parser.addoption(
        "--full",
        action="store_true",
        help="run the fault suite in its full size: up to 2 hours instead of 6 minutes",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FOUND] = {}
    config.stash[MISSING] = {}
    # Who stops pytest by SIGTERM, as CI systems do, gets the same tidying up as with Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.getoption("--engine") or engines.NAMES
    unwanted = [item for item in items if _engine_of(item) not in {None, *chosen}]
    config.hook.pytest_deselected(items=unwanted)
    items[:] = [item for item in items if item not in set(unwanted)]


def _engine_of(item: pytest.Item) -> object:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("engine") if callspec else None


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that sums up, where this is one of several that test (pytest-xdist)."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["found"] = session.config.stash[FOUND]
        output["missing"] = session.config.stash[MISSING]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear what one of several has told; nothing, when it crashed."""
    output = getattr(node, "workeroutput", {})
    node.config.stash[FOUND].update(output.get("found", {}))
    node.config.stash[MISSING].update(output.get("missing", {}))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    found, missing = config.stash[FOUND], config.stash[MISSING]
    if not found and not missing:
        return
    terminalreporter.section("engines")
    for name in (*engines.NAMES, "redis", "prometheus"):
        if name in found:
            terminalreporter.line(f"{name}: {found[name]}")
        if name in missing:
            outcome = "FAILED" if REQUIRED else "SKIPPED"
            terminalreporter.line(f"{name}: {outcome}. {missing[name]}", yellow=True, bold=True)


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> Iterator[None]:
    """Keep what a developer has exported out of the settings under test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            ours = name.startswith(("CATALOG_", "DATABASE_URL", "JWT_SECRET_KEY", "ADMIN_"))
            if ours and not name.startswith("CATALOG_TEST_"):
                patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def no_refusals_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log the first refusal of each test, whatever was refused in the tests before."""
    monkeypatch.setattr(problems, "_refusals", Debounce())


@pytest.fixture(scope="session")
async def running_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Callable[[str], Awaitable[Engine]]]:
    """Gives an engine by its name; started when it is first asked for, it runs until the end."""
    stash = request.config.stash
    started: dict[str, Engine] = {}
    async with AsyncExitStack() as stack:

        async def start(name: str) -> Engine:
            if name not in started:
                running = engines.running(name, tmp_path_factory.mktemp(name))
                started[name] = await stack.enter_async_context(running)
                stash[FOUND][name] = started[name].version
            return started[name]

        yield start


@pytest.fixture(scope="session", params=engines.NAMES)
async def engine(
    request: pytest.FixtureRequest, running_engine: Callable[[str], Awaitable[Engine]]
) -> Engine:
    """A running engine; a test that asks for it runs on each of them."""
    try:
        return await running_engine(request.param)
    except EngineMissing as missing:
        reason = request.config.stash[MISSING][request.param] = str(missing)
    if REQUIRED:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture
async def empty_database_url(engine: Engine, tmp_path: Path) -> AsyncIterator[URL]:
    """A new database without any tables."""
    url = await engine.create_database(tmp_path)
    yield url
    await engine.drop_database(url)


@pytest.fixture
async def database_url(engine: Engine, tmp_path: Path) -> URL:
    """A database as the migrations leave it, where ids begin at 1."""
    return await engine.migrated_database(tmp_path)


@pytest.fixture
def settings(database_url: URL) -> Settings:
    """Settings for that database, otherwise the defaults."""
    return settings_for(database_url)


@pytest.fixture
async def opened(database_url: URL) -> AsyncIterator[Open]:
    """Opens the database once more, as another instance does, or with other settings."""
    databases: list[Database] = []

    def open_database(url: URL | None = None, **overrides: Any) -> Database:
        databases.append(Database(settings_for(url or database_url, **overrides)))
        return databases[-1]

    yield open_database
    for database in databases:
        await database.close()


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[Quart]:
    """The service on an empty database, started; its responses come without a server between."""
    app = create_app(settings)
    async with app.test_app():
        yield app


@pytest.fixture
def database(app: Quart) -> Database:
    """The app's database, to look behind the scenes."""
    return running(app).database


@pytest.fixture
def anyone(app: Quart) -> Caller:
    """Someone without an account."""
    return Caller(app)


@pytest.fixture
async def ada(app: Quart) -> Caller:
    """Someone with an account."""
    return await Caller.signed_up(app, "ada")


@pytest.fixture
async def bob(app: Quart) -> Caller:
    """Someone else with an account."""
    return await Caller.signed_up(app, "bob")


@pytest.fixture
async def admin(app: Quart, database: Database) -> Caller:
    """Someone who may do anything."""
    admin = await Caller.signed_up(app, "grace")

    async def promote(session: AsyncSession) -> None:
        await session.execute(update(User).where(User.id == admin.user_id).values(role=Role.ADMIN))

    await database.transaction(promote)
    return admin
