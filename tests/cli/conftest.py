"""Fixtures of the commands: a command line for a database, and restored logging."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from sqlalchemy import URL

from tests.cli.commands import CommandLine


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Restore logging after each test, because commands configure it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def no_wait_for_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands fail at once if their database is unreachable."""
    monkeypatch.setattr("catalog.bootstrap.DATABASE_START_SECONDS", 0)


@pytest.fixture
def catalog(database_url: URL) -> CommandLine:
    """Return a command line with a migrated database."""
    return CommandLine(database_url)


@pytest.fixture
def fresh(empty_database_url: URL) -> CommandLine:
    """Return a command line with a database without tables."""
    return CommandLine(empty_database_url)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """Return a command line in an empty folder, with an unreachable database."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return CommandLine(URL.create("mysql", "catalog", "s3kr1t-word", "127.0.0.1", 1, "catalog"))
