"""Database server of a benchmark: a given one, or a private one."""

import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiomysql
import click
from sqlalchemy import URL

from catalog.settings import parse_database_url
from tests.engines import (
    EngineMissing,
    answering,
    connected,
    mariadb,
    private_server,
    server_program,
)

# Large enough for pages and log, so that no turn is bound by the disk. All else is the server's
# default, so each commit is flushed to disk before it is answered.
_OPTIONS = ["--innodb-buffer-pool-size=1G", "--max-connections=500"]


@dataclass(frozen=True)
class Server:
    """A server with a database for the benchmark.

    Attributes:
        version: name and number, such as ``MySQL 9.7.0``.
        url: of the database.
    """

    version: str
    url: URL

    @asynccontextmanager
    async def another_database(self) -> AsyncIterator[URL]:
        """Create a database for the duration of the block; the account needs the right to."""
        url = self.url.set(database=f"catalog_bench_{secrets.token_hex(6)}")
        async with connected(self.url) as cursor:
            await cursor.execute(f"CREATE DATABASE {url.database} CHARACTER SET utf8mb4")
        try:
            yield url
        finally:
            async with connected(self.url) as cursor:
                await cursor.execute(f"DROP DATABASE {url.database}")


@asynccontextmanager
async def database_server(given: str | None, folder: Path) -> AsyncIterator[Server]:
    """Provide a server with an empty database: at the given URL, else MySQL, else MariaDB.

    Raises:
        click.ClickException: the database has tables already, or there is no server.
    """
    if given is not None:
        url = parse_database_url(given)
        yield Server(await _version(url), url)
        return
    with _private(folder) as (process, url):
        try:
            await answering(process, url)
        except aiomysql.OperationalError:
            log = (folder / "log").read_text()[-2000:]
            raise click.ClickException(f"The database did not start.\n{log}") from None
        server = Server(await _version(url, empty=False), url)
        async with server.another_database() as own:
            yield Server(server.version, own)


async def _version(url: URL, *, empty: bool = True) -> str:
    async with connected(url) as cursor:
        if empty and await cursor.execute("SHOW TABLES"):
            raise click.ClickException(f"{url.database} has tables already; give an empty one.")
        await cursor.execute("SELECT VERSION()")
        (version,) = await cursor.fetchone()
    return f"{'MariaDB' if 'MariaDB' in version else 'MySQL'} {version.partition('-')[0]}"


@contextmanager
def _private(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], URL]]:
    mysqld = server_program("mysqld")
    # MariaDB's packages install a mysqld, too.
    if mysqld and b"MariaDB" not in subprocess.check_output([mysqld, "--version"]):
        # The default of the second option is a folder that only the package's service creates.
        serving = [mysqld, *_OPTIONS, "--mysqlx=OFF", "--secure-file-priv=NULL"]
        with private_server([mysqld, "--initialize-insecure"], serving, folder) as started:
            yield started
        return
    try:
        with mariadb(folder, *_OPTIONS) as started:
            yield started
    except EngineMissing:
        raise click.ClickException(
            "There is neither MySQL nor MariaDB: install one, or give --url."
        ) from None
