"""Fixtures for requests that are decided before any row is read: an app without a database."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import hypothesis
import pytest
from quart import Quart

from catalog.http.context import app_state
from tests.conftest import FOUND, MISSING, REQUIRED
from tests.engines import migrate
from tests.http import redis_server
from tests.http.documented import hold_to_document
from tests.http.redis_server import RedisMissing, RedisServer
from tests.http.wire import app_without_database, holder_of_tokens
from tests.support import Caller

# An example's run time depends more on the machine than on the code.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="package")
async def bare_app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Quart]:
    """Yield the service with its database removed after the start; checks against the document.

    It has loaded the list of ended sessions, and therefore accepts valid tokens.
    """
    app = app_without_database(tmp_path_factory.mktemp("bare"))
    hold_to_document(app)
    url = app_state(app).settings.database_url
    folder = Path(str(url.database)).parent
    folder.mkdir()
    await migrate(url)
    async with app.test_app():
        shutil.rmtree(folder)
        yield app


@pytest.fixture
def stranger(bare_app: Quart) -> Caller:
    """Return a caller without a token."""
    return Caller(bare_app)


@pytest.fixture
async def holder(bare_app: Quart) -> Caller:
    """Return a caller with valid tokens, whose account need not exist."""
    return await holder_of_tokens(bare_app)


@pytest.fixture
def app(app: Quart) -> Quart:
    """Return the service on a database; its responses are checked against the document."""
    hold_to_document(app)
    return app


@pytest.fixture
async def redis(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RedisServer]:
    """Yield a Redis server of the test's own, empty and running."""
    stash = request.config.stash
    reason = ""
    try:
        async with redis_server.running(tmp_path) as server:
            stash[FOUND]["redis"] = server.version
            yield server
    except RedisMissing as missing:
        reason = stash[MISSING]["redis"] = str(missing)
    # Optional for developers, required in CI.
    if reason and REQUIRED:
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(reason)
