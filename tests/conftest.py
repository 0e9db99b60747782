"""Fixtures for all tests: databases on every engine, and settings for them.

A test that requests a database runs once on each engine.
"""

import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from quart import Quart
from sqlalchemy import URL, update
from sqlalchemy.ext.asyncio import AsyncSession
from werkzeug.routing import Rule

from catalog.app import create_app
from catalog.auth.context import auth
from catalog.auth.models import Role, User
from catalog.db.database import Database
from catalog.db.deadlines import Deadlines
from catalog.db.engines import create_engine
from catalog.http.context import app_state
from catalog.http.replies import problems
from catalog.observability.log_throttle import LogThrottle
from catalog.settings import Settings, usable_cores
from tests import engines
from tests.db.support import PATIENT, Open
from tests.engines import Engine, EngineMissing, settings_for
from tests.frozen_objects import frozen_objects
from tests.support import Caller

# A missing engine skips tests on a developer's machine, but fails them in CI.
REQUIRED = os.environ.get("CI") == "true"

# The marker expression in pyproject.toml: all tests but those that run on request.
UNMARKED = "not cluster and not faults and not clients and not generators"

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
    parser.addoption(
        "--without-fast-path",
        action="store_true",
        help="let the framework answer every request",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FOUND] = {}
    config.stash[MISSING] = {}
    # SIGTERM, which CI systems use to stop pytest, then cleans up like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of processes for ``-n auto``, which ``./build.sh test`` passes.

    Three for two cores, since half of the time goes into waiting for servers.
    """
    options = config.option
    alone = runs_alone(config.args, markers=options.markexpr, capture=options.capture)
    return 0 if alone else usable_cores() * 3 // 2


def runs_alone(arguments: Sequence[str], *, markers: str, capture: str) -> bool:
    """Tell whether a run is faster, or measures better, in the process of pytest itself.

    A process takes seconds to start, and may start a MariaDB of its own, so a single file gets
    none. Neither do tests whose output is not captured, because pytest-xdist would lose it, and
    tests chosen by a marker, because they load the machine and measure.
    """
    is_single_file = len(arguments) == 1 and Path(arguments[0].partition("::")[0]).is_file()
    return is_single_file or capture == "no" or markers not in {"", UNMARKED}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the tests out of garbage collection."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        frozen_objects.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Exclude the tests from garbage collection again after a module that has thawed them."""
    result = yield
    if nextitem is not None and nextitem.path != item.path:
        frozen_objects.freeze_again()
    return result


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
    """Send the engines of a worker process to the controlling one (pytest-xdist)."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["found"] = session.config.stash[FOUND]
        output["missing"] = session.config.stash[MISSING]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Receive the engines of a worker process; a crashed one has sent nothing."""
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
def clean_environment(request: pytest.FixtureRequest) -> Iterator[None]:
    """Remove a developer's variables from the environment of the settings under test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            ours = name.startswith(("CATALOG_", "DATABASE_URL", "JWT_SECRET_KEY", "ADMIN_"))
            ours = ours or name == "PORT"
            if ours and not name.startswith("CATALOG_TEST_"):
                patch.delenv(name)
        if request.config.getoption("--without-fast-path"):
            patch.setenv("CATALOG_FAST_PATH", "off")
        yield


@pytest.fixture(autouse=True)
def no_refusals_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the throttle, so that the first refusal of each test is logged."""
    monkeypatch.setattr(problems, "_refusals", LogThrottle())


@pytest.fixture(scope="session", autouse=True)
def patient_deadlines() -> Iterator[None]:
    """Give databases long deadlines, because a busy machine may exceed those of the service.

    Tests of deadlines set their own.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("catalog.app.DEADLINES", PATIENT)
        patch.setattr("catalog.auth.tokens.revocations.READ_SECONDS", PATIENT.read)
        for function in (Database.__init__, create_engine):
            patch.setattr(
                function, "__kwdefaults__", {**defaults_of(function), "deadlines": PATIENT}
            )
        yield


@pytest.fixture(scope="session", autouse=True)
def compiled_routes() -> Iterator[None]:
    """Compile the code that builds a route's URLs once, instead of for each test's app.

    It takes 17 of the 22 ms of CPU that an app takes to make, and depends on the route alone.
    """
    compiled: dict[Any, Any] = {}
    compile_builder = Rule._compile_builder

    def compile_once(rule: Rule, append_unknown: bool = True) -> Any:
        key = rule.rule, tuple(rule._trace), append_unknown
        if rule.defaults:
            return compile_builder(rule, append_unknown)
        if key not in compiled:
            compiled[key] = compile_builder(rule, append_unknown)
        return compiled[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rule, "_compile_builder", compile_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def hashing_at_full_priority() -> Iterator[None]:
    """Let hashes of the least cost not wait for all other processes of a busy machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("catalog.auth.passwords.hashing.NICENESS", -20)
        yield


def defaults_of(function: Callable[..., Any]) -> dict[str, Any]:
    return function.__kwdefaults__ or {}


@pytest.fixture(scope="session")
async def running_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Callable[[str], Awaitable[Engine]]]:
    """Return a function that starts an engine on first use, until the end of the session."""
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
    """Return a running engine; a test that requests it runs on each of them."""
    try:
        return await running_engine(request.param)
    except EngineMissing as missing:
        reason = request.config.stash[MISSING][request.param] = str(missing)
    if REQUIRED:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture
async def empty_database_url(engine: Engine, tmp_path: Path) -> AsyncIterator[URL]:
    """Create a database without tables."""
    url = await engine.create_database(tmp_path)
    yield url
    await engine.drop_database(url)


@pytest.fixture
async def database_url(engine: Engine, tmp_path: Path) -> URL:
    """Return a migrated database, whose ids begin at 1."""
    return await engine.migrated_database(tmp_path)


@pytest.fixture
def settings(database_url: URL) -> Settings:
    """Return the default settings for that database, but for password hashes of the least cost.

    Accounts of thousands of tests would take 20 ms each, at a low priority besides.
    """
    return settings_for(database_url).model_copy(update={"password_memory_kib": 8})


@pytest.fixture
async def opened(database_url: URL) -> AsyncIterator[Open]:
    """Return a function that opens another pool to the database, by default with its settings."""
    databases: list[Database] = []

    def open_database(
        url: URL | None = None, *, deadlines: Deadlines = PATIENT, **overrides: Any
    ) -> Database:
        settings = settings_for(url or database_url, **overrides)
        databases.append(Database(settings, deadlines=deadlines))
        return databases[-1]

    yield open_database
    for database in databases:
        await database.close()


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[Quart]:
    """Start the service on an empty database; tests call it in-process, without a server."""
    app = create_app(settings)
    async with app.test_app():
        revocations = auth(app).revocations
        if revocations.age is None:
            # The first poll timed out on a busy machine, and until the next one tokens get 503.
            await revocations.refresh()
        yield app


@pytest.fixture
def database(app: Quart) -> Database:
    """Return the app's database, for direct access."""
    return app_state(app).database


@pytest.fixture
def anyone(app: Quart) -> Caller:
    """Return a caller without an account."""
    return Caller(app)


@pytest.fixture
async def ada(app: Quart) -> Caller:
    """Return a caller with an account."""
    return await Caller.signed_up(app, "ada")


@pytest.fixture
async def bob(app: Quart) -> Caller:
    """Return a caller with another account."""
    return await Caller.signed_up(app, "bob")


@pytest.fixture
async def admin(app: Quart, database: Database) -> Caller:
    """Return a caller with an administrator's account."""
    admin = await Caller.signed_up(app, "grace")

    async def promote(session: AsyncSession) -> None:
        await session.execute(update(User).where(User.id == admin.user_id).values(role=Role.ADMIN))

    await database.transaction(promote)
    return admin
