"""Packages that a worker loads only if the settings, or the database's schema, need them."""

import os
import subprocess
import sys

from sqlalchemy import URL

from tests.engines import SECRET

OPTIONAL = {"alembic", "mako", "opentelemetry", "redis"}

# Starts a worker's service without serving, then prints the packages that are loaded.
START = """
import asyncio, sys
from catalog.server import worker
from catalog.settings import load_settings

settings = load_settings()
asyncio.run(worker.prepare(settings))
worker.create_app(settings)
print(*{name.partition(".")[0] for name in sys.modules})
"""


def loaded(url: URL, **settings: str) -> set[str]:
    """Return the packages that a worker has loaded when it begins to serve."""
    given = {
        "DATABASE_URL": url.render_as_string(hide_password=False),
        "JWT_SECRET_KEY": SECRET.get_secret_value(),
        "ADMIN_PASSWORD": "correct horse battery staple",
    }
    started = subprocess.run(
        [sys.executable, "-c", START],
        env={**os.environ, **given, **settings},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return set(started.stdout.split())


class TestWorker:
    def test_default_settings_load_no_optional_package(self, database_url: URL) -> None:
        assert not loaded(database_url) & OPTIONAL

    def test_shared_limits_load_the_client_of_redis(self, database_url: URL) -> None:
        assert "redis" in loaded(database_url, CATALOG_LIMITS_URL="redis://127.0.0.1:1")

    def test_tracing_loads_opentelemetry(self, database_url: URL) -> None:
        assert "opentelemetry" in loaded(database_url, CATALOG_TRACING="otlp")

    def test_outdated_schema_loads_alembic(self, empty_database_url: URL) -> None:
        assert {"alembic", "mako"} <= loaded(empty_database_url)
