"""Fixtures for the middleware."""

import pytest
from quart import Quart

from tests.http.wire import app_without_database


@pytest.fixture(scope="module")
def app_that_fails(tmp_path_factory: pytest.TempPathFactory) -> Quart:
    """Return an app without a database and with a route that raises."""
    app = app_without_database(tmp_path_factory.mktemp("fails"))

    @app.get("/unforeseen")
    async def unforeseen() -> str:
        raise RuntimeError

    return app
