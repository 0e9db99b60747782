"""The database engines for tests: SQLite, a private MariaDB, and a MySQL given by its URL.

Each provides databases, both empty and migrated.
"""

import asyncio
import os
import secrets
import shutil
import socket
import sqlite3
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiomysql
from pydantic import SecretStr
from sqlalchemy import URL

from catalog.migrations import exclusive, upgrade
from catalog.settings import Settings, parse_database_url

NAMES = ("sqlite", "mariadb", "mysql")
SECRET = SecretStr(secrets.token_hex(32))
START_TIMEOUT_SECONDS = 60.0
MAX_DELETED_WORDS = 200
"""Rows of words that are deleted between two truncations of their table."""


class EngineMissing(Exception):
    """An engine is not available; the message says why and how to get it."""


def settings_for(url: URL, **overrides: Any) -> Settings:
    """Return settings for a database; the given values override the environment."""
    return Settings(**{"database_url": url, "jwt_secret_key": SECRET, **overrides})


async def migrate(url: URL) -> None:
    """Migrate a database to the newest revision."""
    async with exclusive(settings_for(url)) as connection:
        await upgrade(connection)


class Engine(ABC):
    """A running database engine."""

    name: str
    version: str

    @abstractmethod
    async def create_database(self, folder: Path) -> URL:
        """Create an empty database; one that is a file is created in the folder."""

    @abstractmethod
    async def drop_database(self, url: URL) -> None:
        """Drop a database of ``create_database``."""

    @abstractmethod
    async def migrated_database(self, folder: Path) -> URL:
        """Return a migrated database; on a server it is the same one each time."""


class SQLite(Engine):
    """SQLite files; a migrated one is a copy of a template."""

    def __init__(self, template_folder: Path) -> None:
        self.name = "sqlite"
        self.version = f"SQLite {sqlite3.sqlite_version}"
        self._template_folder = template_folder
        self._template: Path | None = None

    async def create_database(self, folder: Path) -> URL:
        path = folder / f"catalog-{secrets.token_hex(4)}.db"
        return URL.create("sqlite+aiosqlite", database=str(path))

    async def drop_database(self, url: URL) -> None:
        path = Path(str(url.database))
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()

    async def migrated_database(self, folder: Path) -> URL:
        if self._template is None:
            template = await self.create_database(self._template_folder)
            await migrate(template)
            self._template = Path(str(template.database))
        url = await self.create_database(folder)
        # The migration closed its only connection, which checkpointed its write-ahead log.
        shutil.copyfile(self._template, str(url.database))
        return url


class Server(Engine):
    """MariaDB or MySQL; all tests share one migrated database, which is restored in between."""

    def __init__(self, name: str, version: str, url: URL) -> None:
        self.name = name
        self.version = version
        self._url = url
        self._template: URL | None = None
        self._shared: URL | None = None
        self._tables: list[str] = []
        self._filled: list[str] = []
        self._deleted_words = 0

    async def create_database(self, folder: Path) -> URL:  # noqa: ARG002 (for engines with files)
        url = self._url.set(database=f"catalog_test_{secrets.token_hex(6)}")
        async with connected(self._url) as cursor:
            await cursor.execute(f"CREATE DATABASE {url.database} CHARACTER SET utf8mb4")
        return url

    async def drop_database(self, url: URL) -> None:
        async with connected(self._url) as cursor:
            await cursor.execute(f"DROP DATABASE {url.database}")

    async def migrated_database(self, folder: Path) -> URL:
        if self._template is None or self._shared is None:
            self._template = await self.create_database(folder)
            self._shared = await self.create_database(folder)
            await migrate(self._template)
            await migrate(self._shared)
            async with connected(self._template) as cursor:
                self._tables = await _tables(cursor, self._template)
                self._filled = await _with_rows(cursor, self._tables)
        else:
            await self._restore(self._shared, self._template)
        return self._shared

    async def _restore(self, shared: URL, template: URL) -> None:
        """Replace all rows by the template's, and restart ids at 1.

        In one transaction and for tables with rows only, because it precedes thousands of tests.
        Deleted rows stay in a full-text index, where each search skips them: after a thousand
        tests, searches took ten times as long. So that table is truncated now and then.
        """
        async with connected(shared) as cursor:
            # Reveal a transaction that a test left open after 5 seconds instead of 50.
            await cursor.execute(
                "SET innodb_lock_wait_timeout = 5, lock_wait_timeout = 5, foreign_key_checks = 0"
            )
            if self.name == "mysql":
                # By default statistics, such as the next id of a table, are cached for a day.
                await cursor.execute("SET information_schema_stats_expiry = 0")
            used = await _with_rows(cursor, self._tables)
            await cursor.execute("BEGIN")
            for table in used:
                await cursor.execute(f"DELETE FROM {table}")  # noqa: S608 (a name from the schema)
                self._deleted_words += cursor.rowcount if table == "product_words" else 0
            for table in self._filled:
                rows = f"SELECT * FROM {template.database}.{table}"  # noqa: S608 (the same)
                await cursor.execute(f"INSERT INTO {table} {rows}")
            await cursor.execute("COMMIT")
            if self._deleted_words > MAX_DELETED_WORDS:
                await cursor.execute("TRUNCATE TABLE product_words")
                self._deleted_words = 0
            for table in await _tables(cursor, shared, "auto_increment > 1"):
                await cursor.execute(f"ALTER TABLE {table} AUTO_INCREMENT = 1")

    async def close(self) -> None:
        """Drop the shared databases."""
        for url in (self._template, self._shared):
            if url is not None:
                await self.drop_database(url)


async def _tables(cursor: Any, url: URL, condition: str = "TRUE") -> list[str]:
    await cursor.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = %s"  # noqa: S608 (conditions from above)
        f" AND table_type = 'BASE TABLE' AND table_name != 'alembic_version' AND {condition}",
        (url.database,),
    )
    return [name for (name,) in await cursor.fetchall()]


async def _with_rows(cursor: Any, tables: list[str]) -> list[str]:
    """Return those of the tables that are not empty."""
    await cursor.execute(
        " UNION ALL ".join(f"(SELECT '{table}' FROM {table} LIMIT 1)" for table in tables)  # noqa: S608 (names from the schema)
    )
    return [name for (name,) in await cursor.fetchall()]


@asynccontextmanager
async def connected(url: URL) -> AsyncIterator[Any]:
    """Yield a cursor on a server; each statement commits by itself."""
    connection = await aiomysql.connect(
        host=url.host,
        port=url.port or 3306,
        user=url.username,
        password=url.password or "",
        db=url.database,
        autocommit=True,
    )
    try:
        async with connection.cursor() as cursor:
            yield cursor
    finally:
        await connection.ensure_closed()


@asynccontextmanager
async def running(name: str, folder: Path) -> AsyncIterator[Engine]:
    """Run one of the ``NAMES`` for the duration of the block.

    Raises:
        EngineMissing: it is not available.
    """
    if name == "sqlite":
        yield SQLite(folder)
        return
    if name == "mysql":
        async with _server(name, _given_mysql()) as server:
            yield server
        return
    # Commits are not synced one by one: test data need not survive a power failure.
    options = ("--max-connections=500", "--innodb-flush-log-at-trx-commit=2")
    with mariadb(folder, *options) as (process, url):
        await answering(process, url)
        async with _server(name, url) as server:
            yield server


@asynccontextmanager
async def _server(name: str, url: URL) -> AsyncIterator[Server]:
    async with connected(url) as cursor:
        await cursor.execute("SELECT VERSION()")
        (version,) = await cursor.fetchone()
    product = "MariaDB" if "MariaDB" in version else "MySQL"
    if product.lower() != name:
        raise EngineMissing(f"CATALOG_TEST_MYSQL_URL leads to {product} {version}, not to MySQL.")
    server = Server(name, f"{product} {version}", url)
    try:
        yield server
    finally:
        await server.close()


def _given_mysql() -> URL:
    given = os.environ.get("CATALOG_TEST_MYSQL_URL")
    if not given:
        raise EngineMissing(
            "CATALOG_TEST_MYSQL_URL is not set. Set it to the URL of any database on a MySQL"
            " server where databases may be created: mysql://root:password@127.0.0.1:3306/mysql"
        )
    return parse_database_url(given)


@contextmanager
def mariadb(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], URL]]:
    """Run a private MariaDB; see ``private_server``.

    Raises:
        EngineMissing: it is not installed.
    """
    install, serve = server_program("mariadb-install-db"), server_program("mariadbd")
    if not install or not serve:
        raise EngineMissing(
            "There is no mariadbd. Get it by: apt-get install mariadb-server-core"
            " mariadb-client-core (./build.sh test does, where it may)"
        )
    # --force, because it otherwise refuses a machine that cannot resolve its own host name.
    installing = [install, "--force", "--auth-root-authentication-method=normal"]
    with private_server(installing, [serve, *options], folder) as started:
        yield started


def server_program(name: str) -> str | None:
    """Return the path of a server's program, which may be outside a user's PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextmanager
def private_server(
    install: list[str], serve: list[str], folder: Path
) -> Iterator[tuple[subprocess.Popen[bytes], URL]]:
    """Run a server on a free loopback port; its data is deleted when it stops.

    Args:
        install: the program that creates the system tables, with options.
        serve: the server, with options.
        folder: of its data and its log.
    """
    data = folder / "data"
    common = ["--no-defaults", f"--datadir={data}"]
    if os.geteuid() == 0:
        common.append("--user=root")
    # A starting server removes leftovers in its TMPDIR, which must not be shared with another's.
    (folder / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    installing = subprocess.run(
        [install[0], *common, *install[1:]],
        check=False,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert installing.returncode == 0, installing.stdout
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        *serve[1:],
        "--bind-address=127.0.0.1",
        f"--port={port}",
        "--socket=socket",  # In the data; the whole path might exceed the 107 characters allowed.
        "--pid-file=pid",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*tied_to_us(), serve[0], *common, *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C is for pytest, which then stops the server.
        )
    try:
        yield process, URL.create("mysql+aiomysql", "root", "", "127.0.0.1", port, "mysql")
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(data)
        shutil.rmtree(folder / "tmp")


def tied_to_us() -> list[str]:
    """Return a command prefix that stops the server when pytest is killed, if util-linux has it."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []


async def answering(process: subprocess.Popen[bytes], url: URL) -> None:
    """Wait until a started server accepts connections."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        try:
            async with connected(url):
                return
        except aiomysql.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
